"""Compares finished runs on the same users: `python -m trainers.compare RUN_A RUN_B …`, each the workdir of a run.

Each run is compared with the first one: the difference of a metric, averaged over the same held-out users, with a 95 %
bootstrap interval. All runs must have the same data and split.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.data.split import PARTS
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import significance
from vae_cf_tf.evaluation.metrics import MAIN
from vae_cf_tf.files import home_expanded, write_json, written_aside
from vae_cf_tf.runs.workdir import Workdir

if TYPE_CHECKING:
    from trainers import plotting
else:
    plotting = LazyModule("trainers.plotting", tensorflow=False)

METRICS = (MAIN, "recall@20", "recall@50")
_USAGE = "python -m trainers.compare RUN_A RUN_B …"
_NOTE = (
    "A difference is a run − the first run, the mean over the same users. The interval (95 %) resamples the users\n"
    "(bootstrap): it tells what other users would change, not what other seeds would. Of many runs, some differ by\n"
    "chance."
)
Json = dict[str, Any]


def compare(runs: Sequence[Path], part: str = "test", seed: int = 0) -> Json:
    """The metrics of each run, and their differences from the first run, paired by user.

    Args:
      runs: workdirs of finished runs, at least two.
      part: which held-out users: "test" or "validation".
      seed: seed of the bootstrap.

    Returns:
      A dict with `part`, `users` (their number), `data_fingerprint` and `runs`. Each of `runs` has `workdir`,
      `model_id`, `metrics` (the mean of each) and `difference` (for each metric the fields of an `Estimate`; None for
      the first run).

    Raises:
      UserError: fewer than two runs, one that is not finished, or runs of other data or another split.
    """
    if len(runs) < 2:
        raise UserError(f"Two or more runs are compared. Received: {len(runs)}. Usage: {_USAGE}")
    figures, values = [], []
    for run in runs:
        figures.append(Workdir(run).read_metrics())
        if figures[-1]["data_fingerprint"] != figures[0]["data_fingerprint"]:
            raise UserError(
                f"{runs[0]} and {run} were judged on other data or another split, so their users are not the same. "
                "Compare runs with equal data and split settings."
            )
        values.append(Workdir(run).read_users()[part])
    return {
        "part": part,
        "users": len(values[0][MAIN]),
        "data_fingerprint": figures[0]["data_fingerprint"],
        "runs": [
            {
                "workdir": str(run),
                "model_id": of_run["model_id"],
                "metrics": {name: float(ours[name].mean()) for name in METRICS},
                "difference": _differences(ours, values[0], seed) if number else None,
            }
            for number, (run, of_run, ours) in enumerate(zip(runs, figures, values, strict=True))
        ],
    }


def _differences(ours: Json, theirs: Json, seed: int) -> Json:
    return {name: significance.paired_difference(ours[name], theirs[name], seed=seed)._asdict() for name in METRICS}


def table(compared: Json) -> str:
    """The result of `compare` as a table for people."""
    names = _names(compared)
    width = max(map(len, names))
    lines = [f"{compared['users']:,} {compared['part']} users.", ""]
    lines.append(" " * width + "".join(f"{name:>38}" for name in METRICS))
    for name, run in zip(names, compared["runs"], strict=True):
        cells = [f"{run['metrics'][metric]:.4f}" + _written(run["difference"], metric) for metric in METRICS]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>38}" for cell in cells))
    return "\n".join([*lines, "", _NOTE])


def _written(difference: Json | None, metric: str) -> str:
    if difference is None:
        return " " * 27
    d = difference[metric]
    return f" {d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]".replace("-", "−")


def _names(compared: Json) -> list[str]:
    """The runs' folders, without the leading folders that all of them share."""
    parts = [Path(run["workdir"]).parts for run in compared["runs"]]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[: shared + 1] for p in parts}) == 1:
        shared += 1
    return [str(Path(*p[shared:])) for p in parts]


def picture(compared: Json) -> bytes:
    """A PNG of the differences and their intervals, with one panel per metric."""
    names, others = _names(compared), compared["runs"][1:]
    places = range(len(others))[::-1]

    def draw(*panels: Any) -> None:
        for metric, axes in zip(METRICS, panels, strict=True):
            axes.axvline(0, color="C4", linewidth=1)
            for y, run in zip(places, others, strict=True):
                d = run["difference"][metric]
                colour = "C4" if d["low"] <= 0 <= d["high"] else "C0" if d["mean"] > 0 else "C1"
                errors = [[d["mean"] - d["low"]], [d["high"] - d["mean"]]]
                axes.errorbar(d["mean"], y, xerr=errors, fmt="o", color=colour, markersize=5, capsize=2.5)
            axes.set_title(metric.replace("ndcg", "NDCG").replace("recall", "Recall"))
            axes.set_xlabel(f"difference from {names[0]}")
        panels[0].set_yticks(places, names[1:])
        panels[0].set_ylim(-0.7, len(others) - 0.3)

    return plotting.png(draw, size=(9.5, 1.4 + 0.3 * len(others)), panels=len(METRICS), dpi=150)


def define_flags() -> None:
    flags.DEFINE_enum("part", "test", list(PARTS), "Which held-out users are compared.")
    commands.define_path("output", "", "PNG file for a picture; FILE.json beside it receives all figures.")


def main(argv: list[str]) -> None:
    output = Path(flags.FLAGS.output) if flags.FLAGS.output else None
    if output and (output.suffix != ".png" or not output.parent.is_dir()):
        raise UserError(f"--output takes a .png file in a folder that exists. Received: {str(output)!r}.")
    compared = compare([Path(home_expanded(run)) for run in argv[1:]], flags.FLAGS.part)
    print(table(compared))
    if output:
        with written_aside(output) as aside:
            aside.write_bytes(picture(compared))
        write_json(output.with_suffix(".json"), compared)


def run() -> int:
    return commands.run(main, define_flags, arguments="RUN_A RUN_B …")


if __name__ == "__main__":
    sys.exit(run())
