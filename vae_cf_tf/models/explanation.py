"""How much a log-probability falls when one item of the history is left out."""

from collections.abc import Callable

import tensorflow as tf

from vae_cf_tf.models.histories import rows_of

SCORES, HISTORIES = 2_000_000, 128
"""Upper limits of a chunk: how many scores and how many histories it holds. It has at least one history."""


def contributions(
    log_probs: Callable[[tf.RaggedTensor], tf.Tensor],
    items: tf.Tensor,
    rows: tf.Tensor,
    targets: tf.Tensor,
    num_items: int,
) -> tf.Tensor:
    """log p(target | history) − log p(target | history without the item), for each item of each history.

    Exact: the model is evaluated on the history without the item (occlusion, Zeiler & Fergus 2014). A history of n
    items takes n + 1 evaluations. They are done in chunks, so that memory does not grow with n.

    Args:
      log_probs: maps histories, int32 [batch, (items)], to log-probabilities, float [batch, num_items].
      items, rows: int32 [n] each: the distinct items of all histories, row by row, and the batch row of each.
      targets: int32 [batch, t], the items whose scores are explained.
      num_items: size of the catalogue.

    Returns:
      float32 [n, t]: for each of `items`, its contributions to the targets of its row.
    """
    at_once = max(1, min(HISTORIES, SCORES // num_items))
    batch, size = tf.shape(targets)[0], tf.size(items)
    lengths = tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, batch)
    starts = tf.cumsum(lengths, exclusive=True)
    # The evaluations: first each whole history, then for each of `items` its history without it. For each evaluation,
    # `owners` has the batch row, and `left_out` the index of the item in `items`, or −1.
    owners = tf.concat([tf.range(batch), rows], axis=0)
    left_out = tf.concat([tf.fill([batch], -1), tf.range(size)], axis=0)

    def add(start: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        owner, without = owners[start : start + at_once], left_out[start : start + at_once]
        begin = tf.gather(starts, owner)
        indices = tf.ragged.range(begin, begin + tf.gather(lengths, owner), row_splits_dtype=tf.int32)
        row = rows_of(indices)
        kept = tf.where(indices.values != tf.gather(without, row))[:, 0]
        row, index = tf.gather(row, kept), tf.gather(indices.values, kept)
        histories = tf.RaggedTensor.from_value_rowids(tf.gather(items, index), row, tf.size(owner), validate=False)
        of_targets = tf.gather(log_probs(histories), tf.gather(targets, owner), batch_dims=1)  # [histories, t]
        return start + at_once, tf.concat([scores, of_targets], axis=0)

    _, scores = tf.while_loop(
        lambda start, _: start < batch + size,
        add,
        (tf.constant(0), tf.zeros([0, targets.shape[1]])),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, targets.shape[1]])),
        parallel_iterations=1,
    )
    return tf.gather(scores[:batch], rows) - scores[batch:]
