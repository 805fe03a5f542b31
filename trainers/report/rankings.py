"""The ranked lists of a run's held-out users, by the model and by the baselines.

The lists are kept in the workdir, because a closed-form baseline can take minutes to fit.
"""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from trainers.report.names import PARTS
from vae_cf_tf import baselines, evaluation
from vae_cf_tf.data.split import Split
from vae_cf_tf.files import written_aside
from vae_cf_tf.models import Autoencoder
from vae_cf_tf.workdir import Workdir

Rankings = dict[str, np.ndarray]
"""By part: int32 [users with targets, TOP], item indices, best first."""


class Baseline(NamedTuple):
    """A baseline that can be fitted again."""

    description: str
    fit: Callable[[sp.csr_matrix], baselines.Scores]


def baseline(name: str) -> Baseline | None:
    """The baseline of this name in metrics.json; None for one that the report does not know."""
    if name == "popularity":
        return Baseline("recommends to everyone the items that most training users have", baselines.popularity)
    if name.startswith("EASE, λ "):
        l2 = float(name.removeprefix("EASE, λ "))
        return Baseline(
            "is a linear model from items to items (Steck 2019) with the regularisation λ that ranks best on "
            "validation users",
            lambda train: baselines.ease(train, l2),
        )
    return None


def of_model(workdir: Workdir, model: Autoencoder, split: Split, batch_size: int) -> Rankings:
    """The lists of `model`, which is the workdir's."""
    checksums = []
    for path in (workdir.best, workdir.item_path) if model.item_path else (workdir.best,):
        with zipfile.ZipFile(path) as archive:
            checksums += [(part.filename, part.CRC) for part in archive.infolist()]
    key = json.dumps([split.fingerprint(), checksums])
    return _kept(workdir.path / "rankings.npz", key, lambda: _ranked(evaluation.model_ranker(model), split, batch_size))


def of_baselines(workdir: Workdir, names: Sequence[str], split: Split, batch_size: int) -> dict[str, Rankings]:
    """The lists of the baselines of these names, each known to `baseline`."""

    def make() -> Rankings:
        lists = {}
        for i, name in enumerate(names):
            ranked = _ranked(evaluation.score_ranker(baseline(name).fit(split.train)), split, batch_size)
            lists |= {f"{part}_{i}": ranked[part] for part in PARTS}
        return lists

    key = json.dumps([split.fingerprint(), names])
    kept = _kept(workdir.path / "baseline_rankings.npz", key, make)
    return {name: {part: kept[f"{part}_{i}"] for part in PARTS} for i, name in enumerate(names)}


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
