"""The least that a request can take: the numbers that it must read and the multiply-adds of its products."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.blocks import Linear, products_by
from vae_cf_tf.models.histories import Bags


class Work(NamedTuple):
    """What a request has to do at least."""

    weights: int  # numbers of kernels that it reads once
    multiply_adds: int


def work_of(model: Autoencoder, histories: tf.RaggedTensor) -> Work:
    """Counts the work of scoring these histories by running the model once with products that only count.

    Args:
      model: with a sparse first layer, as a served one: of that kernel only the rows of the histories' items are read.
      histories: int32 [batch, (items)].
    """
    model(histories)  # at their first call Keras also traces the layers, which must not count
    weights = multiply_adds = 0

    def count(layer: Linear, x: Any) -> tf.Tensor:
        nonlocal weights, multiply_adds
        for part in x if isinstance(x, tuple) and not isinstance(x, Bags) else (x,):
            if isinstance(part, Bags):
                batch, distinct, terms = part.scale.shape[0], np.unique(part.items).size, part.items.shape[0]
            else:
                batch, distinct = part.shape
                terms = batch * distinct
            weights += distinct * layer.units
            multiply_adds += terms * layer.units
        return tf.zeros([batch, layer.units])

    with products_by(count):
        model(histories)
    return Work(weights, multiply_adds)
