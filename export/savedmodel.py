"""Writing a run as a SavedModel version: whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from export import card, titles, warmup
from export.recommender import Recommender
from vae_cf_tf import checkpoints, files, trained
from vae_cf_tf.config import DATA, Config, fields_of
from vae_cf_tf.errors import UserError
from vae_cf_tf.models import Autoencoder
from vae_cf_tf.workdir import PARTS, Workdir

_UNFINISHED = ".unfinished-"  # no number, so no version to a server that watches the folder
_GLOB = "[]*?\\"
"""Characters that TensorFlow takes for a pattern when it looks for a SavedModel's variables."""
_CHECKED = 24
"""Histories whose scores are compared before a version is published."""


def export_run(workdir: Workdir, export_dir: str | os.PathLike, top_k: int = 100, weights: str = "float32") -> Path:
    """Writes the best epoch of a run as `export_dir`/<version> and returns that path.

    Args:
      workdir: of the run.
      export_dir: the model's folder; the version is one more than the largest there.
      top_k: length of a recommendation, at most the catalogue.
      weights: "float32" or "bfloat16".

    Raises:
      UserError: the run has no finished epoch, its files do not belong together, or something that a SavedModel cannot
        carry.
    """
    check_place(Path(export_dir))
    config = workdir.config()
    if not workdir.best.exists():
        raise UserError(f"{workdir.path} has no finished epoch to export: {workdir.best.name} is missing. Train first.")
    split = workdir.split()
    model = trained.load(workdir, split)
    facts = facts_of_run(workdir, config, split.fingerprint())
    return export_model(model, split.item_ids, split.titles, facts, export_dir, top_k, weights)


def facts_of_run(workdir: Workdir, config: Config, fingerprint: str) -> dict[str, Any]:
    """What the card says about training: settings, data, and the metrics of these weights where they were judged.

    Settings that name files of the machine that trained are left out.
    """
    model_id = trained.model_id(workdir, config)
    of_data = fields_of(DATA)
    facts: dict[str, Any] = {
        "config": {name: value for name, value in config.figures_depend_on().items() if name not in of_data},
        "data_fingerprint": fingerprint,
        "model_id": model_id,
        "best_epoch": checkpoints.read_meta(workdir.best)["epoch"],
        "tensorflow": tf.__version__,
        "metrics": None,
    }
    if workdir.metrics.exists():
        values = workdir.read_metrics()
        if values["model_id"] == model_id:  # else they are those of an earlier epoch
            facts |= {"metrics": {part: values[part] for part in PARTS}, "note": values["note"]}
    return facts


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

    Before it is published, the version is loaded and its scores are compared with the model's.

    Args:
      model: trained; it stays as it is.
      item_ids: raw id of each column.
      item_titles: item id -> title, for those that have one.
      facts: what the card says beside what it finds in the export itself.
      export_dir, top_k, weights: as `export_run`.
    """
    check_place(Path(export_dir))
    _check_ids(item_ids)
    with _made_aside(Path(export_dir)) as aside:
        lines = aside / "item_ids.txt"
        lines.write_text("".join(f"{item}\n" for item in item_ids), encoding="utf-8", newline="")
        recommender = Recommender(model, item_ids, top_k, lines, weights)
        variables = recommender.tracked.weights
        if not all(np.isfinite(tf.reduce_sum(tf.abs(v), keepdims=True).numpy().astype(np.float32)) for v in variables):
            raise UserError("The run's weights hold NaN or infinity: it cannot be served. Train it again.")
        version = aside / "model"
        tf.saved_model.save(recommender.tracked, str(version), signatures=recommender.signatures)
        _compare(version, model, item_ids, weights)
        extra = version / "assets.extra"
        extra.mkdir()
        warmup.write(extra / warmup.NAME, Path(export_dir).resolve().name, item_ids)
        titles.write(extra / titles.NAME, item_titles)
        described = {name: _described(function) for name, function in recommender.signatures.items()}
        parameters = sum(v.shape.num_elements() for v in variables)
        card.write(extra / card.NAME, version, described, item_ids, weights, parameters, facts)
        return _published(version, Path(export_dir))


def check_place(export_dir: Path) -> None:
    """Raises UserError for a folder from which TensorFlow could not load a SavedModel."""
    path = str(export_dir.resolve())
    if bad := [c for c in _GLOB if c in path]:
        raise UserError(
            f"The path {path} holds {bad[0]!r}, which TensorFlow takes for a pattern: a model there could not be "
            "loaded. Give another --export_dir, or another --workdir."
        )


def _check_ids(item_ids: list[str]) -> None:
    """item_ids.txt holds an id on each line, and "" is padding."""
    if bad := [item for item in item_ids if "\n" in item or "\r" in item]:
        raise UserError(f"An item id holds a line break, which item_ids.txt cannot carry: {bad[0]!r}. Rename the item.")
    if "" in item_ids:
        raise UserError('An item id is empty, and "" stands for padding in a history. Rename the item.')
    if len(set(item_ids)) < len(item_ids):
        seen: set[str] = set()
        twice = next(item for item in item_ids if item in seen or seen.add(item))
        raise UserError(f"An item id stands for two columns: {twice!r}. Ids are unique.")


def _compare(version: Path, model: Autoencoder, item_ids: list[str], weights: str) -> None:
    """Asks the written SavedModel and the model for the same scores.

    Raises:
      UserError: they differ by more than rounding: float32 up to 1e-5 of the largest score, bfloat16 kernels up to a
        quarter of the scores' own spread.
    """
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    random, items = np.random.default_rng(0), len(item_ids)
    for number in range(_CHECKED):
        columns = np.sort(random.choice(items, min(number * number // 4, items), replace=False)).astype(np.int32)
        history = tf.constant([[item_ids[column] for column in columns]], tf.string, [1, len(columns)])
        scores = served(history=history)["scores"].numpy()[0].astype(np.float64)
        expected = model(tf.RaggedTensor.from_row_lengths(columns, [len(columns)], validate=False)).numpy()[0]
        if weights == "float32":
            bound = 1e-4 + 1e-5 * np.abs(expected).max()
            difference = np.abs(scores - expected).max()
        else:
            bound = 1e-3 + 0.25 * expected.std()
            difference = np.sqrt(np.mean((scores - expected) ** 2))
        if not difference <= bound:
            raise UserError(
                f"The SavedModel answers otherwise than the model (a history of {len(columns)} items: scores differ by "
                f"{difference:.3g}, more than {bound:.3g}); it was not published. This is a bug; please report it."
            )


def _described(function: tf.types.experimental.ConcreteFunction) -> dict[str, dict[str, str]]:
    """Names and shapes of a signature's inputs and outputs."""
    inputs = {spec.name: spec for spec in function.structured_input_signature[1].values()}
    inputs |= {spec.name: spec for spec in function.structured_input_signature[0]}
    return {
        "inputs": {name: _spec(spec) for name, spec in inputs.items()},
        "outputs": {name: _spec(spec) for name, spec in function.structured_outputs.items()},
    }


