"""The signature `recommend` or `recommend_filtered` of a loaded SavedModel, asked for batches of histories."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from export.client import messages
from export.scoring.history_files import Row
from vae_cf_tf.errors import UserError

# They bound the memory of a request, whatever the catalogue and top_k.
_SCORES = 1 << 23  # histories × items
_ANSWERS = 1 << 20  # histories × top_k


def recommender(
    version: Path, items: int, batch_size: int, has_rules: bool = False, k: int = 0
) -> tuple[Callable[[Sequence[Row]], tuple[np.ndarray, np.ndarray]], int]:
    """A function from rows to item ids, bytes [batch, k], and scores; and how many rows it may be given.

    Args:
      version: the SavedModel.
      items: size of its catalogue.
      batch_size: rows of a request, at most.
      has_rules: whether `recommend_filtered` is asked.
      k: recommendations of a row; 0: as many as the model gives.
    """
    name = "recommend_filtered" if has_rules else "recommend"
    inputs = {"history", "candidates", "exclude", "include_history"} if has_rules else {"history"}
    try:
        loaded = tf.saved_model.load(str(version))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{version} cannot be loaded as a SavedModel ({reason}). Export it again, to a path without [ ] * ?."
        ) from error
    function = loaded.signatures.get(name)
    if (
        function is None
        or set(function.structured_input_signature[1]) != inputs
        or not {"item_ids", "scores"} <= set(function.structured_outputs)
    ):
        names = ", ".join(loaded.signatures) or "none"
        raise UserError(
            f"{version} has no signature `{name}` from {', '.join(sorted(inputs))} to item_ids and scores. "
            f"Its signatures: {names}."
        )
    top_k = function.structured_outputs["scores"].shape[1] or items

    def ask(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        values = messages.inputs_of(name, [row.history for row in rows], [row.rules for row in rows])
        answer = function(**{key: tf.constant(value) for key, value in values.items()})
        return answer["item_ids"].numpy()[:, : k or top_k], answer["scores"].numpy()[:, : k or top_k]

    return ask, max(1, min(batch_size, _SCORES // items, _ANSWERS // top_k))
