"""A network with a linear item–item model beside it."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vae_cf_tf.linear.base import RowBlock
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.blocks import Linear
from vae_cf_tf.models.histories import ones

HALF_AT = 20
"""Items of a history at which the popularity discount is half of its largest. On ML-1M a discount of one size for all
histories lost as much with ten or fewer of a user's items as it gained with all of them: users of whom little is known
are served best by what is popular."""


@keras.saving.register_keras_serializable("vae_cf_tf")
class ItemItemLayer(keras.layers.Layer):
    """xB, and the popularity that is subtracted from it: B whole where it fits into `megabytes`, else the largest
    coefficients of each row.

    Args:
      num_items: size of the catalogue.
      megabytes: 10⁶ bytes that B may take.

    Call arguments:
      histories: int32 [batch, (items)].
      items: int32 [n], the columns that are asked for; None: all.

    Returns:
      xB, float [batch, num_items] or [batch, n].
    """

    def __init__(self, num_items: int, megabytes: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_items, frozen = num_items, {"initializer": "zeros", "trainable": False}
        self.neighbours = min(num_items, max(1, megabytes * 10**6 // (8 * num_items)))
        self.whole = 4 * num_items**2 <= megabytes * 10**6
        if self.whole:
            self.b = Linear(num_items, num_items, "zeros", items=num_items, name="b")
            self.b.trainable = False
        else:
            shape = (num_items, self.neighbours)
            self.columns = self.add_weight(shape=shape, dtype="int32", name="columns", **frozen)
            self.coefficients = self.add_weight(shape=shape, name="coefficients", **frozen)
        self.log_counts = self.add_weight(shape=(num_items,), name="log_counts", **frozen)
        self.built = True

    def call(self, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> tf.Tensor:
        if self.whole:
            return _of(items, self.b.product(ones(histories)))
        batch = tf.cast(histories.nrows(), tf.int32)
        columns, coefficients = (tf.convert_to_tensor(v) for v in (self.columns, self.coefficients))

        def of_user(history: tf.Tensor) -> tf.Tensor:
            places, values = (tf.reshape(tf.gather(t, history), [1, -1]) for t in (columns, coefficients))
            sums = tf.raw_ops.DenseBincount(  # five times as fast as a segment sum, and in order where it has one row
                input=places, size=self.num_items, weights=values, binary_output=False
            )[0]
            return _of(items, sums)

        # User by user: memory by one history, and sums whose order does not depend on who else is in the batch.
        splits, values = tf.concat([histories.row_splits, histories.row_splits[-1:]], axis=0), histories.values
        turns = batch if items is None else tf.maximum(batch, 1)  # no rows of unknown width could not be stacked
        answer = tf.TensorSpec([self.num_items if items is None else None], coefficients.dtype)
        sums = tf.map_fn(
            lambda u: of_user(values[splits[u] : splits[u + 1]]), tf.range(turns), fn_output_signature=answer
        )
        return sums if items is None else sums[:batch]

    def popularity(self, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """|x|/(|x| + HALF_AT)·log(n + 1) of each history and each item, n its training users: [batch, num_items], or
        of some `items`, int32 [n]."""
        length = tf.cast(histories.row_lengths(), tf.float32)
        return (length / (length + HALF_AT))[:, None] * _of(items, tf.convert_to_tensor(self.log_counts))

    def assign(self, blocks: Iterator[RowBlock], counts: np.ndarray) -> None:
        """Sets B, and the items' numbers of training users, int [num_items]."""
        self.log_counts.assign(np.log1p(counts).astype(np.float32))
        if self.whole:
            whole = np.zeros((self.num_items, self.num_items), np.float32)
            for rows, columns, values in blocks:
                whole[np.ix_(rows, columns)] = values
            self.b.kernel.assign(whole)
            return
        kept_columns, coefficients = (np.zeros(v.shape, v.dtype) for v in (self.columns, self.coefficients))
        for rows, columns, values in blocks:
            kept = min(self.neighbours, len(columns))
            largest = np.sort(np.argpartition(-np.abs(values), kept - 1, axis=1)[:, :kept], axis=1)
            kept_columns[rows, :kept] = columns[largest]
            coefficients[rows, :kept] = np.take_along_axis(values, largest, axis=1)
        self.columns.assign(kept_columns)
        self.coefficients.assign(coefficients)


def _of(items: tf.Tensor | None, values: tf.Tensor) -> tf.Tensor:
    """The columns `items` of values, float […, num_items]; None: all."""
    return values if items is None else tf.gather(values, items, axis=-1)


@keras.saving.register_keras_serializable("vae_cf_tf")
class HybridModel(keras.Model):
    """log p(items) of a network + w·xB − τ·popularity: the two see different things (Vančura & Kordík 2021, VASP, train
    them as one).

    Here they are made in turn. A finished B fits its own training users far better than any others, so a decoder that
    is trained beside it would learn nothing from them. The network and the item–item model both encode popularity, so
    adding their scores counts it twice. The last term takes a share of it off: products of experts divide by what they
    share (Hinton 2002), and Menon et al. 2021, section 4, adjust logits by log priors.

    It answers as the network does (`call`, `scores`, `embed`), and is not trained itself.

    Args:
      network: trained.
      item_item: with its matrix.
      weight: w.
      discount: τ.
    """

    def __init__(
        self,
        network: Autoencoder,
        item_item: ItemItemLayer,
        weight: float = 0.0,
        discount: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.network, self.item_item = network, item_item
        frozen = {"shape": (), "initializer": "zeros", "trainable": False}
        self.weight, self.discount = (self.add_weight(name=n, **frozen) for n in ("weight", "discount"))
        self.weight.assign(weight)
        self.discount.assign(discount)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        serialized = {n: keras.saving.serialize_keras_object(getattr(self, n)) for n in ("network", "item_item")}
        return serialized | {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "HybridModel":
        layers = {n: keras.saving.deserialize_keras_object(config[n]) for n in ("network", "item_item")}
        return cls(**config | layers)

    @property
    def num_items(self) -> int:
        return self.network.num_items

    def call(self, histories: tf.RaggedTensor, training: bool = False) -> tf.Tensor:
        """Item log-probabilities, float [batch, num_items]; seen items are not masked."""
        return tf.nn.log_softmax(self.scores(histories))

    def scores(self, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """Numbers that rank the items as `call` does, float [batch, num_items]; or of some `items`, int32 [n]: [batch,
        n], which differ from those by one number a row."""
        network = self.network(histories) if items is None else self.network.scores(histories, items)
        popularity = self.item_item.popularity(histories, items)
        return network + (self.weight * self.item_item(histories, items) - self.discount * popularity)

    def embed(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """As the network's."""
        return self.network.embed(histories)
