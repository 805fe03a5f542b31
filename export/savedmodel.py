"""Writing a run as a SavedModel version: whole or not at all."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from export import card, titles, warmup
from export.recommender import Recommender
from vae_cf_tf import trained
from vae_cf_tf.errors import UserError
from vae_cf_tf.models import Autoencoder
from vae_cf_tf.workdir import Workdir

_UNFINISHED = ".unfinished-"  # no number, so no version to a server that watches the folder


def export_run(workdir: Workdir, export_dir: str | os.PathLike, top_k: int = 100, weights: str = "float32") -> Path:
    """Writes the best epoch of a run as `export_dir`/<version> and returns that path.

    Args:
      workdir: of the run.
      export_dir: the model's folder; the version is one more than the largest there.
      top_k: length of a recommendation, at most the catalogue.
      weights: "float32" or "bfloat16".

    Raises:
      UserError: the run has no finished epoch, or something that a SavedModel cannot carry.
    """
    config = workdir.config()
    if not workdir.best.exists():
        raise UserError(f"{workdir.path} has no finished epoch to export: {workdir.best.name} is missing. Train first.")
    split = workdir.split()
    model = trained.load(workdir, split)
    facts = card.of_run(workdir, config, split.fingerprint())
    return export_model(model, split.item_ids, split.titles, facts, export_dir, top_k, weights)


def export_model(
    model: Autoencoder,
    item_ids: list[str],
    item_titles: dict[str, str],
    facts: dict,
    export_dir: str | os.PathLike,
    top_k: int = 100,
    weights: str = "float32",
) -> Path:
    """Writes a trained model, with its card, titles and warm-up requests, as the next version in `export_dir`.

    Args:
      model: trained; it is used up: afterwards it only predicts.
      item_ids: raw id of each column.
      item_titles: item id -> title, for those that have one.
      facts: what the card says beside what it finds in the export itself.
      export_dir, top_k, weights: as `export_run`.
    """
    _check_ids(item_ids)
    with _made_aside(Path(export_dir)) as aside:
        recommender = Recommender(model, item_ids, top_k, aside, weights)
        variables = recommender.tracked.weights
        if not all(np.isfinite(tf.reduce_sum(tf.abs(v), keepdims=True).numpy().astype(np.float32)) for v in variables):
            raise UserError("The run's weights hold NaN or infinity: it cannot be served. Train it again.")
        made = aside / "model"
        tf.saved_model.save(recommender.tracked, str(made), signatures=recommender.signatures)
        extra = made / "assets.extra"
        extra.mkdir()
        warmup.write(extra / warmup.NAME, Path(export_dir).resolve().name, item_ids)
        titles.write(extra / titles.NAME, item_titles)
        card.write(extra / card.NAME, made, recommender.signatures, item_ids, weights, variables, facts)
        return _published(made, Path(export_dir))


def _check_ids(item_ids: list[str]) -> None:
    """item_ids.txt holds an id a line, and "" is padding."""
    if bad := [item for item in item_ids if "\n" in item or "\r" in item]:
        raise UserError(f"An item id holds a line break, which item_ids.txt cannot carry: {bad[0]!r}. Rename the item.")
    if "" in item_ids:
        raise UserError('An item id is empty, and "" stands for padding in a history. Rename the item.')
    if len(set(item_ids)) < len(item_ids):
        twice = next(item for i, item in enumerate(item_ids) if item in item_ids[:i])
        raise UserError(f"An item id stands for two columns: {twice!r}. Ids are unique.")


@contextlib.contextmanager
def _made_aside(export_dir: Path) -> Iterator[Path]:
    """A folder in `export_dir` to build in, gone afterwards, and with it what killed exports left there."""
    export_dir.mkdir(parents=True, exist_ok=True)
    for left in export_dir.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError), _locked(left):  # fails where the export is still running
            shutil.rmtree(left)
    aside = Path(tempfile.mkdtemp(dir=export_dir, prefix=_UNFINISHED))
    with _locked(aside):
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _published(made: Path, export_dir: Path) -> Path:
    """Syncs `made` to the disk and renames it to the next version, never over one that is there."""
    made.chmod(0o755)
    for path in [*made.rglob("*"), made]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    while True:
        last = card.newest_version(export_dir)
        version = export_dir / str(int(last.name) + 1 if last else 1)
        try:
            os.rename(made, version)
        except OSError:
            if not version.exists():
                raise
        else:
            return version  # otherwise another export took the number: count again
