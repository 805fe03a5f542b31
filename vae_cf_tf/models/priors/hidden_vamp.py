"""A VampPrior whose pseudo-inputs lie behind the encoder's first block."""

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
    """p(z) = 1/K Σ_k q(z|h_k): a mixture of the encoder's posteriors at K learned points behind its first block.

    Differs from `VampPrior` in that a pseudo-input is a vector of hidden_dim numbers instead of a row of the catalogue.
    K·items·hidden multiply-adds forward and twice that backward, the largest part of a step, are gone, and the cost no
    longer depends on the catalogue. A component is still a posterior of the encoder, but of a point that need not be
    the image of any history. It sees no input dropout.

    Args:
      encoder: gives mean and log-variance for what its first block makes of histories, float [K, hidden_dim].
      start: float [K, hidden_dim], to start from.
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
