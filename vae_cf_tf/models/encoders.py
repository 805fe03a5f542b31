"""Encoders: the variational posteriors q(z|x) and q(z1|x, z2), and the bottleneck of a denoising autoencoder."""

from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.blocks import Stack
from vae_cf_tf.models.distributions import diagonal_normal
from vae_cf_tf.models.histories import Bags
from vae_cf_tf.models.network import Network

tfd = tfp.distributions


@keras.saving.register_keras_serializable("vae_cf_tf")
class Encoder(Network):
    """q(z|x) = N(μ(x), diag σ²(x)): num_items → L blocks of hidden_dim → heads (Liang et al. 2018, section 2.2).

    Args:
      num_items: size of the catalogue.
      shape: arguments of `Network`.

    Call arguments:
      x: `Bags` or float [batch, num_items], normalised and dropped out already.

    Returns:
      Mean and log-variance, float [batch, latent_dim] each.

    Examples:
      >>> mean, log_variance = Encoder(5, hidden_dim=4, latent_dim=2)(tf.ones([3, 5]))
      >>> mean.shape
      TensorShape([3, 2])
    """

    def __init__(self, num_items: int, **shape: Any):
        super().__init__(**shape)
        self.hidden = self.stack(num_items, [self.hidden_dim] * self.layers, "hidden", items=num_items)
        self.heads = self.gaussian_heads(self.hidden_dim)

    def call(self, x: tf.Tensor | Bags) -> tuple[tf.Tensor, tf.Tensor]:
        return self.heads(self.hidden(x))

    def mean(self, x: tf.Tensor | Bags) -> tf.Tensor:
        """μ(x), which is all that a prediction reads."""
        return self.heads.mean(self.hidden(x))

    def posterior(self, x: tf.Tensor | Bags) -> tfd.Distribution:
        return diagonal_normal(*self(x))

    def after_first_block(self, h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and log-variance, float [rows, latent_dim] each, for the first block's output h, [rows, hidden_dim]."""
        return self.heads(self.hidden.after_first(h))


@keras.saving.register_keras_serializable("vae_cf_tf")
class ConditionalEncoder(Network):
    """q(z1|x, z2): the lower posterior of the hierarchy (Kim & Suh 2019).

    Differs from `Encoder` in that it reads z2 too: for L ≥ 2 through a block of its own, joined with that of x before
    the remaining L − 1 blocks; for L = 1 beside x, in one block; for L = 0 beside x, in the heads. It shares no weights
    with q(z2|x), unless x is the last hidden block of that.

    Args:
      input_dim: width of x.
      items: how many of the inputs are items: all of x, or none.
      shape: arguments of `Network`; layers may be 0.

    Call arguments:
      x: as `Encoder`, or float [batch, input_dim].
      z2: float [batch, latent_dim].
    """

    def __init__(self, input_dim: int, items: int = 0, **shape: Any):
        super().__init__(**shape)
        hidden, layers = self.hidden_dim, self.layers
        if layers <= 1:
            self.from_x: Stack | None = None
            self.joint = self.stack(input_dim + self.latent_dim, [hidden] * layers, "joint", items=items)
        else:
            self.from_x = self.stack(input_dim, [hidden], "from_x", items=items)
            self.from_z2 = self.stack(self.latent_dim, [hidden], "from_z2")
            self.joint = self.stack(2 * hidden, [hidden] * (layers - 1), "joint")
        self.heads = self.gaussian_heads(self.joint.output_dim)

    def call(self, x: tf.Tensor | Bags, z2: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.heads(self._hidden(x, z2))

    def mean(self, x: tf.Tensor | Bags, z2: tf.Tensor) -> tf.Tensor:
        """μ(x, z2)."""
        return self.heads.mean(self._hidden(x, z2))

    def posterior(self, x: tf.Tensor | Bags, z2: tf.Tensor) -> tfd.Distribution:
        return diagonal_normal(*self(x, z2))

    def _hidden(self, x: tf.Tensor | Bags, z2: tf.Tensor) -> tf.Tensor | tuple[tf.Tensor, ...]:
        pair = (x, z2) if self.from_x is None else (self.from_x(x), self.from_z2(z2))
        return self.joint(pair)


@keras.saving.register_keras_serializable("vae_cf_tf")
class Bottleneck(Network):
    """The encoder of a denoising autoencoder: num_items → L − 1 blocks of hidden_dim → a block of latent_dim.

    Differs from `Encoder` in that its result is a point and not a distribution. L = 1 is Mult-DAE's M → 200. Arguments
    as `Encoder`; returns float [batch, latent_dim].
    """

    def __init__(self, num_items: int, **shape: Any):
        super().__init__(**shape)
        units = [self.hidden_dim] * (self.layers - 1) + [self.latent_dim]
        self.hidden = self.stack(num_items, units, "hidden", items=num_items)

    def call(self, x: tf.Tensor | Bags) -> tf.Tensor:
        return self.hidden(x)
