"""Decoders: from latent variables to f, the parameters of the likelihood."""

from typing import Any

import keras
import tensorflow as tf

from vae_cf_tf.models.network import Network


@keras.saving.register_keras_serializable("vae_cf_tf")
class Decoder(Network):
    """p(x|z): latent_dim → L blocks of hidden_dim → `outputs` (Liang et al. 2018, equation 1).

    Args:
      outputs: numbers that the likelihood takes for a user: one or several for each item.
      shape: arguments of `Network`; layers may be 0.

    Call arguments:
      z: float [batch, latent_dim].
      some: int32 [n], the outputs that are asked for; None: all.

    Returns:
      f, float [batch, outputs] or [batch, n].

    Examples:
      >>> Decoder(5, hidden_dim=4, latent_dim=2, layers=0)(tf.ones([3, 2])).shape
      TensorShape([3, 5])
    """

    def __init__(self, outputs: int, **shape: Any):
        super().__init__(**shape)
        self.hidden = self.stack(self.latent_dim, [self.hidden_dim] * self.layers, "hidden")
        self.output_layer = self.output_of(self.hidden.output_dim, outputs)

    def call(self, z: tf.Tensor, some: tf.Tensor | None = None) -> tf.Tensor:
        h = self.hidden(z)
        return self.output_layer(h) if some is None else self.output_layer.some_units(h, some)


@keras.saving.register_keras_serializable("vae_cf_tf")
class JointDecoder(Network):
    """p(x|z1, z2): the decoder of the hierarchy (Kim & Suh 2019).

    Differs from `Decoder` in that it reads two latent variables: for L ≥ 2 through a block each, joined before the
    remaining L − 1 blocks; for L = 1 side by side, in one block; for L = 0 side by side, in the output layer. Arguments
    as `Decoder`.
    """

    def __init__(self, outputs: int, **shape: Any):
        super().__init__(**shape)
        hidden, layers = self.hidden_dim, self.layers
        first = [hidden] if layers > 1 else []
        self.from_z1 = self.stack(self.latent_dim, first, "from_z1")
        self.from_z2 = self.stack(self.latent_dim, first, "from_z2")
        self.joint = self.stack(2 * self.from_z1.output_dim, [hidden] * (layers - len(first)), "joint")
        self.output_layer = self.output_of(self.joint.output_dim, outputs)

    def call(self, z1: tf.Tensor, z2: tf.Tensor, some: tf.Tensor | None = None) -> tf.Tensor:
        h = self.joint((self.from_z1(z1), self.from_z2(z2)))
        return self.output_layer(h) if some is None else self.output_layer.some_units(h, some)
