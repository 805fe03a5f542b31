"""Plots what priors and gates gain as data grows: `python -m trainers.sweep.growth SWEEP_DIR … --output=growth.png`.

Each SWEEP_DIR is a finished sweep of --plan=growth, on one data set with one number of training users. The gain is the
mean difference from Multi-VAE (standard prior, tanh) over the same test users, with its 95 % interval: of NDCG@100
between models tuned for NDCG@100, and of the ELBO between models tuned for the ELBO. Beside the plot, growth.md has the
same as a table, with the latent space.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from trainers import plotting
from trainers.sweep import output
from trainers.sweep.plans import ELBO
from trainers.sweep.tuning import latent_cells
from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import home_expanded, read_json, written_aside
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.settings import written

if TYPE_CHECKING:
    from vae_cf_tf.models import build
else:
    build = LazyModule("vae_cf_tf.models.build")

_USAGE = "python -m trainers.sweep.growth SWEEP_DIR … --output=growth.png"
Json = dict[str, Any]


def read(sweep_dirs: Sequence[Path]) -> list[Json]:
    """results.json of each sweep, by data set and then by training users.

    Raises:
      UserError: no sweep is given, or one is not finished or of another plan.
    """
    if not sweep_dirs:
        raise UserError(f"No sweep is given. Usage: {_USAGE}")
    found = []
    for folder in sweep_dirs:
        try:
            found.append(read_json(folder / "results.json"))
            _ = found[-1]["chosen_by"], found[-1]["data"], found[-1]["training_users"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder} has no finished sweep of --plan=growth ({type(error).__name__}: {error}). Start "
                "`python -m trainers.sweep --plan=growth` with this --sweep_dir again."
            ) from error
    return sorted(found, key=lambda sweep: (sweep["data"], sweep["training_users"]))


def title(row: Json) -> str:
    """A configuration as the papers call its model, such as H+Vamp (Gated)."""
    return build.model_title(Settings.of(**row["all_settings"]).model)


def table(sweeps: Sequence[Json]) -> str:
    """All variants of all sweeps: figures on test users, gains over the reference, and the latent space."""
    lines = []
    for criterion in _criteria(sweeps):
        metric = output.metric_title(criterion)
        head = ["data", "training users", "model", "tuned", metric, f"gain in {metric}", "KL", "active", "components"]
        rows = []
        for sweep in sweeps:
            for row in _rows(sweep, criterion):
                gain = row["difference"] and row["difference"]["test"][criterion]
                latent = row["runs"][0]["latent"]
                tuned = [f"{name} {written(row['all_settings'][name])}" for name in ("beta_cap", "learning_rate")]
                rows.append([
                    sweep["data"],
                    f"{sweep['training_users']:,}",
                    title(row),
                    ", ".join(tuned),
                    _number(row["test"][criterion]["mean"], criterion),
                    _interval(gain, criterion) if gain else "",
                    f"{row['test']['elbo_kl']['mean']:.1f}" if latent else "",
                    *latent_cells(latent),
                ])  # fmt: skip
        lines += [f"Tuned by {metric} on validation users, figures of test users:", "", *output.table(head, rows)]
    return "\n".join(lines)


def picture(sweeps: Sequence[Json]) -> bytes:
    """A PNG with a column for each data set and a row for each criterion: gain against training users."""
    data = list(dict.fromkeys(sweep["data"] for sweep in sweeps))
    criteria = _criteria(sweeps)

    def draw(*panels: Any) -> None:
        for number, axes in enumerate(panels):
            criterion, name = criteria[number // len(data)], data[number % len(data)]
            axes.axhline(0, color="C4", linewidth=1)
            found = _gains([s for s in sweeps if s["data"] == name], criterion)
            for place, (label, points) in enumerate(found.items()):
                users, gains = zip(*points, strict=True)
                errors = [[g["mean"] - g["low"] for g in gains], [g["high"] - g["mean"] for g in gains]]
                nudged = [u * 1.04 ** (place - len(found) // 2) for u in users]  # so that no interval hides another
                axes.errorbar(nudged, [g["mean"] for g in gains], yerr=errors, label=label, marker="o",
                              linestyle="-" if _GATED in label else "--", color=_colour(label, found),
                              markerfacecolor=None if _GATED in label else "white",
                              markersize=4, capsize=2)  # fmt: skip
            axes.set_xscale("log")
            axes.set_xticks(ticks := sorted({s["training_users"] for s in sweeps if s["data"] == name}),
                            [f"{t:,}" for t in ticks])  # fmt: skip
            axes.minorticks_off()
            if number < len(data):
                axes.set_title(name)
            else:
                axes.set_xlabel("training users")
            if not number % len(data):
                axes.set_ylabel(f"gain in {output.metric_title(criterion)}" + (" (nats)" if criterion == ELBO else ""))
        panels[len(data) - 1].legend(loc="upper left", bbox_to_anchor=(1, 1))

    size = (2.2 + 2.4 * len(data), 0.6 + 2.6 * len(criteria))
    return plotting.png(draw, size=size, panels=len(data), rows=len(criteria), dpi=130)


_GATED = " (Gated)"


def _criteria(sweeps: Sequence[Json]) -> list[str]:
    return list(dict.fromkeys(criterion for sweep in sweeps for criterion in sweep["chosen_by"]))


def _rows(sweep: Json, criterion: str) -> list[Json]:
    """The configurations tuned by the criterion; [] if the sweep did not tune by it."""
    return sweep["chosen_by"].get(criterion, {"configurations": []})["configurations"]


def _colour(label: str, labels: Iterable[str]) -> str:
    """The same for a model with gates and without."""
    names = list(dict.fromkeys(other.removesuffix(_GATED) for other in labels))
    return f"C{names.index(label.removesuffix(_GATED)) % 5}"


def _gains(sweeps: Sequence[Json], criterion: str) -> dict[str, list[tuple[int, Json]]]:
    """By variant: training users and the difference from the reference."""
    found: dict[str, list[tuple[int, Json]]] = {}
    for sweep in sweeps:
        for row in _rows(sweep, criterion):
            if row["difference"]:
                point = sweep["training_users"], row["difference"]["test"][criterion]
                found.setdefault(title(row), []).append(point)
    return found


def _interval(gain: Json, criterion: str) -> str:
    mean, low, high = (_number(gain[name], criterion) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _number(value: float, criterion: str) -> str:
    return f"{value:.{2 if criterion == ELBO else 4}f}".replace("-", "−")


def define_flags() -> None:
    commands.define_path("output", "growth.png", "PNG file for the plot; the table is written beside it as .md.")


def main(argv: list[str]) -> None:
    target = Path(flags.FLAGS.output)
    if target.suffix != ".png" or not target.parent.is_dir():
        raise UserError(f"--output takes a .png file in a folder that exists. Received: {str(target)!r}.")
    sweeps = read([Path(home_expanded(folder)) for folder in argv[1:]])
    text = table(sweeps)
    for path, content in ((target, picture(sweeps)), (target.with_suffix(".md"), (text + "\n").encode())):
        with written_aside(path) as aside:
            aside.write_bytes(content)
    print(text)


def run() -> int:
    return commands.run(main, define_flags, arguments="SWEEP_DIR …")


if __name__ == "__main__":
    sys.exit(run())
