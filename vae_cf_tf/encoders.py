"""Encoders: the variational posteriors q(z|x) and q(z1|x, z2), and the deterministic code of an autoencoder."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.blocks import STACKS, GaussianHeads
from vae_cf_tf.distributions import diagonal_normal
from vae_cf_tf.histories import Bags

tfd = tfp.distributions


class Encoder(keras.layers.Layer):
    """q(z|x) = N(μ(x), diag σ²(x)): num_items → L blocks of hidden_dim → heads (Liang et al. 2018, section 2.2).

    Args:
      num_items, hidden_dim, latent_dim: widths.
      layers: L ≥ 1.
      block: "tanh" or "gated".
      initializer: "he" or "glorot".
      skips: "none", or "dense" for dense skips and LayerNorm.

    Call arguments:
      x: `Bags` or float [batch, num_items], normalised and dropped out already.

    Returns:
      Mean and log-variance, float [batch, latent_dim] each.
    """

    def __init__(
        self,
        num_items: int,
        hidden_dim: int,
        latent_dim: int,
        layers: int,
        block: str,
        initializer: str,
        skips: str = "none",
        **kwargs,
    ):
        super().__init__(**kwargs)
        units = [hidden_dim] * layers
        self.hidden = STACKS[skips](num_items, units, block, initializer, items=num_items, name="hidden")
        self.heads = GaussianHeads(hidden_dim, latent_dim, initializer, name="heads")

    def call(self, x: tf.Tensor | Bags) -> tuple[tf.Tensor, tf.Tensor]:
        return self.heads(self.hidden(x))

    def mean(self, x: tf.Tensor | Bags) -> tf.Tensor:
        """μ(x) alone, which is all that a prediction reads."""
        return self.heads.mean(self.hidden(x))

    def posterior(self, x: tf.Tensor | Bags) -> tfd.Distribution:
        return diagonal_normal(*self(x))

    def after_first_block(self, h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and log-variance for h, float [rows, hidden_dim], in place of what the first block makes of x."""
        return self.heads(self.hidden.after_first(h))


class ConditionalEncoder(keras.layers.Layer):
    """q(z1|x, z2): the lower posterior of the hierarchy (Kim & Suh 2019).

    Differs from `Encoder` in that it reads z2 too: for L ≥ 2 through a block of its own, joined with that of x before
    the remaining L − 1 blocks; for L = 1 beside x, in one block; for L = 0 beside x, in the heads. It shares no weights
    with q(z2|x), unless x is the last hidden block of that. Arguments as `Encoder`, but:

    Args:
      input_dim: width of x.
      items: how many of the first inputs are items: all of x, or none.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        latent_dim: int,
        layers: int,
        block: str,
        initializer: str,
        skips: str = "none",
        items: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if layers <= 1:
            self.from_x = self.from_z2 = None
            units = [hidden_dim] * layers
            self.joint = STACKS[skips](input_dim + latent_dim, units, block, initializer, items=items, name="joint")
        else:
            self.from_x = STACKS[skips](input_dim, [hidden_dim], block, initializer, items=items, name="from_x")
            self.from_z2 = STACKS[skips](latent_dim, [hidden_dim], block, initializer, name="from_z2")
            self.joint = STACKS[skips](2 * hidden_dim, [hidden_dim] * (layers - 1), block, initializer, name="joint")
        self.heads = GaussianHeads(self.joint.output_dim, latent_dim, initializer, name="heads")

    def call(self, x: tf.Tensor | Bags, z2: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.heads(self._hidden(x, z2))

    def mean(self, x: tf.Tensor | Bags, z2: tf.Tensor) -> tf.Tensor:
        """μ(x, z2) alone."""
        return self.heads.mean(self._hidden(x, z2))

    def _hidden(self, x: tf.Tensor | Bags, z2: tf.Tensor) -> tf.Tensor | tuple[tf.Tensor, ...]:
        pair = (x, z2) if self.from_x is None else (self.from_x(x), self.from_z2(z2))
        return self.joint(pair)

    def posterior(self, x: tf.Tensor | Bags, z2: tf.Tensor) -> tfd.Distribution:
        return diagonal_normal(*self(x, z2))


class Code(keras.layers.Layer):
    """The bottleneck of a denoising autoencoder: num_items → L − 1 blocks of hidden_dim → a block of latent_dim.

    Differs from `Encoder` in that it is a point and not a distribution. L = 1 is Mult-DAE's M → 200. Arguments as
    `Encoder`; returns float [batch, latent_dim].
    """

    def __init__(
        self,
        num_items: int,
        hidden_dim: int,
        latent_dim: int,
        layers: int,
        block: str,
        initializer: str,
        skips: str = "none",
        **kwargs,
    ):
        super().__init__(**kwargs)
        units = [hidden_dim] * (layers - 1) + [latent_dim]
        self.hidden = STACKS[skips](num_items, units, block, initializer, items=num_items, name="hidden")

    def call(self, x: tf.Tensor | Bags) -> tf.Tensor:
        return self.hidden(x)
