"""The signatures of the SavedModel: from histories of raw item ids to scores, recommendations and embeddings.

A new signature is a subclass of `Signature` that is registered in `vae_cf_tf.registries.SIGNATURES`.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from export import filtering
from export.client import messages
from export.served_model import ServedModel


class Signature(abc.ABC):
    """A function of the SavedModel.

    Args:
      model: what it asks.
    """

    inputs: ClassVar[Sequence[tf.TensorSpec]]
    """Its arguments, in order, with their names."""

    def __init__(self, model: ServedModel):
        self.model = model

    @abc.abstractmethod
    def __call__(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """The outputs by their names. It is traced once, when the model is exported."""

    @classmethod
    @abc.abstractmethod
    def example(cls, histories: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Values of the inputs that ask about these histories of raw item ids, as in the warm-up requests."""


class OfHistories(Signature):
    """A signature whose input is `history`, string [batch, length], raw item ids.

    "" is padding. Ids that are not in the catalogue and repeats change nothing, and order does not matter.
    """

    inputs = (tf.TensorSpec([None, None], tf.string, name="history"),)

    @classmethod
    def example(cls, histories: Sequence[Sequence[str]]) -> dict[str, Any]:
        return {"history": messages.rectangle(histories)}


class Scores(OfHistories):
    """`scores`, float32 [batch, items]: log-probabilities of all items, in the order of item_ids.txt."""

    def __call__(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": self.model.log_probs(*self.model.known_items(history))}


class Recommend(OfHistories):
    """`item_ids`, string [batch, k], and `scores`, float32 [batch, k]: the best items that are not in the history."""

    def __call__(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.model.best_unseen(*self.model.known_items(history))


class RecommendFiltered(Signature):
    """As `Recommend`, under the request's rules (see `filtering.best_allowed`); and `unknown_ids`, int32 [batch]: how
    many distinct ids of a history the catalogue lacks."""

    inputs = (
        tf.TensorSpec([None, None], tf.string, name="history"),
        tf.TensorSpec([None, None], tf.string, name="candidates"),
        tf.TensorSpec([None, None], tf.string, name="exclude"),
        tf.TensorSpec([None], tf.bool, name="include_history"),
    )

    def __call__(
        self, history: tf.Tensor, candidates: tf.Tensor, exclude: tf.Tensor, include_history: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        ragged = tf.RaggedTensor.from_tensor
        rules = filtering.Rules(ragged(candidates), ragged(exclude), include_history)
        histories = ragged(history)
        unknown = filtering.unknown_ids(self.model, histories)
        return filtering.best_allowed(self.model, histories, rules) | {"unknown_ids": unknown}

    @classmethod
    def example(cls, histories: Sequence[Sequence[str]]) -> dict[str, Any]:
        """One history has candidates; several have none, so that the whole catalogue is ranked as well."""
        alone = len(histories) == 1
        rules = [messages.Rules(history if alone else (), history[:1], include_history=True) for history in histories]
        return messages.inputs_of("recommend_filtered", histories, rules)


class RecommendExamples(Signature):
    """As `Recommend`, for serialized tf.Examples, which need no padding: the bytes feature `history`, and optionally
    the rules of `RecommendFiltered`: `candidates` and `exclude`, bytes, and `include_history`, an int64 that is 0 or 1.
    """

    inputs = (tf.TensorSpec([None], tf.string, name="examples"),)

    def __call__(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.debugging.Assert(tf.reduce_all(_is_whole(examples)), ["A tf.Example was cut off."])
        ids = {name: tf.io.RaggedFeature(tf.string) for name in ("history", "candidates", "exclude")}
        include = {"include_history": tf.io.FixedLenFeature([], tf.int64, 0)}
        parsed = tf.io.parse_example(examples, ids | include)
        rules = filtering.Rules(parsed["candidates"], parsed["exclude"], parsed["include_history"] != 0)
        return filtering.best_allowed(self.model, parsed["history"], rules)

    @classmethod
    def example(cls, histories: Sequence[Sequence[str]]) -> dict[str, Any]:
        return {"examples": [messages.example(history) for history in histories]}


def _is_whole(examples: tf.Tensor) -> tf.Tensor:
    """Whether serialized tf.Examples, string [batch], have as many bytes as they say at their beginning: bool [batch].

    TensorFlow's parser does not compare the two. An example that is cut off between two features would be answered as
    one that lacks the others, such as `exclude`.
    """
    start = tf.cast(tf.io.decode_raw(examples, tf.uint8, fixed_length=6), tf.int64)  # field 1, and a varint: its length
    goes_on = tf.cast(start[:, 1:] >= 128, tf.int64)
    is_of_length = tf.math.cumprod(goes_on, axis=1, exclusive=True)  # int64 [batch, 5]
    length = tf.reduce_sum(is_of_length * (start[:, 1:] % 128) * [128**place for place in range(5)], axis=1)
    size = tf.cast(tf.strings.length(examples), tf.int64)
    return (start[:, 0] != 10) | (1 + tf.reduce_sum(is_of_length, axis=1) + length <= size)


class Embed(OfHistories):
    """`embedding`, float32 [batch, latent]: posterior means of all latent variables."""

    def __call__(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": self.model.embedding(*self.model.known_items(history))}
