"""The signature for the reasons of a recommendation."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from export.client import messages
from export.signatures import Signature
from vae_cf_tf.models.explanation import contributions

_EXAMPLE = 100
"""Items of a warm-up request's history, at most: a history of n items costs n + 1 answers."""


class Explain(Signature):
    """`contributions`, float32 [batch, length]: by how much the log-probability of `item`, string [batch], falls when
    that place of `history`, string [batch, length], is taken away.

    Of several places with one item the first has its contribution. The others, padding and ids that are not in the
    catalogue have 0, and so has every place for an `item` that is not in the catalogue. The item may stand in the
    history.
    """

    inputs = (
        tf.TensorSpec([None, None], tf.string, name="history"),
        tf.TensorSpec([None], tf.string, name="item"),
    )

    def __call__(self, history: tf.Tensor, item: tf.Tensor) -> dict[str, tf.Tensor]:
        target = tf.cast(self.model.column_of.lookup(item), tf.int32)
        columns = tf.cast(self.model.column_of.lookup(history), tf.int32)
        is_asked = (columns >= 0) & (target >= 0)[:, None]
        places = tf.where(is_asked)  # row by row
        rows, columns = places[:, 0], tf.cast(tf.gather_nd(columns, places), tf.int64)
        cells = rows * self.model.num_items + columns
        order = tf.argsort(cells, stable=True)  # of equal cells, the first place comes first
        cells = tf.gather(cells, order)
        is_first = tf.concat([tf.ones([1], tf.bool), cells[1:] != cells[:-1]], axis=0)[: tf.size(cells)]
        order = tf.boolean_mask(order, is_first)
        items, rows = (tf.cast(tf.gather(values, order), tf.int32) for values in (columns, rows))
        targets = tf.maximum(target, 0)[:, None]
        values = contributions(self.model.log_probs_of, items, rows, targets, self.model.num_items)[:, 0]
        shape = tf.shape(history, out_type=tf.int64)
        return {"contributions": tf.scatter_nd(tf.gather(places, order), values, shape)}

    @classmethod
    def example(cls, histories: Sequence[Sequence[str]]) -> dict[str, Any]:
        items = [history[0] if history else "" for history in histories]
        return {"history": messages.rectangle([history[:_EXAMPLE] for history in histories]), "item": items}
