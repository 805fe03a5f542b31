"""The signature `explain`: how much each item of a history contributes to a recommendation."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from export.client import messages
from export.signatures import Signature
from vae_cf_tf.models.explanation import contributions

_EXAMPLE = 100
"""Most items in the history of a warm-up request. A history of n items takes n + 1 evaluations of the model."""


class Explain(Signature):
    """`contributions`, float32 [batch, length]: how much each item of `history` adds to log p(`item`).

    `history` is string [batch, length] and `item` is string [batch]. A contribution is log p(item | history) −
    log p(item | history without the item at this position). It is 0 for padding, for an unknown id, and for each
    position but the first of a repeated id. If `item` is unknown, its whole row is 0. `item` may be in its history.
    """

    inputs = (
        tf.TensorSpec([None, None], tf.string, name="history"),
        tf.TensorSpec([None], tf.string, name="item"),
    )

    def __call__(self, history: tf.Tensor, item: tf.Tensor) -> dict[str, tf.Tensor]:
        target = tf.cast(self.model.column_of.lookup(item), tf.int32)
        columns = tf.cast(self.model.column_of.lookup(history), tf.int32)
        is_asked = (columns >= 0) & (target >= 0)[:, None]
        positions = tf.where(is_asked)  # row by row
        rows, columns = positions[:, 0], tf.cast(tf.gather_nd(columns, positions), tf.int64)
        cells = rows * self.model.num_items + columns
        order = tf.argsort(cells, stable=True)  # stable: equal cells stay in the order of the history
        cells = tf.gather(cells, order)
        is_first = tf.concat([tf.ones([1], tf.bool), cells[1:] != cells[:-1]], axis=0)[: tf.size(cells)]
        order = tf.boolean_mask(order, is_first)
        items, rows = (tf.cast(tf.gather(values, order), tf.int32) for values in (columns, rows))
        targets = tf.maximum(target, 0)[:, None]
        values = contributions(self.model.log_probs_of, items, rows, targets, self.model.num_items)[:, 0]
        shape = tf.shape(history, out_type=tf.int64)
        return {"contributions": tf.scatter_nd(tf.gather(positions, order), values, shape)}

    @classmethod
    def example(cls, histories: Sequence[Sequence[str]]) -> dict[str, Any]:
        items = messages.first_items(histories)
        return {"history": messages.rectangle([history[:_EXAMPLE] for history in histories]), "item": items}
