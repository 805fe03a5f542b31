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
from conftest import EVCF, built

from export import card
from export.savedmodel import export_model
from vae_cf_tf.files import read_json, sha256, write_json
from vae_cf_tf.linear.factors import ImplicitFactors
from vae_cf_tf.linear.item_item import NormalizedEase
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.hybrid import HybridModel, ItemItemLayer
from vae_cf_tf.settings import Settings

SMALL = {"hidden_dim": 12, "latent_dim": 5, "pseudo_inputs": 4}
ITEM_IDS = [f"i{n}" for n in range(36)] + ["été", "映画 7", 'a"b;c=d', " padded "]
TITLES = {"i0": "The First (1999)", "映画 7": "七人の侍"}
FACTS = {"config": {"latent": "hierarchical"}, "data_fingerprint": "0123456789abcdef", "metrics": None}
TOP_K = 15


def model(**settings) -> Autoencoder:
    """A model of this size. Two calls make equal ones: the seed is that of the settings."""
    return built(Settings.of(**{**EVCF, **SMALL, **settings}), len(ITEM_IDS))


def default_model(item_item: str = "whole") -> HybridModel:
    """A model of the kind that vamp.flags makes, with an item–item model that is held whole or by rows."""
    network = model(
        latent="hierarchical", prior="user_vamp", prior_own=0.75, layers=3, encoder_skips="dense",
        lower_encoder="hidden", decoder_layers=0,
    )  # fmt: skip
    half = len(ITEM_IDS) ** 2 / 2 * 8e-6  # megabytes that half the coefficients take, with their columns
    layer = ItemItemLayer(len(ITEM_IDS), megabytes=1 if item_item == "whole" else 0.9 * half, name="item_item")
    assert layer.whole == (item_item == "whole")
    rng = np.random.default_rng(0)
    users = sp.csr_matrix((rng.random((60, len(ITEM_IDS))) < 0.3).astype(np.float32))
    layer.fit(NormalizedEase(l2=0.5, max_items=100), users)
    if layer.rank:
        layer.assign_factors(ImplicitFactors(layer.rank).fit(users))
        layer.share.assign(0.5)
    return HybridModel(network, layer, weight=4.0, discount=0.5)


@functools.cache
def exported(weights: str = "float32", item_item: str = "") -> Path:
    """The SavedModel of a hierarchical, gated, two-layer model; with `item_item`, of a `default_model`."""
    folder = Path(tempfile.mkdtemp(prefix="serving_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    trained = default_model(item_item) if item_item else model()
    return export_model(trained, ITEM_IDS, TITLES, FACTS, folder / "vamp", TOP_K, weights)


def sealed(version: Path) -> None:
    """Writes the checksums of a version's present files into its card, as if it had been exported so."""
    path = version / "assets.extra" / card.NAME
    facts = read_json(path)
    write_json(path, facts | {"sha256": {name: sha256(version / name) for name in facts["sha256"]}})


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
