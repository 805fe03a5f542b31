"""Makes models from settings."""

import keras
import numpy as np
import scipy.sparse as sp

from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.registries import LATENT, PRIORS
from vae_cf_tf.settings import ModelSettings

SPARSE_BELOW = 0.04
"""Share of the catalogue in a mean history up to which the sparse first layer is the faster one. Forward and kernel
gradient on 2 cores, in ms, 200 × 3,497 × 600: 3.6 against 5.0 at 2 %, 5.0 against 4.9 at 4 %, 7.3 against 5.6 at 8 %;
500 × 3,497 × 600: 9.2 against 9.9 at 4 %, 11.1 against 10.7 at 6 %; 500 × 20,108 × 600: 13 against 46 at .4 %, 49
against 61 at 4 %, 65 each at 6 %. `trainers.benchmark` times both forms for a data set at hand."""


def build(settings: ModelSettings, num_items: int, train: sp.csr_matrix | None = None, seed: int = 0) -> Autoencoder:
    """A model of these settings, its weights drawn from the seed.

    Args:
      settings: of the model.
      num_items: size of the catalogue.
      train: [users, num_items], the training users. Priors over users start from them, and the first layer's form is
        chosen by their density.
      seed: of the initial weights.

    Examples:
      >>> model = build(ModelSettings(hidden_dim=4, latent_dim=2, pseudo_inputs=3), num_items=5)
      >>> model(tf.ragged.constant([[0, 2], []], dtype=tf.int32)).shape
      TensorShape([2, 5])
    """
    keras.utils.set_random_seed(seed)
    settings = settings.for_catalogue(num_items)
    density = 1.0 if train is None else train.nnz / (train.shape[0] * num_items)
    sparse_input = (
        settings.first_layer == "sparse"
        or settings.softmax_samples > 0
        or (settings.first_layer == "auto" and density < SPARSE_BELOW)
    )
    users = components = None
    if train is not None and starts_from_users(settings):
        users = random_users(train, settings.pseudo_inputs, seed)
        components = users.shape[0]
    return LATENT[settings.latent](settings, num_items, sparse_input, components, users, seed)


def starts_from_users(settings: ModelSettings) -> bool:
    """Whether the prior's components are, or start from, training users."""
    return settings.has_latent_variable and PRIORS[settings.prior].needs_users(settings)


def random_users(train: sp.csr_matrix, k: int, seed: int) -> sp.csr_matrix:
    """K training users, or all of them where there are fewer: [min(K, users), items]."""
    rng = np.random.default_rng([seed, 1])
    return train[rng.choice(train.shape[0], size=min(k, train.shape[0]), replace=False)]


def model_title(settings: ModelSettings) -> str:
    """The model as the papers call it, such as H+Vamp (Gated)."""
    title = LATENT[settings.latent].title(PRIORS[settings.prior].title)
    return f"{title} (Gated)" if settings.block == "gated" else title
