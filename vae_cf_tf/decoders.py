"""Decoders: from latent variables to f, [batch, items], the parameters of the likelihood."""

import keras
import tensorflow as tf

from vae_cf_tf.blocks import GaussianHeads, Linear, Stack


class Decoder(keras.layers.Layer):
    """p(x|z): latent_dim → `layers` blocks of hidden_dim → num_items (Liang et al. 2018, equation 1).

    Args:
      num_items, hidden_dim, latent_dim: widths.
      layers: number of hidden blocks, 0 or more.
      block: "tanh" or "gated".
      initializer: "he" or "glorot".
      by_item: hold the output layer by item, so that a call for some items touches no others.

    Call arguments:
      items: int32 [n], those asked for; None: all.

    Returns:
      f, float [batch, num_items] or [batch, n].
    """

    def __init__(
        self,
        num_items: int,
        hidden_dim: int,
        latent_dim: int,
        layers: int,
        block: str,
        initializer: str,
        by_item: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden = Stack(latent_dim, [hidden_dim] * layers, block, initializer, name="hidden")
        self.output_layer = Linear(self.hidden.output_dim, num_items, initializer, by_unit=by_item, name="output")

    def call(self, z: tf.Tensor, items: tf.Tensor | None = None) -> tf.Tensor:
        return _output(self.output_layer, self.hidden(z), items)


class JointDecoder(keras.layers.Layer):
    """p(x|z1, z2): the decoder of the hierarchy (Kim & Suh 2019).

    Differs from `Decoder` in that it reads two latent variables: for L ≥ 2 through a block each, joined before the
    remaining L − 1 blocks; for L = 1 side by side, in one block; for L = 0 side by side, in the output layer. Arguments
    as `Decoder`.
    """

    def __init__(
        self,
        num_items: int,
        hidden_dim: int,
        latent_dim: int,
        layers: int,
        block: str,
        initializer: str,
        by_item: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        first = [hidden_dim] if layers > 1 else []
        self.from_z1 = Stack(latent_dim, first, block, initializer, name="from_z1")
        self.from_z2 = Stack(latent_dim, first, block, initializer, name="from_z2")
        joined = [hidden_dim] * (layers - 1 if layers > 1 else layers)
        self.joint = Stack(2 * self.from_z1.output_dim, joined, block, initializer, name="joint")
        self.output_layer = Linear(self.joint.output_dim, num_items, initializer, by_unit=by_item, name="output")

    def call(self, z1: tf.Tensor, z2: tf.Tensor, items: tf.Tensor | None = None) -> tf.Tensor:
        return _output(self.output_layer, self.joint((self.from_z1(z1), self.from_z2(z2))), items)


def _output(layer: Linear, h: tf.Tensor | tuple[tf.Tensor, ...], items: tf.Tensor | None) -> tf.Tensor:
    return layer(h) if items is None else layer.of_units(h, items)


class ConditionalPrior(keras.layers.Layer):
    """p(z1|z2) = N(μ(z2), diag σ²(z2)): latent_dim → L blocks of hidden_dim → heads (Kim & Suh 2019)."""

    def __init__(self, hidden_dim: int, latent_dim: int, layers: int, block: str, initializer: str, **kwargs):
        super().__init__(**kwargs)
        self.hidden = Stack(latent_dim, [hidden_dim] * layers, block, initializer, name="hidden")
        self.heads = GaussianHeads(hidden_dim, latent_dim, initializer, name="heads")

    def call(self, z2: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.heads(self.hidden(z2))
