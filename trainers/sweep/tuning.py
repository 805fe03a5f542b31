"""Sweeps that tune: the best settings of each configuration on validation users, and the comparison of these alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.sweep import output
from trainers.sweep.plans import ELBO, Configuration
from trainers.sweep.results import METRICS, collect
from trainers.sweep.runs import SweepRun
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings.settings import written

Chosen = dict[str, list[Configuration]]
"""By criterion: the best point of each variant."""


def chosen(runs: Sequence[SweepRun], criteria: Sequence[str]) -> Chosen:
    """The points that are best on validation users, one for each variant and each criterion.

    Args:
      runs: finished ones, of all points with one seed.
      criteria: columns of users.parquet, the higher the better.
    """
    figures = {run: _validation(run, criteria) for run in runs}
    best: Chosen = {}
    for criterion in criteria:
        of_variant: dict[str, SweepRun] = {}
        for run in runs:
            variant = run.point.variant
            if variant not in of_variant or figures[run][criterion] > figures[of_variant[variant]][criterion]:
                of_variant[variant] = run
        best[criterion] = [run.point for run in of_variant.values()]
    return best


def write(
    runs: Sequence[SweepRun],
    chosen: Chosen,
    parts: Sequence[str],
    reference: Mapping[str, Any],
    baselines: Path,
    sweep_dir: Path,
) -> None:
    """Writes results.md, results.png (by the first criterion) and results.json of the chosen configurations.

    Args:
      runs: all runs of the sweep, finished.
      chosen: from `chosen`.
      parts: which held-out users are looked at, for the chosen ones; tuning looks at validation users.
      reference: as `collect`.
      baselines: as `collect`.
      sweep_dir: folder of the sweep.
    """
    files = Workdir(sweep_dir)
    split = files.split()
    collected, texts = {}, []
    has_elbo = all(run.settings.model.has_latent_variable for run in runs)
    metrics = (*METRICS, ELBO, f"{ELBO}_kl") if has_elbo else METRICS
    for criterion, points in chosen.items():
        untuned = {point.name: point.untuned() for point in points}
        of_chosen = [SweepRun(untuned[run.point.name], run.settings) for run in runs if run.point.name in untuned]
        collected[criterion] = collect(of_chosen, parts, reference, baselines, metrics=metrics, decides=criterion)
        heading = f"# Tuned by {output.metric_title(criterion)} on validation users"
        texts.append(output.markdown(collected[criterion], {}).replace("# Sweep", heading, 1))
        texts.append(
            "\n".join(["## What the latent space holds, on validation users", "", *_latent(collected[criterion])])
        )
    texts.append("\n".join(["# Tuning: validation users, first seed", "", *_tuning(runs, tuple(chosen))]))
    described = {
        "data": files.read_source()["name"],
        "training_users": split.train.shape[0],
        "items": len(split.item_ids),
        "chosen_by": collected,
    }
    output.write_files(sweep_dir, described, output.plot(next(iter(collected.values()))), "\n".join(texts))


def _validation(run: SweepRun, criteria: Sequence[str]) -> dict[str, float]:
    values = Workdir(run.folder).read_users()["validation"]
    return {name: float(values[name].mean()) for name in criteria}


def _latent(collected: Mapping[str, Any]) -> list[str]:
    """Best epoch, active dimensions and components in use of the first seed of each configuration."""
    rows = [
        [row["name"], str(run["best_epoch"]), str(run["epochs"]), *latent_cells(run["latent"])]
        for row in collected["configurations"]
        for run in row["runs"][:1]
    ]
    head = ["configuration", "best epoch", "epochs", "active dimensions", "components in use"]
    return output.table(head, rows)


def latent_cells(latent: Mapping[str, Any]) -> list[str]:
    """Active dimensions and components in use, from `latent` of metrics.json, "" for what the model does not have."""
    if not latent:
        return ["", ""]
    active = " + ".join(map(str, latent["active"])) + f" of {latent['dimensions']}"
    if "components" not in latent:
        return [active, ""]
    return [active, f"{latent['components_in_use']:.0f} of {latent['components']}"]


def _tuning(runs: Sequence[SweepRun], criteria: Sequence[str]) -> list[str]:
    """The figures of every point with the first seed."""
    first = min(run.settings.training.seed for run in runs)
    of_first = [run for run in runs if run.settings.training.seed == first]
    names = list(of_first[0].point.varied)
    rows = [
        [*(written(run.settings[name]) for name in names), *(f"{value:.4f}" for value in figures.values())]
        for run in of_first
        for figures in [_validation(run, criteria)]
    ]
    return output.table([*names, *map(output.metric_title, criteria)], rows)
