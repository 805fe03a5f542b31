"""Similarities of items, by the model's answer, its item–item model or its decoder."""

import abc
from collections.abc import Callable

import tensorflow as tf

from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.blocks import Linear
from vae_cf_tf.models.hybrid import HybridModel
from vae_cf_tf.registries import SIMILARITIES

Scores = Callable[[tf.RaggedTensor], tf.Tensor]
"""From histories, int32 [batch, (items)], to numbers that rank the items, float [batch, items]."""
ColumnsOf = Callable[[Linear, tf.Tensor], tf.Tensor]
"""From a layer and some of its units, int32 [n], to their columns of its kernel, float32 [n, input_dim]."""
_CHUNK = 1024  # columns whose norms are computed at once


class Similarity(abc.ABC):
    """Likeness of all items to an item. A subclass has a line in `vae_cf_tf.registries`.

    Args:
      model: trained.
      log_probs: from histories to log-probabilities; None: the model. The export gives a function of its own graph.
      columns_of: reads columns of a layer's kernel; the export gives a function that reads the served kernel.

    Call arguments:
      histories: int32 [batch, (items)], of one item each; an empty one gets a defined answer.

    Returns:
      float [batch, items]: the higher, the more alike. The items of the histories are not masked.
    """

    title: str
    """What people read."""

    def __init__(
        self,
        model: Autoencoder | HybridModel,
        log_probs: Scores | None = None,
        columns_of: ColumnsOf = Linear.columns,
    ):
        self.model, self.log_probs, self.columns_of = model, log_probs or model, columns_of

    @classmethod
    def fits(cls, model: Autoencoder | HybridModel) -> bool:
        """Whether the model has what this needs."""
        return True

    @abc.abstractmethod
    def __call__(self, histories: tf.RaggedTensor) -> tf.Tensor: ...


class Answer(Similarity):
    """log p(item | a history of the one item): what the model recommends to a user of whom it knows that item."""

    title = "the model's answer"

    def __call__(self, histories: tf.RaggedTensor) -> tf.Tensor:
        return self.log_probs(histories)


class ItemItemRow(Similarity):
    """The item's row of the item–item model: its positive coefficients, then all other items by the model's answer.

    Log-probabilities are never positive, so they rank below all positive coefficients. Without them, items without a
    positive coefficient would be in the order of the catalogue: B may have few coefficients for an item, or none.
    """

    title = "the item–item model"

    @classmethod
    def fits(cls, model: Autoencoder | HybridModel) -> bool:
        return isinstance(model, HybridModel)

    def __call__(self, histories: tf.RaggedTensor) -> tf.Tensor:
        coefficients = self.model.item_item(histories)
        return tf.where(coefficients > 0, coefficients, self.log_probs(histories))


class DecoderCosine(Similarity):
    """Cosine of two items' columns of the decoder's last kernel.

    The last kernel alone is read, whatever the number of layers before it, and no bias: a bias is an item's
    popularity. A likelihood with several numbers for each item gives it as many columns, which count as one vector.
    An item whose columns are 0 is like none.
    """

    title = "the decoder's item vectors"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        network = self.model.network if isinstance(self.model, HybridModel) else self.model
        self.layer, self.num_items = network.decoder.output_layer, network.num_items
        self.outputs = self.layer.units // self.num_items
        norms = [
            tf.norm(tf.concat(self._vectors(tf.range(start, min(start + _CHUNK, self.num_items))), axis=1), axis=1)
            for start in range(0, self.num_items, _CHUNK)
        ]
        self.inverse_norms = tf.Variable(
            tf.math.divide_no_nan(1.0, tf.concat(norms, axis=0)), trainable=False, name="inverse_norms"
        )

    def __call__(self, histories: tf.RaggedTensor) -> tf.Tensor:
        items, batch = histories.values, tf.cast(histories.nrows(), tf.int32)
        inverse_norms = self.inverse_norms.read_value()
        scale = tf.gather(inverse_norms, items)[:, None]
        rows = histories.value_rowids()
        cosines = tf.zeros([batch, self.num_items])
        for number, vectors in enumerate(self._vectors(items)):
            of_histories = tf.math.unsorted_segment_sum(vectors * scale, rows, batch)  # [batch, input_dim]
            products = self.layer.product(of_histories)
            cosines += products[:, number * self.num_items : (number + 1) * self.num_items]
        return cosines * inverse_norms

    def _vectors(self, items: tf.Tensor) -> list[tf.Tensor]:
        """The columns of some items, float32 [n, input_dim] for each number that the likelihood takes of an item."""
        return [self.columns_of(self.layer, items + number * self.num_items) for number in range(self.outputs)]


def names(model: Autoencoder | HybridModel) -> list[str]:
    """The similarities that a model can have, the plainest first."""
    return [name for name in SIMILARITIES.names() if SIMILARITIES[name].fits(model)]
