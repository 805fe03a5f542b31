"""A network with a linear item–item model beside it."""

from typing import Any

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf.linear.base import ItemItemModel, largest, most_neighbours
from vae_cf_tf.linear.factors import LowRank
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.blocks import Linear
from vae_cf_tf.models.histories import ones

MAX_RANK = 256
"""Largest rank of the low-rank part. On amazon-book-wide, ranks from 100 to 1,024 rank almost equally well beside
item-kNN."""
HALF_AT = 20
"""History length at which the popularity discount is half of its largest value. For a short history, popular items are
the best recommendation. On ML-1M, a discount of one size gained with whole histories, and lost as much with histories
of ten items or fewer."""


@keras.saving.register_keras_serializable("vae_cf_tf")
class ItemItemLayer(keras.layers.Layer):
    """The product xB of histories x with an item–item matrix B, and the popularity term of `HybridModel`.

    All of B is stored if it fits into `megabytes`. Otherwise B = S + share·L. S has the largest coefficients of each
    row, as many as fit into half of the memory. L is of low rank, of the largest rank that fits into the other half, up
    to MAX_RANK: in a sparse log most pairs of items have no user in common, and so no coefficient in S.

    Args:
      num_items: size of the catalogue.
      megabytes: memory for B, in units of 10⁶ bytes.

    Call arguments:
      histories: int32 [batch, (items)], the columns of each history's items.
      items: int32 [n], the columns to return; None: all.

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
            capacity = int(megabytes * 10**6 / 2) // 8
            rank = max(1, min(MAX_RANK, int(megabytes * 10**6 / 2) // (8 * num_items)))
            self.encode = Linear(num_items, rank, "zeros", items=num_items, name="encode")
            self.decode = Linear(rank, num_items, "zeros", units_are_items=True, name="decode")
            self.encode.trainable = self.decode.trainable = False
            self.share = self.add_weight(shape=(), name="share", **frozen)
            self.row_starts = self.add_weight(shape=(num_items + 1,), dtype="int32", name="row_starts", **frozen)
            self.columns = self.add_weight(shape=(capacity,), dtype="int32", name="columns", **frozen)
            self.coefficients = self.add_weight(shape=(capacity,), name="coefficients", **frozen)
        self.log_counts = self.add_weight(shape=(num_items,), name="log_counts", **frozen)
        self.built = True

    @property
    def rank(self) -> int:
        """Rank of L; 0 where B is stored whole."""
        return 0 if self.whole else self.encode.units

    def call(self, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> tf.Tensor:
        if self.whole:
            return self.by_rows(histories, items)
        return self.by_rows(histories, items) + self.share * self.by_factors(histories, items)

    def by_factors(self, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """xL, as `call` returns xB."""
        encoded = self.encode.product(ones(histories))
        return self.decode(encoded) if items is None else self.decode.some_units(encoded, items)  # a bias of zeros

    def by_rows(self, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """xS, as `call` returns xB; S is B where B is stored whole."""
        if self.whole:
            return _of(items, self.b.product(ones(histories)))
        batch = tf.cast(histories.nrows(), tf.int32)
        starts, *of_rows = (tf.convert_to_tensor(v) for v in (self.row_starts, self.columns, self.coefficients))
        columns, coefficients = (tf.RaggedTensor.from_row_splits(v, starts, validate=False) for v in of_rows)

        def of_user(history: tf.Tensor) -> tf.Tensor:
            neighbours, values = (tf.gather(t, history).values[None] for t in (columns, coefficients))
            # Five times as fast as a segment sum. With a single row it adds in a fixed order.
            sums = tf.raw_ops.DenseBincount(input=neighbours, size=self.num_items, weights=values, binary_output=False)
            return _of(items, sums[0])

        # User by user: memory for one history only, and a sum whose order does not depend on the rest of the batch.
        splits, values = tf.concat([histories.row_splits, histories.row_splits[-1:]], axis=0), histories.values
        # map_fn cannot stack zero rows of unknown width, so an empty batch computes one row, which is cut off below.
        rows = batch if items is None else tf.maximum(batch, 1)
        row_spec = tf.TensorSpec([self.num_items if items is None else None], coefficients.dtype)
        sums = tf.map_fn(
            lambda u: of_user(values[splits[u] : splits[u + 1]]), tf.range(rows), fn_output_signature=row_spec
        )
        return sums if items is None else sums[:batch]

    def popularity(self, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """|x|/(|x| + HALF_AT)·log(c_i + 1) for each history x and item i; c_i is the number of i's training users.

        Args:
          histories: int32 [batch, (items)].
          items: int32 [n], the columns to return; None: all.

        Returns:
          float [batch, num_items] or [batch, n].
        """
        length = tf.cast(histories.row_lengths(), tf.float32)
        return (length / (length + HALF_AT))[:, None] * _of(items, tf.convert_to_tensor(self.log_counts))

    def assign_factors(self, low_rank: LowRank) -> None:
        """Sets L, whose rank is `rank`."""
        self.encode.kernel.assign(low_rank.encoder)
        self.decode.kernel.assign(low_rank.decoder.T)

    def fit(self, model: ItemItemModel, train: sp.csr_matrix) -> None:
        """Fits the model and sets S, and each item's number of training users.

        If only a part of S is stored, `shares` decides from the items' numbers of neighbours how much of each row.

        Args:
          model: gives S.
          train: [users, num_items].
        """
        self.log_counts.assign(np.log1p(np.bincount(train.indices, minlength=self.num_items)).astype(np.float32))
        if self.whole:
            whole = np.zeros((self.num_items, self.num_items), np.float32)
            for block in model.fit(train, np.full(self.num_items, self.num_items)):
                for item, columns, values in block.rows():
                    whole[item, columns] = values
            self.b.kernel.assign(whole)
            return
        places = shares(most_neighbours(train), self.columns.shape[0])
        starts = np.concatenate([[0], np.cumsum(places)])
        all_columns, coefficients = (np.zeros(v.shape, v.dtype) for v in (self.columns, self.coefficients))
        for block in model.fit(train, places):
            for item, columns, values in block.rows():
                kept = largest(np.abs(values), places[item])
                stored = slice(starts[item], starts[item] + len(kept))
                all_columns[stored], coefficients[stored] = columns[kept], values[kept]
        self.row_starts.assign(starts.astype(np.int32))
        self.columns.assign(all_columns)
        self.coefficients.assign(coefficients)


def _of(items: tf.Tensor | None, values: tf.Tensor) -> tf.Tensor:
    """The columns `items`, int32 [n], of `values`, float […, num_items]; None: all columns."""
    return values if items is None else tf.gather(values, items, axis=-1)


def shares(wanted: np.ndarray, capacity: int) -> np.ndarray:
    """The number of coefficients to store for each row of B, int [rows].

    A row gets as many as it wants, up to a limit that is the same for all rows. What is then left of the capacity
    is divided evenly. No row gets more coefficients than B has columns.

    Args:
      wanted: int [rows].
      capacity: upper limit of the sum over rows.

    Examples:
      >>> shares(np.array([1, 9, 4, 8]), capacity=13).tolist()
      [1, 4, 4, 4]
    """
    ascending, rows = np.sort(wanted), len(wanted)
    before = np.cumsum(ascending) - ascending
    # The equal share of this row and of all rows that want more, after the others got what they want.
    level = (capacity - before) // np.arange(rows, 0, -1)
    cut = np.flatnonzero(level < ascending)
    places = np.minimum(wanted, level[cut[0]]) if len(cut) else wanted
    return np.minimum(places + (capacity - places.sum()) // rows, rows)


@keras.saving.register_keras_serializable("vae_cf_tf")
class HybridModel(keras.Model):
    """Scores items by log p(items) of a network + w·xB − τ·popularity, where B is an item–item matrix.

    VASP (Vančura & Kordík 2021) trains a network and an item–item model jointly. Here each is trained alone. B fits its
    training users far better than other users, so a decoder trained with B would learn nothing from training users.

    The network and the item–item model both encode popularity, so adding their scores counts it twice. The last term
    subtracts a part of it: a product of experts divides by what the experts share (Hinton 2002), and Menon et al. 2021,
    section 4, adjust logits by log priors.

    The methods `call`, `scores` and `embed` are those of the network. A HybridModel itself is not trained.

    Args:
      network: the trained network.
      item_item: the layer that holds B.
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
        """Scores that rank the items as `call` does.

        Args:
          histories: int32 [batch, (items)].
          items: int32 [n], the columns to score; None: all.

        Returns:
          float [batch, num_items], or [batch, n]; the latter differs from the former's columns by a constant per row.
        """
        network = self.network(histories) if items is None else self.network.scores(histories, items)
        popularity = self.item_item.popularity(histories, items)
        return network + (self.weight * self.item_item(histories, items) - self.discount * popularity)

    def embed(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """The network's posterior means, float [batch, latent]."""
        return self.network.embed(histories)
