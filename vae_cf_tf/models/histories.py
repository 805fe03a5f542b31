"""What the first layer sees of a batch of histories.

A history is a user's bag of items. A batch of them is a `tf.RaggedTensor` of item indices, int32 [batch, (items of the
user)], without repeats. The encoder reads x/‖x‖₂ with dropout (as Liang et al.'s code). All kept items of a user have
the same value, so a batch takes memory by its interactions until a layer asks for dense rows.
"""

from typing import NamedTuple

import tensorflow as tf

from vae_cf_tf.models import replicas


class Bags(NamedTuple):
    """Sparse rows in which all items of a row have one value: row b is `scale[b]` at its items, zero elsewhere."""

    items: tf.Tensor  # int32 [kept items of the batch]
    rows: tf.Tensor  # int32 [kept items of the batch]: the row of each, ascending
    scale: tf.Tensor  # float32 [batch]


def of_int32(histories: tf.RaggedTensor) -> tf.RaggedTensor:
    """The same histories with item indices of int32, as all else here takes them."""
    return histories if histories.dtype == tf.int32 else tf.cast(histories, tf.int32)


def rows_of(histories: tf.RaggedTensor) -> tf.Tensor:
    """The row of each of histories.values: int32 [items of the batch].

    It is the number of rows that begin there or before, less 1. `value_rowids()` goes through a mask of
    [batch, longest history], which takes ten times as long for 500 users of ML-20M.
    """
    splits, items = tf.cast(histories.row_splits, tf.int32), tf.size(histories.values)
    begin = tf.math.unsorted_segment_sum(tf.ones_like(splits), splits, items + 1)
    return tf.cumsum(begin)[:items] - 1


def total_weights(histories: tf.RaggedTensor, weights: tf.Tensor | None) -> tf.Tensor:
    """For each history the sum of its `weights`, float [items of the batch]; None: its length. Float [batch]."""
    if weights is None:
        return tf.cast(histories.row_lengths(), tf.float32)
    return tf.math.unsorted_segment_sum(weights, rows_of(histories), tf.cast(histories.nrows(), tf.int32))


def keep_mask(shape: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Bernoulli(1 − rate) draws, bool of `shape`, a function of `seed` (int32 [2]) alone.

    Random words are cut into bytes, which is exact where 256·rate is whole (.5 is) and three times as fast as a uniform
    float per element. Other rates use 16 bits and are met to 2⁻¹⁷.
    """
    dtype, levels = (tf.uint8, 256) if (256 * rate).is_integer() else (tf.uint16, 65536)
    size = tf.reduce_prod(tf.cast(shape, tf.int64))  # K × items can be 2³¹ and more
    words = tf.random.stateless_uniform([size // (4 // dtype.size) + 1], seed, minval=None, maxval=None, dtype=tf.int32)
    parts = tf.reshape(tf.bitcast(words, dtype), [-1])[:size]
    return tf.reshape(parts >= tf.cast(round(levels * rate), dtype), shape)


def unit_norm(histories: tf.RaggedTensor, rate: float = 0.0, seed: tf.Tensor | None = None) -> Bags:
    """x/‖x‖₂ of each history, with dropout of its items at `rate`; an empty history stays empty."""
    lengths = tf.cast(histories.row_lengths(), tf.float32)
    scale = tf.math.rsqrt(tf.maximum(lengths, 1.0))  # [batch]
    items, rows = histories.values, rows_of(histories)
    if rate:
        mask = replicas.current().of_items(lambda n: keep_mask(n[None], rate, seed), tf.size(items))
        kept = tf.where(mask)[:, 0]
        items, rows = tf.gather(items, kept), tf.gather(rows, kept)
        scale /= 1 - rate
    return Bags(items, rows, scale)


def ones(histories: tf.RaggedTensor) -> Bags:
    """The counts x as sparse rows."""
    return Bags(histories.values, rows_of(histories), tf.ones([histories.nrows()]))


def dense_rows(bags: Bags, num_items: int) -> tf.Tensor:
    """The rows written out: float32 [batch, num_items]."""
    indices = tf.stack([bags.rows, bags.items], axis=1)
    return tf.scatter_nd(indices, tf.gather(bags.scale, bags.rows), [tf.size(bags.scale), num_items])


def multi_hot(histories: tf.RaggedTensor, num_items: int, weights: tf.Tensor | None = None) -> tf.Tensor:
    """The counts x: float32 [batch, num_items] of zeros and ones, or of `weights`, float [items of the batch]."""
    if weights is not None:
        indices = tf.stack([rows_of(histories), histories.values], axis=1)
        return tf.scatter_nd(indices, weights, [tf.cast(histories.nrows(), tf.int32), num_items])
    return dense_rows(ones(histories), num_items)
