"""By how much a score falls when an item of the history is left out."""

from collections.abc import Callable

import tensorflow as tf

from vae_cf_tf.models.histories import rows_of

SCORES, HISTORIES = 2_000_000, 128
"""Scores and histories that are held at once, at most (but one history at least)."""


def contributions(
    log_probs: Callable[[tf.RaggedTensor], tf.Tensor],
    items: tf.Tensor,
    rows: tf.Tensor,
    targets: tf.Tensor,
    num_items: int,
) -> tf.Tensor:
    """log p(target | history) − log p(target | history without the item), for each item of each history.

    Exact: the model answers every history anew without each of its items (Zeiler & Fergus 2014 call it occlusion).
    Histories of n items need n + 1 answers of the model. They are computed chunk by chunk, so that memory does not grow
    with n.

    Args:
      log_probs: from histories, int32 [batch, (items)], to log-probabilities, float [batch, num_items].
      items, rows: int32 [n], the distinct items of the histories, row by row, and the batch row of each.
      targets: int32 [batch, t], the items whose scores are explained.
      num_items: size of the catalogue.

    Returns:
      float32 [n, t], for each of `items` and the targets of its row.
    """
    at_once = max(1, min(HISTORIES, SCORES // num_items))
    batch, size = tf.shape(targets)[0], tf.size(items)
    lengths = tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, batch)
    starts = tf.cumsum(lengths, exclusive=True)
    # What the model is asked: each history whole, then each without one of its items.
    owners = tf.concat([tf.range(batch), rows], axis=0)
    left_out = tf.concat([tf.fill([batch], -1), tf.range(size)], axis=0)

    def add(start: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        owner, without = owners[start : start + at_once], left_out[start : start + at_once]
        begin = tf.gather(starts, owner)
        places = tf.ragged.range(begin, begin + tf.gather(lengths, owner), row_splits_dtype=tf.int32)
        row = rows_of(places)
        kept = tf.where(places.values != tf.gather(without, row))[:, 0]
        row, place = tf.gather(row, kept), tf.gather(places.values, kept)
        histories = tf.RaggedTensor.from_value_rowids(tf.gather(items, place), row, tf.size(owner), validate=False)
        found = tf.gather(log_probs(histories), tf.gather(targets, owner), batch_dims=1)  # [histories, t]
        return start + at_once, tf.concat([scores, found], axis=0)

    _, scores = tf.while_loop(
        lambda start, _: start < batch + size,
        add,
        (tf.constant(0), tf.zeros([0, targets.shape[1]])),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, targets.shape[1]])),
        parallel_iterations=1,
    )
    return tf.gather(scores[:batch], rows) - scores[batch:]
