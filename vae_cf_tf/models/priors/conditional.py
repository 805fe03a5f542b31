"""The prior of the hierarchy's lower latent variable."""

from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.blocks import GaussianHeads, Stack
from vae_cf_tf.models.distributions import diagonal_normal
from vae_cf_tf.models.priors.base import Prior, PriorContext

tfd = tfp.distributions


@keras.saving.register_keras_serializable("vae_cf_tf")
class ConditionalPrior(Prior):
    """p(z1|z2) = N(μ(z2), diag σ²(z2)): latent_dim → L blocks of hidden_dim → heads (Kim & Suh 2019).

    Args:
      hidden_dim, latent_dim: widths.
      layers: L.
      block: "tanh" or "gated".
      initializer: as `Linear`.
    """

    def __init__(self, hidden_dim: int, latent_dim: int, layers: int, block: str, initializer: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden = Stack(latent_dim, [hidden_dim] * layers, block, initializer, name="hidden")
        self.heads = GaussianHeads(hidden_dim, latent_dim, initializer, name="heads")

    def call(self, z2: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.heads(self.hidden(z2))

    def distribution(self, context: PriorContext = PriorContext()) -> tfd.Distribution:  # noqa: B008
        return diagonal_normal(*self(context.z2))
