"""The ranked lists of a run's held-out users, by the model and by the baselines: all that is said of users and items
comes from them. They are kept beside the run, since a closed-form baseline can take minutes.
"""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from vae_cf_tf import baselines, evaluation
from vae_cf_tf.data.split import Split
from vae_cf_tf.files import written_aside
from vae_cf_tf.models import Autoencoder
from vae_cf_tf.workdir import Workdir

PARTS = ("test", "validation")
Rankings = dict[str, np.ndarray]
"""By part: int32 [users with targets, TOP], item indices, best first."""


def of_model(workdir: Workdir, model: Autoencoder, split: Split, batch_size: int) -> Rankings:
    """The lists of the run's best epoch, whose weights `model` has."""
    with zipfile.ZipFile(workdir.best) as archive:
        checksums = [(part.filename, part.CRC) for part in archive.infolist()]
    key = json.dumps([split.fingerprint(), checksums])
    return _kept(workdir.path / "rankings.npz", key, lambda: _ranked(evaluation.model_ranker(model), split, batch_size))


def of_baselines(workdir: Workdir, names: list[str], split: Split, batch_size: int) -> dict[str, Rankings]:
    """The lists of the baselines of these names, as baselines.json has them."""

    def make() -> Rankings:
        found = {}
        for i, name in enumerate(names):
            ranked = _ranked(evaluation.score_ranker(_fitted(name, split.train)), split, batch_size)
            found |= {f"{part}_{i}": lists for part, lists in ranked.items()}
        return found

    key = json.dumps([split.fingerprint(), names])
    kept = _kept(workdir.path / "baseline_rankings.npz", key, make)
    return {name: {part: kept[f"{part}_{i}"] for part in PARTS} for i, name in enumerate(names)}


def known_baselines(names: list[str]) -> list[str]:
    """Those that can be fitted again from their names."""
    return [name for name in names if name == "popularity" or name.startswith("EASE, λ ")]


def _fitted(name: str, train: sp.csr_matrix) -> baselines.Scores:
    return baselines.popularity(train) if name == "popularity" else baselines.ease(train, float(name.split("λ ")[1]))


def _ranked(rank: evaluation.Ranker, split: Split, batch_size: int) -> Rankings:
    found = {}
    for part in PARTS:
        rows = getattr(split, part).with_targets().fold_in
        found[part] = evaluation.ranked_lists(rank, rows, batch_size).astype(np.int32)
    return found


def _kept(path: Path, key: str, make: Callable[[], Rankings]) -> Rankings:
    """The arrays in `path` if they are of `key`, else those of `make`, which are then kept there."""
    try:
        with np.load(path) as archive:
            if str(archive["key"]) == key:
                return {name: archive[name] for name in archive.files if name != "key"}
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError, KeyError):
        pass  # none yet, or a damaged one: made anew
    arrays = make()
    with written_aside(path) as aside, open(aside, "wb") as f:
        np.savez(f, key=key, **arrays)
    return arrays
