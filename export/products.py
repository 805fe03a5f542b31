"""The matrix products of a served model: a request takes no more memory than its answer needs."""

from typing import Any

import keras
import tensorflow as tf

from vae_cf_tf.blocks import GaussianHeads, Linear
from vae_cf_tf.histories import Bags

WEIGHTS = {"float32": tf.float32, "bfloat16": tf.bfloat16}


class Product(tf.Module):
    """x W, with the kernel as the server holds it.

    Differs from `Linear.product` in that the rows of a history's items are summed where they lie: the gathered copy
    that a gradient needs would be 5 GB for a request of a hundred histories of 20,000 items. The kernel is read whole
    and never through the variable's own gather: after one of those TensorFlow copies the variable at each further read.

    Args:
      linear: the trained layer.
      dtype: of the kernel in the SavedModel.
    """

    def __init__(self, linear: Linear, dtype: tf.DType):
        super().__init__()
        self.kernel = linear.kernel.value if dtype == tf.float32 else tf.Variable(tf.cast(linear.kernel, dtype))

    def __call__(self, x: Any) -> tf.Tensor:
        kernel = self.kernel.read_value()
        if isinstance(x, Bags):
            return _summed(kernel, x)
        if isinstance(x, tuple) and isinstance(x[0], Bags):
            bags, rest = x
            return _summed(kernel, bags) + _matmul(rest, kernel[-rest.shape[-1] :])
        return _matmul(tf.concat(x, axis=-1) if isinstance(x, tuple) else x, kernel)


def for_serving(model: keras.Model, weights: str) -> None:
    """Turns a model into one that only predicts: served products, and no variances, which no prediction reads."""
    model.sparse_input = True  # a short history must not cost a row of the catalogue's length
    for layer in model._flatten_layers():
        if isinstance(layer, Linear):
            layer.product = Product(layer, WEIGHTS[weights])
        elif isinstance(layer, GaussianHeads):
            layer.log_variance = lambda h: tf.zeros([])


def _summed(kernel: tf.Tensor, bags: Bags) -> tf.Tensor:
    """Sum of the kernel's rows of each bag, float32 [batch, units]."""
    items, rows = bags.items.values, bags.items.value_rowids()
    batch = tf.cast(bags.items.nrows(), tf.int32)
    sums = tf.sparse.segment_sum(kernel, items, tf.cast(rows, tf.int32), num_segments=batch)
    return tf.cast(sums, tf.float32) * bags.scale[:, None]


def _matmul(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.matmul(x, kernel)
