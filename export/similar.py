"""The signature for items like an item."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from export.client import messages
from export.signatures import Signature
from vae_cf_tf.evaluation.ranking import top_unseen


class SimilarItems(Signature):
    """`item_ids`, string [batch, k], and `scores`, float32 [batch, k]: the items most like each `item`, string [batch].

    Best first and never the item itself. An item that is not in the catalogue gets "" throughout, with the lowest
    finite score. What the scores are depends on the similarity that was chosen for the run: they rank the items of one
    request and say no more.
    """

    inputs = (tf.TensorSpec([None], tf.string, name="item"),)

    def __call__(self, item: tf.Tensor) -> dict[str, tf.Tensor]:
        items, rows, batch = self.model.known_items(item[:, None])
        scores, columns = top_unseen(self.model.similarity(items, rows, batch), items, rows, self.model.top_k)
        is_known = tf.scatter_nd(rows[:, None], tf.ones_like(rows), [batch])[:, None] > 0
        return self.model.named(tf.where(is_known, scores, -np.inf), columns)

    @classmethod
    def example(cls, histories: Sequence[Sequence[str]]) -> dict[str, Any]:
        return {"item": messages.first_items(histories)}
