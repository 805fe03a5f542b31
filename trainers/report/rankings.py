"""The ranked lists of a run's held-out users, by the model and by the baselines.

The lists are kept in the workdir, because a closed-form baseline can take minutes to fit.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vae_cf_tf import arrays
from vae_cf_tf.data.split import PARTS, Split
from vae_cf_tf.evaluation import ranking
from vae_cf_tf.files import written_aside
from vae_cf_tf.linear.base import Baseline
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.hybrid import HybridModel
from vae_cf_tf.runs.workdir import Workdir

Rankings = dict[str, np.ndarray]
"""By part: int32 [users with targets, TOP], item indices, best first."""


def of_model(
    workdir: Workdir, model: Autoencoder | HybridModel, model_id: str, split: Split, batch_size: int
) -> Rankings:
    """The lists of the workdir's `model`, read from rankings.npz if that was made for this split and `model_id`."""
    key = json.dumps([split.fingerprint(), model_id])
    return _kept(workdir.path / "rankings.npz", key, lambda: _ranked(ranking.model_ranker(model), split, batch_size))


def of_baselines(
    workdir: Workdir, baselines: Mapping[str, Baseline], split: Split, batch_size: int
) -> dict[str, Rankings]:
    """The lists of the baselines, by label. The argument has them by registered name."""

    def make() -> Rankings:
        lists: Rankings = {}
        for name, baseline in baselines.items():
            ranked = _ranked(ranking.score_ranker(baseline.fit(split.train)), split, batch_size)
            lists |= {f"{part}_{name}": ranked[part] for part in PARTS}
        return lists

    key = json.dumps([split.fingerprint(), [[name, baseline.settings] for name, baseline in baselines.items()]])
    kept = _kept(workdir.path / "baseline_rankings.npz", key, make)
    return {b.label: {part: kept[f"{part}_{name}"] for part in PARTS} for name, b in baselines.items()}


def _ranked(rank: ranking.Ranker, split: Split, batch_size: int) -> Rankings:
    return {
        part: ranking.ranked_lists(rank, getattr(split, part).with_targets().fold_in, batch_size).astype(np.int32)
        for part in PARTS
    }


def _kept(path: Path, key: str, make: Callable[[], Rankings]) -> Rankings:
    """The arrays in `path` if they are of `key`, else those of `make`, which are then kept there."""
    try:
        with arrays.opened(path) as archive:
            if str(archive["key"]) == key:
                return {name: archive[name] for name in archive if name != "key"}
    except (OSError, ValueError, KeyError):
        pass  # missing or damaged: made again
    lists = make()
    with written_aside(path) as aside, open(aside, "wb") as f:
        np.savez(f, allow_pickle=False, key=np.array(key), **lists)
    return lists
