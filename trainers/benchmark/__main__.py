"""Measures training against what the machine could do: `python -m trainers.benchmark --preset=ml-20m [--flagfile=…]`.

On generated interactions of a data set's shape it measures steps of real training, the parts of a step, and the floor
of a step: the time of its matrix products and of its memory traffic. All of these are measured in turns, round after
round, in one process. Utilisation is the floor divided by the best step.

The figures are printed as JSON, and stderr tells what is being measured. `--compare` adds settings that are measured
after the first ones.

With `--time_to=.42,.43` it trains on the data that --data or --dataset name instead, and prints the seconds until the
baselines, the model and those of `--compare` and `--also` have these values of NDCG@100 on test users.
"""

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from trainers.benchmark.progress import Progress
from trainers.main import define_flags as define_settings
from trainers.main import settings_from_flags
from trainers.memory_check import machine_memory
from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.synthetic import synthetic_matrix
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import home_expanded
from vae_cf_tf.settings import ModelSettings, Settings
from vae_cf_tf.settings.flagfiles import settings_in
from vae_cf_tf.settings.settings import groups, names, parsed_pairs

if TYPE_CHECKING:
    from trainers.benchmark import measurement, time_to
else:
    measurement = LazyModule("trainers.benchmark.measurement")
    time_to = LazyModule("trainers.benchmark.time_to")

PRESETS = {  # training users, items, interactions
    "ml-1m": (4_834, 3_497, 462_827),
    "ml-20m": (116_677, 20_108, 8_500_000),
    "netflix": (383_435, 17_769, 47_000_000),
    "wide": (200_000, 1_000_000, 20_000_000),
}


def define_flags() -> None:
    define_settings()
    flags.DEFINE_enum("preset", "ml-1m", list(PRESETS), "Data set whose shape the interactions have.")
    flags.DEFINE_integer(
        "items",
        0,
        "Items in place of the preset's; 0: the preset's. A history holds at most half of them, so that few items also "
        "make fewer interactions.",
        lower_bound=0,
    )
    flags.DEFINE_multi_string("compare", [], "Settings of a further run, such as layers=3,batch_size=500.")
    flags.DEFINE_string(
        "time_to",
        "",
        "Values of NDCG@100, such as .42,.43: trains on --data and prints the seconds until test users have them, in "
        "place of the times of steps.",
    )
    flags.DEFINE_multi_string("also", [], "Flagfile of a further model for --time_to.")
    flags.DEFINE_integer("steps", 20, "Steps that are timed.", lower_bound=3)


def main(argv: list[str]) -> None:
    values, given = flags.FLAGS, settings_from_flags()
    variants = [("as given", given), *((text, given.replaced(**parsed_pairs(text))) for text in values.compare)]
    if values.time_to:
        print(_time_to(values.time_to, variants, values.also))
        return
    results = benchmark(variants, values.preset, values.steps, values.items)
    print(json.dumps(results, indent=1, ensure_ascii=False))


def benchmark(
    variants: Sequence[tuple[str, Settings]], preset: str, steps: int, own_items: int = 0
) -> list[dict[str, Any]]:
    """Times `steps` training steps of each variant on the preset's shape, one variant after the other.

    Args:
      variants: names and settings.
      preset: of PRESETS.
      steps: timed steps.
      own_items: items in place of the preset's; 0: the preset's.

    Raises:
      UserError: the model does not fit into memory.
    """
    users, items, interactions = PRESETS[preset]
    items = own_items or items
    for _, settings in variants:
        _check_memory(settings.model, items)
    interactions = min(interactions, users * max(items // 2, 1))
    shape = {"preset": preset, "users": users, "items": items, "interactions": interactions}
    with contextlib.closing(Progress()) as progress:
        progress.begin(f"making {interactions:,} interactions of {users:,} users with {items:,} items")
        train = synthetic_matrix(users, items, interactions, seed=0)
        return [shape | figures for figures in measurement.measured(variants, train, steps, progress)]


def _time_to(text: str, variants: Sequence[tuple[str, Settings]], flagfiles: Sequence[str]) -> str:
    """The table of `time_to.courses`. Raises UserError for values, flagfiles or data that cannot be read."""
    targets, given = time_to.targets_in(text), variants[0][1]
    if given.run.distribute != "none":
        raise UserError("--time_to measures one device. Leave --distribute out.")
    kept = {name: given[name] for name in names("data", "split", "evaluation")}
    also = [(Path(f).stem, Settings.of(**settings_in(Path(home_expanded(f))) | kept)) for f in flagfiles]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    split = load_split(given, say)
    return time_to.table(time_to.courses([*variants, *also], split, targets, say), targets)


def _check_memory(settings: ModelSettings, items: int) -> None:
    """Raises UserError where even two of the model's kernels and their moments are larger than the machine's memory."""
    needed = 2 * 3 * 4.0 * items * settings.hidden_dim
    available = machine_memory()
    if needed > available:
        raise UserError(
            f"A model of {items:,} items and --hidden_dim={settings.hidden_dim} takes {needed / 2**30:,.0f} GiB or "
            f"more, and this machine has {available / 2**30:,.0f}. Give fewer --items or a smaller --hidden_dim."
        )


def run() -> int:
    return commands.run(main, define_flags, groups=groups)


if __name__ == "__main__":
    sys.exit(run())
