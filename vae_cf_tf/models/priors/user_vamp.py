"""A VampPrior over training users."""

from typing import Any

import numpy as np
import scipy.sparse as sp
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.batches import ragged
from vae_cf_tf.models.distributions import MixtureOfNormals
from vae_cf_tf.models.encoders import Encoder
from vae_cf_tf.models.histories import unit_norm
from vae_cf_tf.models.priors.base import Prior, PriorContext, PriorParts, PseudoInputs, unowned
from vae_cf_tf.settings import ModelSettings

tfd = tfp.distributions


class UserVampPrior(Prior):
    """p(z) = 1/K Σ_k q(z|u_k): a mixture of the encoder's posteriors of K training users u_k.

    Differs from `VampPrior` in that pseudo-inputs are not learned, and in that their posteriors are those of the
    encoder at the last `refresh`. Between two calls of it, only the density is computed. No gradient passes through the
    components.

    Args:
      encoder: gives mean and log-variance for `Bags` of items.
      users: float [K, num_items], with ones at the users' items.
      latent_dim: width of z.
    """

    title = "Vamp over users"

    def __init__(self, encoder: Encoder, users: sp.csr_matrix, latent_dim: int, **kwargs):
        super().__init__(**kwargs)
        self._encode, self.users = unowned(encoder), users
        frozen = {"shape": (users.shape[0], latent_dim), "initializer": "zeros", "trainable": False}
        self.means = self.add_weight(name="means", **frozen)
        self.log_variances = self.add_weight(name="log_variances", **frozen)
        self.built = True

    @classmethod
    def needs_users(cls, settings: ModelSettings) -> bool:
        return True

    @classmethod
    def from_settings(cls, settings: ModelSettings, parts: PriorParts) -> "UserVampPrior":
        return cls(parts.encoder, parts.users_or_zeros(), settings.latent_dim, name="prior")

    def save_own_variables(self, store: Any) -> None:
        """Writes the users too, so that a model loaded from a .keras file can be trained further."""
        super().save_own_variables(store)
        store["user_items"], store["user_ends"] = self.users.indices, self.users.indptr

    def load_own_variables(self, store: Any) -> None:
        arrays = {name: np.array(store[name]) for name in store.keys()}  # noqa: SIM118 (an HDF5 group is no dict)
        items, ends = arrays.pop("user_items"), arrays.pop("user_ends")
        self.users = sp.csr_matrix((np.ones(len(items), np.float32), items, ends), self.users.shape)
        super().load_own_variables(arrays)

    def refresh(self) -> None:
        """Encodes the users by the encoder's present weights."""
        means, log_variances = self._encode(unit_norm(ragged(self.users)))
        self.means.assign(means)
        self.log_variances.assign(log_variances)

    def distribution(self, context: PriorContext = PriorContext()) -> tfd.Distribution:  # noqa: B008
        return MixtureOfNormals(tf.convert_to_tensor(self.means), tf.convert_to_tensor(self.log_variances))

    def pseudo_inputs_of(self, components: np.ndarray) -> PseudoInputs:
        return PseudoInputs(self.users[components].toarray(), learned=False)
