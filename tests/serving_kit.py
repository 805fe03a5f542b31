"""What the tests of the export share: a small model, exported once, and other processes to load it in."""

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from conftest import EVCF

from export.savedmodel import export_model
from vae_cf_tf.linear.item_path import ItemPath
from vae_cf_tf.models.models import Autoencoder, build
from vae_cf_tf.settings.config import Config

SMALL = {"hidden_dim": 12, "latent_dim": 5, "pseudo_inputs": 4}
ITEM_IDS = [f"i{n}" for n in range(36)] + ["été", "映画 7", 'a"b;c=d', " padded "]
TITLES = {"i0": "The First (1999)", "映画 7": "七人の侍"}
FACTS = {"config": {"latent": "hierarchical"}, "data_fingerprint": "0123456789abcdef", "metrics": None}
TOP_K = 15


def model(**settings) -> Autoencoder:
    """A model of this size; the seed is the configuration's, so that two calls make equal ones."""
    return build(Config(**{**EVCF, **SMALL, **settings}), len(ITEM_IDS))


def default_model(path: str = "whole") -> Autoencoder:
    """A model of the kind that vamp.flags makes, with an item path that is held whole or by rows."""
    made = model(
        latent="hierarchical", prior="user_vamp", prior_own=0.75, layers=3, encoder_skips="dense",
        lower_encoder="hidden", decoder_layers=0,
    )  # fmt: skip
    made.item_path = ItemPath(len(ITEM_IDS), megabytes=1 if path == "whole" else 0, name="item_path")
    rng = np.random.default_rng(0)
    users = sp.csr_matrix((rng.random((60, len(ITEM_IDS))) < 0.3).astype(np.float32))
    made.item_path.fit(users, l2=0.5, max_items=100)
    made.item_path.weight.assign(4.0)
    made.item_path.discount.assign(0.5)
    return made


@functools.cache
def exported(weights: str = "float32", path: str = "") -> Path:
    """The SavedModel of a hierarchical, gated, two-layer model; with `path`, of a `default_model`."""
    folder = Path(tempfile.mkdtemp(prefix="serving_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = default_model(path) if path else model()
    return export_model(made, ITEM_IDS, TITLES, FACTS, folder / "vamp", TOP_K, weights)


def elsewhere(script: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """Runs Python code in a process and folder of its own, in which this project cannot be imported."""
    guard = (
        "import importlib.util\n"
        "assert not any(importlib.util.find_spec(name) for name in ('vae_cf_tf', 'export', 'trainers'))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-I", "-c", guard + script, *map(str, arguments)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )
