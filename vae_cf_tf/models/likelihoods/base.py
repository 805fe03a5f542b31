"""What a likelihood is: a TFP distribution over multi-hot rows, made from the decoder's output."""

from typing import ClassVar

import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.histories import multi_hot
from vae_cf_tf.settings import ModelSettings

tfd = tfp.distributions


class Likelihood(tfd.Distribution):
    """p(x|z) of a user's items (Liang et al. 2018, section 2.1). A subclass has `_log_prob`, and may have the rest.

    Args:
      f: the decoder's output, float [batch, outputs·items].
      parameters: as of any TFP distribution.
      name: of the distribution.
    """

    outputs: ClassVar[int] = 1
    """Numbers that the likelihood takes for each item. With several, f holds all items' first numbers, then all their
    second ones, and so on."""

    def __init__(self, f: tf.Tensor, parameters: dict, name: str):
        self._f = tf.convert_to_tensor(f)
        super().__init__(
            dtype=self._f.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def from_settings(cls, f: tf.Tensor, settings: ModelSettings) -> "Likelihood":
        """The likelihood of the decoder's output."""
        return cls(f)  # type: ignore[call-arg]

    def _batch_shape(self):
        return self._f.shape[:-1]

    def _batch_shape_tensor(self):
        return tf.shape(self._f)[:-1]

    def _event_shape(self):
        return tf.TensorShape([self._f.shape[-1] // self.outputs])

    def _event_shape_tensor(self):
        return tf.shape(self._f)[-1:] // self.outputs

    def history_log_prob(self, histories: tf.RaggedTensor, weights: tf.Tensor | None = None) -> tf.Tensor:
        """log_prob of the rows of histories, int32 [batch, (items)]: float [batch].

        A row x is 1 at its items, or `weights`, float [items of the batch]. Only a likelihood with the trait "weights"
        in the registry gets these.
        """
        x = multi_hot(histories, self._f.shape[-1] // self.outputs, weights)
        return self.log_prob(tf.cast(x, self.dtype))

    def item_scores(self) -> tf.Tensor:
        """Numbers that rank the items, float [batch, items]: f, where there is one for each item.

        An item's depends on its own numbers in f only: a request with few candidates computes no others.
        """
        return self._f

    def item_log_probs(self) -> tf.Tensor:
        """Log-probability of each item to be the one chosen, if one is: float [batch, items], in the order of
        `item_scores`."""
        return tf.nn.log_softmax(self.item_scores())
