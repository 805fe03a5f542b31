"""What the tests share: quiet TensorFlow, small configurations, a toy log, and the shipped flagfiles."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from vae_cf_tf import quiet
from vae_cf_tf.config import Config, flagfile_settings

quiet.import_tensorflow()

ROOT = Path(__file__).parents[1]
FLAGFILES = sorted((ROOT / "trainers" / "flags").glob("*.flags")) + [ROOT / "vamp.flags"]
EVCF = flagfile_settings(ROOT / "trainers" / "flags" / "evcf.flags")
SMALL = {"hidden_dim": 32, "latent_dim": 8, "pseudo_inputs": 6, "batch_size": 10}


def small_config(path: Path, **settings) -> Config:
    """A flagfile's configuration, at the size of a toy."""
    return Config(**(flagfile_settings(path) | SMALL | settings))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def checkerboard(users: int = 40, items: int = 20) -> tuple[sp.csr_matrix, np.ndarray]:
    """Two communities: even users have all even items but one, odd users likewise; and the item each one lacks."""
    full = (np.arange(users)[:, None] - np.arange(items)) % 2 == 0
    withheld = (np.arange(users) % 2) + 2 * (np.arange(users) // 2 % (items // 2))
    full[np.arange(users), withheld] = False
    return sp.csr_matrix(full.astype(np.float32)), withheld
