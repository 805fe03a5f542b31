"""A network with a linear item–item model beside it."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf.linear.base import RowBlock, SparseRowBlock
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.blocks import Linear
from vae_cf_tf.models.histories import ones

HALF_AT = 20
"""Items of a history at which the popularity discount is half of its largest. On ML-1M a discount of one size for all
histories lost as much with ten or fewer of a user's items as it gained with all of them: users of whom little is known
are served best by what is popular."""


@keras.saving.register_keras_serializable("vae_cf_tf")
class ItemItemLayer(keras.layers.Layer):
    """xB, and the popularity that is subtracted from it: B whole where it fits into `megabytes`, else as many of
    the largest coefficients of each row as fit.

    Args:
      num_items: size of the catalogue.
      megabytes: 10⁶ bytes that B may take.

    Call arguments:
      histories: int32 [batch, (items)].
      items: int32 [n], the columns that are asked for; None: all.

    Returns:
      xB, float [batch, num_items] or [batch, n].
    """

    def __init__(self, num_items: int, megabytes: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_items, frozen = num_items, {"initializer": "zeros", "trainable": False}
        self.whole = 4 * num_items**2 <= megabytes * 10**6
        if self.whole:
            self.b = Linear(num_items, num_items, "zeros", items=num_items, name="b")
            self.b.trainable = False
        else:
            capacity = int(megabytes * 10**6) // 8
            self.row_starts = self.add_weight(shape=(num_items + 1,), dtype="int32", name="row_starts", **frozen)
            self.columns = self.add_weight(shape=(capacity,), dtype="int32", name="columns", **frozen)
            self.coefficients = self.add_weight(shape=(capacity,), name="coefficients", **frozen)
        self.log_counts = self.add_weight(shape=(num_items,), name="log_counts", **frozen)
        self.built = True

    def call(self, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> tf.Tensor:
        if self.whole:
            return _of(items, self.b.product(ones(histories)))
        batch = tf.cast(histories.nrows(), tf.int32)
        starts, *of_rows = (tf.convert_to_tensor(v) for v in (self.row_starts, self.columns, self.coefficients))
        columns, coefficients = (tf.RaggedTensor.from_row_splits(v, starts, validate=False) for v in of_rows)

        def of_user(history: tf.Tensor) -> tf.Tensor:
            places, values = (tf.gather(t, history).values[None] for t in (columns, coefficients))
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

    def assign(self, blocks: Iterable[RowBlock | SparseRowBlock], train: sp.csr_matrix) -> None:
        """Sets B, and the items' numbers of training users.

        Where B is not kept whole, the places for coefficients are shared out by how many neighbours an item has.

        Args:
          blocks: B.
          train: the users that it was made of, [users, num_items].
        """
        self.log_counts.assign(np.log1p(np.bincount(train.indices, minlength=self.num_items)).astype(np.float32))
        if self.whole:
            whole = np.zeros((self.num_items, self.num_items), np.float32)
            for block in blocks:
                for item, columns, values in block.rows():
                    whole[item, columns] = values
            self.b.kernel.assign(whole)
            return
        starts = np.concatenate([[0], np.cumsum(shares(most_neighbours(train), self.columns.shape[0]))])
        kept_columns, coefficients = (np.zeros(v.shape, v.dtype) for v in (self.columns, self.coefficients))
        for block in blocks:
            for item, columns, values in block.rows():
                start, room = starts[item], min(starts[item + 1] - starts[item], len(columns))
                if room < len(columns):
                    largest = np.sort(np.argpartition(-np.abs(values), room)[:room])
                    columns, values = columns[largest], values[largest]
                kept_columns[start : start + room], coefficients[start : start + room] = columns, values
        self.row_starts.assign(starts.astype(np.int32))
        self.columns.assign(kept_columns)
        self.coefficients.assign(coefficients)


def _of(items: tf.Tensor | None, values: tf.Tensor) -> tf.Tensor:
    """The columns `items` of values, float […, num_items]; None: all."""
    return values if items is None else tf.gather(values, items, axis=-1)


def most_neighbours(train: sp.csr_matrix) -> np.ndarray:
    """How many other items share a user with each item, at most: int [items]."""
    others = train.T @ np.maximum(np.diff(train.indptr) - 1, 0)
    return np.minimum(others, train.shape[1] - 1).astype(np.int64)


def shares(wanted: np.ndarray, capacity: int) -> np.ndarray:
    """Places for each row, int [rows]: as many as it wants, but for those that want most, which get equally many. What
    is left is shared out evenly; no row has more places than there are rows.

    Args:
      wanted: int [rows].
      capacity: the sum of all places, at most.

    Examples:
      >>> shares(np.array([1, 9, 4, 8]), capacity=13).tolist()
      [1, 4, 4, 4]
    """
    ascending, rows = np.sort(wanted), len(wanted)
    before = np.cumsum(ascending) - ascending
    level = (capacity - before) // np.arange(rows, 0, -1)  # of each row and all that want more, if they share the rest
    cut = np.flatnonzero(level < ascending)
    places = np.minimum(wanted, level[cut[0]]) if len(cut) else wanted
    return np.minimum(places + (capacity - places.sum()) // rows, rows)


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
