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


def work_of(model: Autoencoder, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> Work:
    """Counts the work of scoring these histories by running the model once with products that only count.

    Args:
      model: with a sparse first layer, as a served one: of that kernel only the rows of the histories' items are read.
      histories: int32 [batch, (items)].
      items: int32 [n], the items that are scored; None: all.
    """
    model(histories)  # at their first call Keras also traces the layers, which must not count
    weights = multiply_adds = 0

    def count(layer: Linear, x: Any, units: tf.Tensor | None = None) -> tf.Tensor:
        nonlocal weights, multiply_adds
        width = layer.units if units is None else units.shape[0]
        for part in x if isinstance(x, tuple) and not isinstance(x, Bags) else (x,):
            if isinstance(part, Bags):
                batch, distinct, terms = part.scale.shape[0], np.unique(part.items).size, part.items.shape[0]
            else:
                batch, distinct = part.shape
                terms = batch * distinct
            weights += distinct * width
            multiply_adds += terms * width
        return tf.zeros([batch, width])

    with products_by(count):
        model.scores(histories, items)
    return Work(weights, multiply_adds)
