"""Plots what priors and gates gain as data grows: `python -m trainers.sweep.growth SWEEP_DIR … --output=growth.png`.

Each SWEEP_DIR is a finished sweep of --plan=growth, on one data set with one number of training users. The gain is the
mean difference from Multi-VAE (standard prior, tanh) over the same test users, with its 95 % interval: of NDCG@100
between models tuned for NDCG@100, and of the ELBO between models tuned for the ELBO. Beside the plot, growth.md has the
same as a table, with the latent space.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from trainers import plotting
from trainers.sweep import output
from vae_cf_tf.cli import commands
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import home_expanded, written_aside
from vae_cf_tf.settings.settings import written

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
            found.append(json.loads((folder / "results.json").read_text(encoding="utf-8")))
            _ = found[-1]["chosen_by"], found[-1]["data"], found[-1]["training_users"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder} has no finished sweep of --plan=growth ({type(error).__name__}: {error}). Start "
                "`python -m trainers.sweep --plan=growth` with this --sweep_dir again."
            ) from error
    return sorted(found, key=lambda sweep: (sweep["data"], sweep["training_users"]))


def title(settings: Json) -> str:
    """A variant as people call it, such as "H+Vamp, gated"."""
    known = {("flat", "standard"): "standard", ("flat", "vamp"): "Vamp", ("hierarchical", "vamp"): "H+Vamp"}
    names = [str(value) for name, value in settings.items() if name not in ("latent", "prior")]
    pair = (settings.get("latent"), settings.get("prior"))
    return ", ".join([known.get(pair, " ".join(filter(None, pair))), *names])


def table(sweeps: Sequence[Json]) -> str:
    """All variants of all sweeps: figures on test users, gains over the reference, and the latent space."""
    lines = []
    for criterion in sweeps[0]["chosen_by"]:
        metric = output.metric_title(criterion)
        head = ["data", "training users", "model", "tuned", metric, f"gain in {metric}", "KL", "active", "components"]
        rows = []
        for sweep in sweeps:
            for row in sweep["chosen_by"][criterion]["configurations"]:
                gain = row["difference"] and row["difference"]["test"][criterion]
                latent, tuned = (
                    row["runs"][0]["latent"],
                    [f"{name} {written(row['all_settings'][name])}" for name in ("beta_cap", "learning_rate")],
                )
                rows.append([
                    sweep["data"],
                    f"{sweep['training_users']:,}",
                    title(row["settings"]),
                    ", ".join(tuned),
                    _number(row["test"][criterion]["mean"]),
                    f"{_number(gain['mean'])} [{_number(gain['low'])}, {_number(gain['high'])}]" if gain else "",
                    f"{row['test']['elbo_kl']['mean']:.1f}",
                    " + ".join(map(str, latent["active"])) + f" of {latent['dimensions']}",
                    f"{latent['components_in_use']:.0f} of {latent['components']}" if "components" in latent else "",
                ])  # fmt: skip
        lines += [f"Tuned by {metric} on validation users, figures of test users:", "", *output.table(head, rows)]
    return "\n".join(lines)


def picture(sweeps: Sequence[Json]) -> bytes:
    """A PNG with a column for each data set and a row for each criterion: gain against training users."""
    data = list(dict.fromkeys(sweep["data"] for sweep in sweeps))
    criteria = list(sweeps[0]["chosen_by"])

    def draw(*panels: Any) -> None:
        for number, axes in enumerate(panels):
            criterion, name = criteria[number // len(data)], data[number % len(data)]
            axes.axhline(0, color="C4", linewidth=1)
            for label, points in _gains([s for s in sweeps if s["data"] == name], criterion).items():
                variants = list(points)
                users = [u for u, _ in variants]
                gains = [gain for _, gain in variants]
                errors = [[g["mean"] - g["low"] for g in gains], [g["high"] - g["mean"] for g in gains]]
                place = _LABELS.index(label) if label in _LABELS else len(_LABELS)
                nudged = [u * 1.04 ** (place - 2) for u in users]  # so that intervals do not hide each other
                axes.errorbar(nudged, [g["mean"] for g in gains], yerr=errors, label=label, marker="o",
                              linestyle="--" if "tanh" in label else "-", color=f"C{_COLOURS.get(label, 4)}",
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
                axes.set_ylabel(
                    f"gain in {output.metric_title(criterion)}" + (" (nats)" if "elbo" in criterion else "")
                )
        panels[len(data) - 1].legend(loc="upper left", bbox_to_anchor=(1, 1))

    size = (2.2 + 2.4 * len(data), 0.6 + 2.6 * len(criteria))
    return plotting.png(draw, size=size, panels=len(data), rows=len(criteria), dpi=130)


_LABELS = ("standard, gated", "Vamp, tanh", "Vamp, gated", "H+Vamp, tanh", "H+Vamp, gated")
_COLOURS = {"standard, gated": 3, "Vamp, tanh": 0, "Vamp, gated": 0, "H+Vamp, tanh": 1, "H+Vamp, gated": 1}


def _gains(sweeps: Sequence[Json], criterion: str) -> dict[str, list[tuple[int, Json]]]:
    """By variant: training users and the difference from the reference."""
    found: dict[str, list[tuple[int, Json]]] = {}
    for sweep in sweeps:
        for row in sweep["chosen_by"][criterion]["configurations"]:
            if row["difference"]:
                point = sweep["training_users"], row["difference"]["test"][criterion]
                found.setdefault(title(row["settings"]), []).append(point)
    return found


def _number(value: float) -> str:
    return (f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}").replace("-", "−")


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
