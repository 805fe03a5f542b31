"""What encoders and decoders have in common: their sizes and the kind of their blocks."""

from collections.abc import Sequence
from typing import Any

import keras

from vae_cf_tf.models.blocks import STACKS, GaussianHeads, Linear, Stack


class Network(keras.layers.Layer):
    """Base of encoders and decoders.

    Args:
      hidden_dim: units of a hidden block.
      latent_dim: dimensions of a latent variable.
      layers: hidden blocks (L in the papers).
      block: "tanh" or "gated".
      initializer: as `Linear`.
      skips: "none", or "dense" for dense skips and LayerNorm.
      by_rows: as `Linear`, for the layers whose inputs or units are items.
    """

    def __init__(
        self,
        hidden_dim: int,
        latent_dim: int,
        layers: int = 1,
        block: str = "tanh",
        initializer: str = "he",
        skips: str = "none",
        by_rows: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.built = True  # a subclass makes all weights in its constructor
        self.hidden_dim, self.latent_dim, self.layers = hidden_dim, latent_dim, layers
        self.block, self.initializer, self.skips, self.by_rows = block, initializer, skips, by_rows

    def stack(self, input_dim: int, units: Sequence[int], name: str, items: int = 0) -> Stack:
        """Blocks of this kind; `items` as `Linear`."""
        first = {"items": items, "by_rows": self.by_rows} if items else {}
        return STACKS[self.skips](input_dim, units, self.block, self.initializer, **first, name=name)

    def gaussian_heads(self, input_dim: int) -> GaussianHeads:
        return GaussianHeads(input_dim, self.latent_dim, self.initializer, name="heads")

    def output_of(self, input_dim: int, outputs: int) -> Linear:
        """A layer whose units are the numbers that the likelihood takes."""
        return Linear(input_dim, outputs, self.initializer, by_rows=self.by_rows, units_are_items=True, name="output")