def _spec(spec: tf.TensorSpec) -> str:
    return f"{spec.dtype.name} [{', '.join('?' if d is None else str(d) for d in spec.shape.as_list())}]"


@contextlib.contextmanager
def _made_aside(export_dir: Path) -> Iterator[Path]:
    """A folder in `export_dir` to build in, gone afterwards, and with it what killed exports left there."""
    is_new = not export_dir.exists()
    with contextlib.ExitStack() as held:
        with _exclusive(export_dir):  # no other export takes the new folder for a left one
            for left in export_dir.glob(f"{_UNFINISHED}*"):
                with contextlib.suppress(UserError), files.locked(left, "an export is at work here"):
                    shutil.rmtree(left)
            aside = Path(tempfile.mkdtemp(dir=export_dir, prefix=_UNFINISHED))
            held.enter_context(files.locked(aside, "an export is at work here"))
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            if is_new and set(os.listdir(export_dir)) <= {files.LOCK}:  # nothing was published: leave nothing
                shutil.rmtree(export_dir, ignore_errors=True)


def _exclusive(export_dir: Path) -> contextlib.AbstractContextManager[int]:
    """Holds the model's folder for a moment, as each export does to begin and to publish."""
    busy = f"Another export is held up in {export_dir}. Start this one again later, or give another --export_dir."
    return files.locked(export_dir, busy, waits=[0.1] * 300)


def _published(made: Path, export_dir: Path) -> Path:
    """Syncs `made` to the disk and renames it to the next version, never over one that is there."""
    made.chmod(0o755)
    for path in [*made.rglob("*"), made]:
        files.sync(path)
    with _exclusive(export_dir):
        while True:
            version = export_dir / str(card.next_number(export_dir))
            try:
                os.rename(made, version)
            except OSError:
                if not version.exists():
                    raise
            else:
                files.sync(export_dir)
                return version  # otherwise a process that knows no lock took the number: count again
