"""The standard normal prior."""

import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.distributions import diagonal_normal
from vae_cf_tf.models.priors.base import Prior, PriorContext, PriorParts
from vae_cf_tf.settings import ModelSettings

tfd = tfp.distributions


class StandardNormal(Prior):
    """p(z) = N(0, I) (Liang et al. 2018).

    Args:
      latent_dim: width of z.
    """

    def __init__(self, latent_dim: int, **kwargs):
        super().__init__(**kwargs)
        self.latent_dim = latent_dim

    @classmethod
    def from_settings(cls, settings: ModelSettings, parts: PriorParts) -> "StandardNormal":
        return cls(settings.latent_dim, name="prior")

    def distribution(self, context: PriorContext = PriorContext()) -> tfd.Distribution:  # noqa: B008
        zeros = tf.zeros([self.latent_dim])
        return diagonal_normal(zeros, zeros)
