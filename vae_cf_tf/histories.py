"""What the first layer sees of a batch of histories.

A history is a user's bag of items. A batch of them is a `tf.RaggedTensor` of item indices, int32 [batch, (items of the
user)], without repeats. The encoder reads x/‖x‖₂ with dropout (as Liang et al.'s code): every kept item of a
user has the same value, so a batch costs memory by its interactions until a layer asks for dense rows.
"""

from typing import NamedTuple

import tensorflow as tf


class Bags(NamedTuple):
    """Sparse rows in which all items of a row have one value: row b is `scale[b]` at `items[b]`, zero elsewhere."""

    items: tf.RaggedTensor  # int32 [batch, (kept items)]
    scale: tf.Tensor  # float32 [batch]


def keep_mask(shape: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Bernoulli(1 − rate) draws, bool of `shape`, a function of `seed` (int32 [2]) alone.

    Random words are cut into bytes, which is exact where 256·rate is whole (.5 is) and three times as fast as a uniform
    float per element; other rates use 16 bits, and are met to 2⁻¹⁷.
    """
    dtype, levels = (tf.uint8, 256) if (256 * rate).is_integer() else (tf.uint16, 65536)
    size = tf.reduce_prod(shape)
    words = tf.random.stateless_uniform([size // (4 // dtype.size) + 1], seed, minval=None, maxval=None, dtype=tf.int32)
    parts = tf.reshape(tf.bitcast(words, dtype), [-1])[:size]
    return tf.reshape(parts >= tf.cast(round(levels * rate), dtype), shape)


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """`x` with a share `rate` of its elements zeroed and the rest divided by 1 − rate."""
    if not rate:
        return x
    return tf.where(keep_mask(tf.shape(x), rate, seed), x * (1 / (1 - rate)), tf.zeros([], x.dtype))


def unit_norm(histories: tf.RaggedTensor, rate: float = 0.0, seed: tf.Tensor | None = None) -> Bags:
    """x/‖x‖₂ of each history, with dropout of its items at `rate`; an empty history stays empty."""
    lengths = tf.cast(histories.row_lengths(), tf.float32)
    scale = tf.math.rsqrt(tf.maximum(lengths, 1.0))  # [batch]
    if rate:
        kept = keep_mask(tf.shape(histories.values), rate, seed)
        histories = tf.ragged.boolean_mask(histories, histories.with_values(kept))
        scale /= 1 - rate
    return Bags(histories, scale)


def dense_rows(bags: Bags, num_items: int) -> tf.Tensor:
    """The rows written out: float32 [batch, num_items]."""
    rows = bags.items.value_rowids()
    indices = tf.stack([tf.cast(rows, bags.items.dtype), bags.items.values], axis=1)
    shape = [bags.items.nrows(out_type=bags.items.dtype), num_items]
    return tf.scatter_nd(indices, tf.gather(bags.scale, rows), shape)


def multi_hot(histories: tf.RaggedTensor, num_items: int) -> tf.Tensor:
    """The counts x: float32 [batch, num_items] of zeros and ones."""
    return dense_rows(Bags(histories, tf.ones([histories.nrows()])), num_items)
