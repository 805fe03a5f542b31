"""A sweep's results for people: results.md, results.png, and results.json for everything else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from trainers import plotting
from trainers.sweep.plans import described
from vae_cf_tf.files import write_json, written_aside
from vae_cf_tf.registries import BASELINES
from vae_cf_tf.settings.settings import written

Json = dict[str, Any]
"""A part of results.json."""


def write(collected: Json, sweep_dir: Path, failed: Mapping[str, str]) -> None:
    """Writes the three files; `collected` is what `collect` returned."""
    if not collected["configurations"]:
        return
    write_files(sweep_dir, collected | {"failed": dict(failed)}, plot(collected), markdown(collected, failed))


def write_files(sweep_dir: Path, results: Json, picture: bytes, text: str) -> None:
    """Writes results.json, results.png and results.md."""
    write_json(sweep_dir / "results.json", results)
    for name, content in {"results.png": picture, "results.md": text.encode()}.items():
        with written_aside(sweep_dir / name) as aside:
            aside.write_bytes(content)


def markdown(collected: Json, failed: Mapping[str, str]) -> str:
    """The tables, the best configuration first where the sweep is a search."""
    rows = _ordered(collected)
    names = _differing(rows)
    seeds = sorted({run["seed"] for row in rows for run in row["runs"]})
    done = f"{collected['finished']} of {collected['runs']} runs; seeds {', '.join(map(str, seeds))}."
    lines = ["# Sweep", "", done, "", _constant(collected), ""]
    for part in collected["parts"]:
        lines += [f"## {part.capitalize()}: mean ± standard error over seeds", ""]
        lines += table([*names, "seeds", *map(metric_title, collected["metrics"])], [
            [*_cells(row, names), str(len(row["runs"])), *(_mean(row[part][m]) for m in collected["metrics"])]
            for row in rows
        ] + [
            [name, *[""] * (len(names) - 1), "", *(_of_baseline(figures[part], m) for m in collected["metrics"])]
            for name, figures in collected["baselines"].items()
        ])  # fmt: skip
    for part in collected["parts"]:
        compared = [row for row in rows if row["difference"]]
        if compared:
            lines += [f"## {part.capitalize()}: paired difference from the reference, with 95 % interval", ""]
            lines += table([*names, *map(metric_title, collected["metrics"])], [
                [*_cells(row, names), *(_difference(row["difference"][part][m]) for m in collected["metrics"])]
                for row in compared
            ])  # fmt: skip
            reference = f"the best on validation, {described(_best(collected)['settings'])}"
            if collected["reference"]:
                reference = f"the one with {described(collected['reference'])} and otherwise its own settings"
            lines += [f"The reference of a configuration is {reference}.", ""]
    lines += [
        "A difference is the mean over the users of the difference between two configurations, each a user's mean over "
        "its seeds; the interval resamples the users (bootstrap). It tells what other users would change, not what "
        "other seeds would: that is the standard error over seeds above.",
        "",
    ]
    if "test" not in collected["parts"]:
        lines += ["The best of many owes a part of its figure to chance: report it on test users, once.", ""]
    best, decides = _best(collected), collected["decides"]
    lines += [
        f"Best on validation ({metric_title(decides)} {best['validation'][decides]['mean']:.4f}):",
        "",
        f"    python -m trainers.main {best['flags']}",
        "",
    ]
    if failed:
        lines += ["## Failed", "", *(f"- {folder}: {error}" for folder, error in failed.items()), ""]
    return "\n".join(lines)


def _differing(rows: Sequence[Json]) -> list[str]:
    """The settings that tell the configurations apart: those that vary, then those that --where set."""
    settings = [row["all_settings"] for row in rows]
    names = [n for n in settings[0] if any(s[n] != settings[0][n] for s in settings)] or list(rows[0]["settings"])
    varied = list(rows[0]["settings"])
    return sorted(names, key=lambda n: varied.index(n) if n in varied else len(varied))


def _cells(row: Json, names: Sequence[str]) -> list[str]:
    return [written(row["all_settings"][name]) for name in names]


def _best(collected: Json) -> Json:
    return next(row for row in collected["configurations"] if row["name"] == collected["best_on_validation"])


def _ordered(collected: Json) -> list[Json]:
    rows = collected["configurations"]
    if "test" in collected["parts"]:
        return rows
    return sorted(rows, key=lambda row: -row["validation"][collected["decides"]]["mean"])


def _constant(collected: Json) -> str:
    """The settings of data, model and training that all configurations share."""
    rows = collected["configurations"]
    hidden = {*_differing(rows), "eval_batch_size", "checkpoint_seconds", "ease_l2", "ease_max_items"}
    same = {n: v for n, v in rows[0]["all_settings"].items() if n not in hidden and v != ""}
    return "All with " + ", ".join(f"`--{name}={written(value)}`" for name, value in same.items()) + "."


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines] + [""]


def metric_title(name: str) -> str:
    """A metric as people write it."""
    for text, title in (("ndcg", "NDCG"), ("recall", "Recall"), ("elbo_", ""), ("elbo", "ELBO"), ("kl", "KL")):
        name = name.replace(text, title)
    return name


def _mean(figure: Mapping[str, float | None]) -> str:
    return f"{figure['mean']:.4f}" + ("" if figure["stderr"] is None else f" ± {figure['stderr']:.4f}")


def _of_baseline(figures: Mapping[str, Any], metric: str) -> str:
    return f"{figures[metric]['mean']:.4f}" if metric in figures else ""  # a baseline has no ELBO


def _difference(d: Mapping[str, float]) -> str:
    return f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]".replace("-", "−")


def plot(collected: Json) -> bytes:
    """Left, each run and the mean over seeds; right, the paired differences."""
    rows, part, decides = _ordered(collected), collected["parts"][0], collected["decides"]
    first, names = list(dict.fromkeys(_group(row) for row in rows)), _differing(rows)

    def draw(left: Axes, right: Axes) -> None:
        for y, row in zip(range(len(rows))[::-1], rows, strict=True):
            colour = f"C{first.index(_group(row)) % 5}"
            mean = row[part][decides]
            left.plot(
                [run[part][decides] for run in row["runs"]],
                [y] * len(row["runs"]),
                "|",
                color=colour,
                alpha=0.7,
            )
            left.errorbar(mean["mean"], y, xerr=mean["stderr"], fmt="o", color=colour, markersize=5, capsize=2.5)
            if row["difference"]:
                d = row["difference"][part][decides]
                right.errorbar(d["mean"], y, xerr=[[d["mean"] - d["low"]], [d["high"] - d["mean"]]], fmt="o",
                               color=colour, markersize=5, capsize=2.5)  # fmt: skip
        # The plainest baseline lies so far below that an axis with it would hide the differences between the runs.
        labels = [
            label
            for label, figures in collected["baselines"].items()
            if label != BASELINES.plainest and decides in figures[part]
        ]
        for i, label in enumerate(labels):
            figures = collected["baselines"][label]
            left.axvline(figures[part][decides]["mean"], color="C4", linestyle=("--", ":")[i % 2], label=label)
            left.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        right.axvline(0, color="C4", linewidth=1)
        left.set_yticks(range(len(rows))[::-1], [_label(row, names) for row in rows])
        left.set_ylim(-0.7, len(rows) - 0.3)
        left.set_xlabel(f"{part} {metric_title(collected['decides'])}: runs, mean ± s.e.")
        right.set_xlabel("paired difference, 95 % interval")

    return plotting.png(draw, size=(9.5, 1.3 + 0.27 * len(rows)), panels=2, dpi=150)


def _group(row: Json) -> tuple:
    """What a row's colour tells: the latent structure and the prior, or else the first setting."""
    settings = row["settings"]
    return tuple(settings[n] for n in ("latent", "prior") if n in settings) or (next(iter(settings.values())),)


def _label(row: Json, names: Sequence[str]) -> str:
    values = row["all_settings"]
    return " · ".join(values[n] if isinstance(values[n], str) else f"{n} {written(values[n])}" for n in names)
