"""What a prior is: a layer that gives a TFP distribution."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.encoders import Encoder
from vae_cf_tf.models.histories import Bags
from vae_cf_tf.models.item_axes import ItemAxis
from vae_cf_tf.settings import ModelSettings

tfd = tfp.distributions

Gaussian = tuple[tf.Tensor, tf.Tensor]
"""Mean and log-variance, float [batch, latent] each."""


class PriorContext(NamedTuple):
    """What a prior may depend on in one step.

    Attributes:
      rate: dropout at the encoder's input; 0 outside training.
      seed: int32 [2], of this prior's random draws; None outside training.
      posterior: of the batch's users, in training.
      first_input: gives what the encoder's first layer reads of the batch's users, without dropout; None where there is
        no batch.
      z2: float [batch, latent], the upper latent variable, for a prior of the lower one.
    """

    rate: float = 0.0
    seed: tf.Tensor | None = None
    posterior: Gaussian | None = None
    first_input: Callable[[], tf.Tensor | Bags] | None = None
    z2: tf.Tensor | None = None


class PriorParts(NamedTuple):
    """What a prior may be built from.

    Attributes:
      encoder: of the variable that the prior is of. The prior calls it and does not own its weights.
      num_items: size of the catalogue.
      components: K.
      users: [K, num_items], training users; None if the prior needs none, or if its weights are loaded.
      seed: of the initial weights.
    """

    encoder: Encoder
    num_items: int
    components: int
    users: sp.csr_matrix | None = None
    seed: int = 0

    def users_or_zeros(self) -> sp.csr_matrix:
        if self.users is None:
            return sp.csr_matrix((self.components, self.num_items), dtype=np.float32)
        return self.users


class PseudoInputs(NamedTuple):
    """The histories whose posteriors are components of a prior."""

    weights: np.ndarray  # float32 [components, items], from 0 to 1
    learned: bool  # False: they are the histories of training users


class Prior(keras.layers.Layer):
    """p(z) of a latent variable. A subclass has `from_settings` and `distribution`, and may have the rest."""

    title: ClassVar[str] = ""
    """The papers' name of a model with this prior, such as Vamp; "" for the standard normal prior."""

    @classmethod
    def from_settings(cls, settings: ModelSettings, parts: PriorParts) -> "Prior":
        """Builds the prior.

        Args:
          settings: of the model.
          parts: see there.
        """
        raise NotImplementedError

    @classmethod
    def needs_users(cls, settings: ModelSettings) -> bool:
        """Whether `from_settings` uses training users."""
        return False

    def distribution(self, context: PriorContext = PriorContext()) -> tfd.Distribution:  # noqa: B008
        """The prior, a distribution over [latent_dim].

        Its batch shape is [] where it is the same for all users of a batch, else [batch].
        """
        raise NotImplementedError

    def refresh(self) -> None:
        """Called before each epoch."""

    def item_axes(self) -> list[ItemAxis]:
        """Where the items lie in the prior's own weights. A warm start moves them to another catalogue by this."""
        return []

    def pseudo_inputs_of(self, components: np.ndarray) -> PseudoInputs | None:
        """The histories whose posteriors are the `components`, int [n]; None if the components have no histories."""
        return None


def unowned(function: Callable) -> Callable:
    """A function in a closure, so that Keras does not count the weights of its layer as the caller's."""
    return lambda *args: function(*args)
