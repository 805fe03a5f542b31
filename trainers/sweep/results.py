"""What a sweep found: a mean over seeds for each configuration, and paired differences on the same users."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.sweep.plans import Configuration, reference_of
from trainers.sweep.runs import SweepRun
from vae_cf_tf.evaluation import significance
from vae_cf_tf.evaluation.metrics import MAIN
from vae_cf_tf.files import read_json
from vae_cf_tf.runs.workdir import PerUser, Workdir
from vae_cf_tf.settings.flagfiles import as_flags

METRICS, DECIDES = (MAIN, "recall@20", "recall@50"), MAIN


def collect(
    runs: Sequence[SweepRun],
    parts: Sequence[str],
    reference: Mapping[str, Any],
    baselines: Path,
    seed: int = 0,
    metrics: Sequence[str] = METRICS,
    decides: str = DECIDES,
) -> dict[str, Any]:
    """What results.json holds, of the runs that are finished.

    Args:
      runs: all runs of the sweep.
      parts: which held-out users are looked at.
      reference: the settings that turn a configuration into its reference; empty: the best on validation is the
        reference of all.
      baselines: the file of the baselines' figures; may be missing.
      seed: of the bootstrap.
      metrics: which figures, columns of users.parquet.
      decides: the one of them by which the best is found, the higher the better.
    """
    finished = [run for run in runs if run.seconds() is not None]
    points = list({run.point.name: run.point for run in runs}.values())
    values = {(run.point.name, run.settings.training.seed): _per_user(run, parts, metrics) for run in finished}
    seeds = {p.name: [s for name, s in values if name == p.name] for p in points}
    configurations: list[dict[str, Any]] = [
        {
            "name": point.name,
            "settings": point.varied,
            "all_settings": _settings(point),
            "flags": shlex.join(as_flags(point.settings)),
            "runs": [
                _run(run, values[point.name, run.settings.training.seed])
                for run in finished
                if run.point.name == point.name
            ],
            **{part: _over_seeds(point.name, seeds[point.name], part, values, metrics) for part in parts},
        }
        for point in points
        if seeds[point.name]
    ]
    best = max(configurations, key=lambda c: c["validation"][decides]["mean"], default=None)
    references = {}
    for point in points:
        other = reference_of(point, points, reference) if reference else None
        references[point.name] = other.name if other else best["name"] if best and not reference else None
    for configuration in configurations:
        name = configuration["name"]
        configuration["reference"] = references[name]
        configuration["difference"] = _differences(name, references[name], seeds, parts, values, seed, metrics)
    return {
        "runs": len(runs),
        "finished": len(finished),
        "parts": list(parts),
        "metrics": list(metrics),
        "decides": decides,
        "reference": dict(reference),
        "best_on_validation": best and best["name"],
        "baselines": _baselines(baselines, parts),
        "configurations": configurations,
    }


def averaged_difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], seed: int) -> significance.Estimate:
    """The paired difference of two configurations. Each gives one array per seed, float [users]; these are averaged."""
    return significance.paired_difference(np.mean(ours, axis=0), np.mean(theirs, axis=0), seed=seed)


def over_seeds(means: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard error over seeds; of one seed, no error is known."""
    n = len(means)
    return {"mean": float(np.mean(means)), "stderr": float(np.std(means, ddof=1) / np.sqrt(n)) if n > 1 else None}


def _over_seeds(
    name: str, seeds: list[int], part: str, values: dict[tuple[str, int], PerUser], metrics: Sequence[str]
) -> dict[str, Any]:
    return {m: over_seeds([float(values[name, s][part][m].mean()) for s in seeds]) for m in metrics}


def _differences(
    ours: str,
    theirs: str | None,
    seeds: dict[str, list[int]],
    parts: Sequence[str],
    values: dict,
    seed: int,
    metrics: Sequence[str],
) -> dict[str, dict[str, dict[str, float]]] | None:
    """Over the seeds that both have, since a seed is also the same order of users and the same dropout."""
    both = [s for s in seeds[ours] if s in seeds.get(theirs, [])] if theirs and theirs != ours else []
    if theirs is None or not both:
        return None

    def over_users(name: str, part: str, metric: str) -> list[np.ndarray]:
        return [values[name, s][part][metric] for s in both]

    return {
        part: {
            m: averaged_difference(over_users(ours, part, m), over_users(theirs, part, m), seed)._asdict()
            for m in metrics
        }
        for part in parts
    }


def _per_user(run: SweepRun, parts: Sequence[str], metrics: Sequence[str]) -> PerUser:
    values = Workdir(run.folder).read_users()
    return {part: {m: values[part][m] for m in metrics} for part in parts}


def _run(run: SweepRun, values: PerUser) -> dict[str, Any]:
    figures = Workdir(run.folder).read_metrics()
    means = {part: {m: float(v.mean()) for m, v in of_part.items()} for part, of_part in values.items()}
    return {
        "seed": run.settings.training.seed,
        "workdir": str(run.folder),
        "best_epoch": figures["best_epoch"],
        "epochs": figures["epochs"],
        "seconds": run.seconds(),
        "latent": figures.get("latent", {}),
        **means,
    }


def _settings(point: Configuration) -> dict[str, Any]:
    return {
        name: value for name, value in point.settings.flat().items() if name not in ("workdir", "export_dir", "seed")
    }


def _baselines(path: Path, parts: Sequence[str]) -> dict[str, Any]:
    """Figures of the baselines by label."""
    if not path.exists():
        return {}
    baselines = read_json(path)["baselines"]
    return {baseline["label"]: {part: baseline[part] for part in parts} for baseline in baselines}
