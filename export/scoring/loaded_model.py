"""The `recommend` signature of a loaded SavedModel, asked for batches of histories."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from export.client import messages
from vae_cf_tf.errors import UserError

# They bound the memory of a request, whatever the catalogue and top_k.
_SCORES = 1 << 23  # histories × items
_ANSWERS = 1 << 20  # histories × top_k


def recommender(version: Path, items: int, batch_size: int) -> tuple[Callable, int]:
    """A function from histories to item ids, bytes [batch, k], and scores; and how many histories it may be given."""
    try:
        loaded = tf.saved_model.load(str(version))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{version} cannot be loaded as a SavedModel ({reason}). Export it again, to a path without [ ] * ?."
        ) from error
    function = loaded.signatures.get("recommend")
    if (
        function is None
        or set(function.structured_input_signature[1]) != {"history"}
        or not {"item_ids", "scores"} <= set(function.structured_outputs)
    ):
        names = ", ".join(loaded.signatures) or "none"
        raise UserError(
            f"{version} has no signature `recommend` from history to item_ids and scores. Its signatures: {names}."
        )

    def ask(histories: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        answer = function(history=tf.constant(messages.rectangle(histories)))
        return answer["item_ids"].numpy(), answer["scores"].numpy()

    top_k = function.structured_outputs["scores"].shape[1] or items
    return ask, max(1, min(batch_size, _SCORES // items, _ANSWERS // top_k))
