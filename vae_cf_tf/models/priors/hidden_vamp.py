"""A VampPrior whose pseudo-inputs stand for outputs of the encoder's first block."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.batches import ragged
from vae_cf_tf.models.distributions import MixtureOfNormals
from vae_cf_tf.models.encoders import Encoder
from vae_cf_tf.models.histories import unit_norm
from vae_cf_tf.models.priors.base import Prior, PriorContext, PriorParts, unowned
from vae_cf_tf.settings import ModelSettings

tfd = tfp.distributions


class HiddenVampPrior(Prior):
    """p(z) = 1/K Σ_k q(z|h_k): a mixture of the encoder's posteriors at K learned outputs h_k of its first block.

    Differs from `VampPrior` in that a pseudo-input is a vector of hidden_dim numbers instead of a row of the catalogue.
    This saves K·items·hidden multiply-adds forward and twice that backward, which is the largest part of a step. The
    time no longer depends on the catalogue. A component is still a posterior of the encoder, but no history need have
    h_k as its first block's output. There is no input dropout on h_k.

    Args:
      encoder: its `after_first_block` gives mean and log-variance for h, float [K, hidden_dim].
      start: float [K, hidden_dim], the initial h.
    """

    title = "Vamp"

    def __init__(self, encoder: Encoder, start: tf.Tensor | np.ndarray, **kwargs):
        super().__init__(**kwargs)
        self._encode = unowned(encoder.after_first_block)
        self.pseudo_inputs = self.add_weight(
            shape=tuple(start.shape), initializer=lambda shape, dtype: start, name="pseudo_inputs"
        )
        self.built = True

    @classmethod
    def needs_users(cls, settings: ModelSettings) -> bool:
        return True

    @classmethod
    def from_settings(cls, settings: ModelSettings, parts: PriorParts) -> "HiddenVampPrior":
        if parts.users is None:
            start = np.zeros((parts.components, settings.hidden_dim), np.float32)
        else:
            start = parts.encoder.hidden.first(unit_norm(ragged(parts.users)))
        return cls(parts.encoder, start, name="prior")

    def distribution(self, context: PriorContext = PriorContext()) -> tfd.Distribution:  # noqa: B008
        return MixtureOfNormals(*self._encode(tf.convert_to_tensor(self.pseudo_inputs)))
