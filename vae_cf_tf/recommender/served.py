"""The signatures of an exported version, or of a run, asked from Python for any number of rows."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from export import card, catalogue, savedmodel, titles
from vae_cf_tf.errors import UserError
from vae_cf_tf.recommender import requests
from vae_cf_tf.runs.workdir import Workdir


class Served:
    """An exported version in this process.

    Args:
      version: its folder, which is not needed afterwards.

    Raises:
      UserError: it is damaged, or cannot be loaded.
    """

    def __init__(self, version: Path):
        card.check(version)
        try:
            self._loaded = tf.saved_model.load(str(version))
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"{version} cannot be loaded as a SavedModel ({reason}). Export it again.") from error
        self.item_ids, self.titles = catalogue.in_order(version), titles.read(version)

    @classmethod
    def of_run(cls, workdir: Workdir, top_k: int = savedmodel.TOP_K) -> "Served":
        """The best epoch of a run, by way of an export that is deleted again: it answers as any export of the run."""
        with tempfile.TemporaryDirectory() as folder:
            return cls(savedmodel.export_run(workdir, folder, top_k))

    @property
    def top_k(self) -> int:
        """Length of a recommendation."""
        shape = self._loaded.signatures["recommend"].structured_outputs["item_ids"].shape
        return shape[1] or len(self.item_ids)

    def ask(self, name: str, **inputs: Sequence[Any]) -> dict[str, np.ndarray]:
        """The outputs of a signature, ids as text.

        Args:
          name: of the signature.
          inputs: by name, a list of ids or a single value for each row.

        Raises:
          UserError: the model has no such signature.
        """
        signatures = self._loaded.signatures
        if name not in signatures:
            known = ", ".join(sorted(signatures))
            raise UserError(f"This model has no signature `{name}`. It has {known}. Export it anew with this package.")
        rows = len(next(iter(inputs.values())))
        answers = [
            signatures[name](**{key: _tensor(values[part]) for key, values in inputs.items()})
            for part in requests.blocks(inputs, rows, len(self.item_ids))
        ]
        if not answers:
            outputs = signatures[name].structured_outputs
            return {key: np.empty([n or 0 for n in output.shape], object) for key, output in outputs.items()}
        return {key: _joined([answer[key].numpy() for answer in answers]) for key in answers[0]}


def _tensor(values: Sequence[Any]) -> tf.Tensor:
    return tf.constant(requests.padded(values) if isinstance(values[0], list) else values)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Joins the blocks' answers along the rows. Answers of `explain` are as wide as the block's longest history, so
    narrower blocks are padded with 0."""
    if parts[0].ndim == 2:
        width = max(part.shape[1] for part in parts)
        parts = [np.pad(part, [(0, 0), (0, width - part.shape[1])]) for part in parts]
    values = np.concatenate(parts)
    if values.dtype != object:
        return values
    return np.array([text.decode() for text in values.ravel()], object).reshape(values.shape)
