"""Writing a run as a SavedModel version: whole or not at all."""

import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from export import card, judging, titles, versions, warmup
from export.served_model import ServedModel
from vae_cf_tf.data.split import PARTS, Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation.ranking import users_at_once
from vae_cf_tf.models import batches
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.hybrid import HybridModel
from vae_cf_tf.registries import SIMILARITIES
from vae_cf_tf.runs import loading
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.fields import facts_of
from vae_cf_tf.settings.settings import field_of, names

TOP_K, WEIGHTS = 100, "float32"
"""Length of a recommendation, and type of the kernels, unless said otherwise."""
_CHECKED = 24
"""Histories whose scores are compared before a version is published."""


def export_run(
    workdir: Workdir,
    export_dir: str | os.PathLike,
    top_k: int = TOP_K,
    weights: str = WEIGHTS,
    check: Callable[[Path, Split], object] | None = None,
) -> Path:
    """Writes the best epoch of a run as `export_dir`/<version> and returns that path.

    Args:
      workdir: of the run.
      export_dir: the model's folder; the version is one more than the largest there.
      top_k: length of a recommendation, at most the catalogue.
      weights: "float32" or "bfloat16".
      check: receives the finished version and the run's data before the version is published. If it raises, nothing is
        written.

    Raises:
      UserError: the run has no finished epoch, its files do not belong together, or something that a SavedModel cannot
        carry.
    """
    versions.check_place(Path(export_dir))
    settings = workdir.settings()
    if not workdir.best.exists():
        raise UserError(f"{workdir.path} has no finished epoch to export: {workdir.best.name} is missing. Train first.")
    split = workdir.split()
    loaded = loading.load(workdir, split)
    values = workdir.read_metrics() if workdir.metrics.exists() else None
    if values and values["model_id"] != loaded.model_id:  # they are those of an earlier epoch
        values = None
    facts = facts_of_run(settings, split, loaded.model_id, loaded.best_epoch, values)
    of_version = (lambda version: check(version, split)) if check else None
    return export_model(loaded.model, split.item_ids, split.titles, facts, export_dir, top_k, weights, of_version)


def facts_of_run(
    settings: Settings, split: Split, model_id: str, best_epoch: int, values: dict[str, Any] | None
) -> dict[str, Any]:
    """What the card says about training. Settings that name files of the machine that trained are left out.

    Args:
      settings: of the run.
      split: its data.
      model_id, best_epoch: of the weights.
      values: what metrics.json holds of these weights; None where they were not judged.
    """
    left_out = {name for name in names() if name in names("data") or facts_of(field_of(name)).is_path}
    return {
        "config": {name: value for name, value in settings.figures_depend_on().items() if name not in left_out},
        "data_fingerprint": split.fingerprint(),
        "model_id": model_id,
        "best_epoch": best_epoch,
        "tensorflow": tf.__version__,
        "metrics": {part: values[part] for part in PARTS} if values else None,
        "note": values["note"] if values else None,
        "similar_items": (values or {}).get("similar_items"),  # None: an earlier version of the package judged the run
    }


