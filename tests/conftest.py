"""What the tests share: quiet TensorFlow, small settings, a toy log, and the shipped flagfiles."""

import gc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from vae_cf_tf.cli import allocation, quiet
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.flagfiles import settings_in

allocation.keep_freed_memory()
quiet.import_tensorflow()

from vae_cf_tf.models.base import Autoencoder  # noqa: E402  (after TensorFlow was imported quietly)
from vae_cf_tf.models.build import build  # noqa: E402
from vae_cf_tf.training.compiling import compile_for  # noqa: E402

gc.freeze()  # what is imported stays, and would be looked through at every collection
ROOT = Path(__file__).parents[1]
FLAGFILES = sorted((ROOT / "trainers" / "flags").glob("*.flags")) + [ROOT / "vamp.flags"]
EVCF = settings_in(ROOT / "trainers" / "flags" / "evcf.flags")
LONGEST = ("test_training", "test_torture", "test_report", "test_flags", "test_sweep", "test_as_typed")
"""Files that come first: a long one at the end would leave the other worker of `make test` without work."""
SMALL = {"hidden_dim": 32, "latent_dim": 8, "pseudo_inputs": 6, "batch_size": 10}
PLAIN = {
    **{"latent": "flat", "prior": "standard", "prior_own": 0, "block": "tanh", "layers": 1, "encoder_skips": "none"},
    **{"encoder_passes": 0, "turns": "epoch", "average_weights": 0},
}
"""Multi-VAE in place of the default, for tests of files and commands: TensorFlow traces it in half the time."""
PLAIN_FLAGS = [f"--{name}={value}" for name, value in PLAIN.items()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def small(path: Path, **settings) -> Settings:
    """A flagfile's settings, at the size of a toy."""
    return Settings.of(**(settings_in(path) | SMALL | settings))


def built(settings: Settings, items: int, train: sp.csr_matrix | None = None) -> Autoencoder:
    """A model of these settings, its weights drawn from their seed."""
    return build(settings.model, items, train, settings.training.seed)


def compiled(settings: Settings, train: sp.csr_matrix) -> Autoencoder:
    """A model that is ready to be trained on these users."""
    return compile_for(built(settings, train.shape[1], train), settings.training, train)


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
