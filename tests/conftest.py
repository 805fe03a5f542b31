"""What the tests share: quiet TensorFlow, small configurations, a toy log, and the shipped flagfiles."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from vae_cf_tf.cli import quiet
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.settings.config import Config, flagfile_settings

quiet.import_tensorflow()

ROOT = Path(__file__).parents[1]
FLAGFILES = sorted((ROOT / "trainers" / "flags").glob("*.flags")) + [ROOT / "vamp.flags"]
EVCF = flagfile_settings(ROOT / "trainers" / "flags" / "evcf.flags")
SMALL = {"hidden_dim": 32, "latent_dim": 8, "pseudo_inputs": 6, "batch_size": 10}


def small_config(path: Path, **settings) -> Config:
    """A flagfile's configuration, at the size of a toy."""
    return Config(**(flagfile_settings(path) | SMALL | settings))


def synthetic_events(folder: Path, users: int = 160, items: int = 130, titles: bool = False) -> Path:
    """A small log, events.csv, as a user might bring it; with `titles`, movies.csv beside it."""
    log = synthetic_log(users=users, items=items, communities=4, mean_items=15)
    lines = [f"{log.user_ids[u]},{log.item_ids[i]}" for u, i in zip(log.users, log.items, strict=True)]
    (folder / "events.csv").write_text("user_id,item_id\n" + "\n".join(lines) + "\n")
    if titles:
        rows = "".join(f"{item},{title}\n" for item, title in log.titles.items())
        (folder / "movies.csv").write_text("item_id,title\n" + rows)
    return folder / "events.csv"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def checkerboard(users: int = 40, items: int = 20) -> tuple[sp.csr_matrix, np.ndarray]:
    """Two communities: even users have all even items but one, odd users likewise; and the item each one lacks."""
    full = (np.arange(users)[:, None] - np.arange(items)) % 2 == 0
    withheld = (np.arange(users) % 2) + 2 * (np.arange(users) // 2 % (items // 2))
    full[np.arange(users), withheld] = False
    return sp.csr_matrix(full.astype(np.float32)), withheld
