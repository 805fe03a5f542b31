"""The ranked lists of a run's held-out users, by the model and by the baselines.

The lists are kept in the workdir, because a closed-form baseline can take minutes to fit.
"""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vae_cf_tf import evaluation
from vae_cf_tf.baselines import Baseline
from vae_cf_tf.data.split import Split
from vae_cf_tf.files import written_aside
from vae_cf_tf.models import Autoencoder
from vae_cf_tf.workdir import PARTS, Workdir

Rankings = dict[str, np.ndarray]
"""By part: int32 [users with targets, TOP], item indices, best first."""


def of_model(workdir: Workdir, model: Autoencoder, model_id: str, split: Split, batch_size: int) -> Rankings:
    """The lists of `model`, which is the workdir's and has this identity."""
    key = json.dumps([split.fingerprint(), model_id])
    return _kept(workdir.path / "rankings.npz", key, lambda: _ranked(evaluation.model_ranker(model), split, batch_size))


def of_baselines(workdir: Workdir, baselines: Sequence[Baseline], split: Split, batch_size: int) -> dict[str, Rankings]:
    """The lists of the baselines, by label."""

    def make() -> Rankings:
        lists = {}
        for i, baseline in enumerate(baselines):
            ranked = _ranked(evaluation.score_ranker(baseline.fit(split.train)), split, batch_size)
            lists |= {f"{part}_{i}": ranked[part] for part in PARTS}
        return lists

    key = json.dumps([split.fingerprint(), [[baseline.name, baseline.settings] for baseline in baselines]])
    kept = _kept(workdir.path / "baseline_rankings.npz", key, make)
    return {baseline.label: {part: kept[f"{part}_{i}"] for part in PARTS} for i, baseline in enumerate(baselines)}


def _ranked(rank: evaluation.Ranker, split: Split, batch_size: int) -> Rankings:
    return {
        part: evaluation.ranked_lists(rank, getattr(split, part).with_targets().fold_in, batch_size).astype(np.int32)
        for part in PARTS
    }


def _kept(path: Path, key: str, make: Callable[[], Rankings]) -> Rankings:
    """The arrays in `path` if they are of `key`, else those of `make`, which are then kept there."""
    try:
        with np.load(path) as archive:
            if str(archive["key"]) == key:
                return {name: archive[name] for name in archive.files if name != "key"}
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError, KeyError):
        pass  # missing or damaged: made again
    arrays = make()
    with written_aside(path) as aside, open(aside, "wb") as f:
        np.savez(f, key=key, **arrays)
    return arrays