def export_model(
    model: Autoencoder | HybridModel,
    item_ids: list[str],
    item_titles: dict[str, str],
    facts: dict,
    export_dir: str | os.PathLike,
    top_k: int = TOP_K,
    weights: str = WEIGHTS,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Writes a trained model, with its card, titles and warm-up requests, as the next version in `export_dir`.

    Before it is published, the version is loaded and its scores are compared with the model's.

    Args:
      model: trained; it stays as it is.
      item_ids: raw id of each column.
      item_titles: item id -> title, for those that have one.
      facts: what the card says about the run (see `facts_of_run`). The signature `similar_items` ranks by the
        similarity named in facts["similar_items"]["source"]; if there is none, by the model's answer.
      export_dir, top_k, weights: as `export_run`.
      check: receives the finished version before it is published. If it raises, nothing is written.

    Raises:
      UserError: ids that item_ids.txt cannot hold, weights that are not finite, or scores that are not the model's.
    """
    versions.check_place(Path(export_dir))
    _check_ids(item_ids)
    with versions.made_aside(Path(export_dir)) as aside:
        lines = aside / "item_ids.txt"
        lines.write_text("".join(f"{item}\n" for item in item_ids), encoding="utf-8", newline="")
        similarity = (facts.get("similar_items") or {}).get("source", SIMILARITIES.plainest)
        served = ServedModel(model, item_ids, top_k, lines, weights, similarity)
        variables = served.tracked.weights
        if not all(np.isfinite(tf.reduce_sum(tf.abs(v), keepdims=True).numpy().astype(np.float32)) for v in variables):
            raise UserError("The run's weights hold NaN or infinity: it cannot be served. Train it again.")
        version = aside / "model"
        tf.saved_model.save(served.tracked, str(version), signatures=served.signatures)
        described = {name: _described(function) for name, function in served.signatures.items()}
        parameters = sum(v.shape.num_elements() for v in variables)
        del served, variables  # copies of the weights, before another is loaded
        _compare(version, model, item_ids, weights)
        extra = version / "assets.extra"
        extra.mkdir()
        warmup.write(extra / warmup.NAME, Path(export_dir).resolve().name, item_ids)
        titles.write(extra / titles.NAME, item_titles)
        about = {"weights": weights, "parameters": parameters, "top_k": min(top_k, len(item_ids))} | facts
        card.write(extra / card.NAME, version, described, item_ids, about)
        if check:
            check(version)
        return versions.published(version, Path(export_dir))


def _check_ids(item_ids: list[str]) -> None:
    """Raises UserError for an id with a line break, an empty id ("" is padding), or a repeated id."""
    if bad := [item for item in item_ids if "\n" in item or "\r" in item]:
        raise UserError(f"An item id holds a line break, which item_ids.txt cannot carry: {bad[0]!r}. Rename the item.")
    if "" in item_ids:
        raise UserError('An item id is empty, and "" stands for padding in a history. Rename the item.')
    if len(set(item_ids)) < len(item_ids):
        twice = next(item for item, n in Counter(item_ids).items() if n > 1)
        raise UserError(f"An item id stands for two columns: {twice!r}. Ids are unique.")


def _compare(version: Path, model: Autoencoder | HybridModel, item_ids: list[str], weights: str) -> None:
    """Asks the written SavedModel and the model for the same scores.

    Raises:
      UserError: they differ by more than rounding can. The bound for the root mean square difference of a history is
        .001 + 1 % (25 % with kernels of bfloat16) of the standard deviation of its scores.
    """
    served = judging.scorer(tf.saved_model.load(str(version)), item_ids)
    random, items = np.random.default_rng(0), len(item_ids)
    lengths = [min(number * number // 4, items) for number in range(_CHECKED)]
    columns = np.concatenate([random.choice(items, length, replace=False) for length in lengths])
    ones, splits = np.ones(len(columns), np.float32), np.cumsum([0, *lengths])
    histories = sp.csr_matrix((ones, columns, splits), (_CHECKED, items))
    histories.sort_indices()
    at_once = users_at_once(_CHECKED, 16 * items)  # a dozen tensors of scores, float64 among them
    for start, end in itertools.pairwise([*range(0, _CHECKED - 1, at_once), _CHECKED - 1, _CHECKED]):  # the last alone
        batch = histories[start:end]
        expected = model(batches.ragged(batch)).numpy()
        differences = np.sqrt(np.mean((served(batch).astype(np.float64) - expected) ** 2, axis=1))
        bounds = 1e-3 + {"float32": 0.01, "bfloat16": 0.25}[weights] * expected.std(axis=1)
        for length, difference, bound in zip(lengths[start:end], differences, bounds, strict=True):
            if not difference <= bound:
                raise UserError(
                    f"The SavedModel answers otherwise than the model (a history of {length} items: scores "
                    f"differ by {difference:.3g}, more than {bound:.3g}); it was not published. This is a bug; please "
                    "report it."
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
