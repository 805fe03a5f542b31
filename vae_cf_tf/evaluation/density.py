"""The ELBO of held-out users: how well a model describes histories, at β = 1."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf.evaluation.ranking import users_at_once
from vae_cf_tf.models import batches
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.flat import Variational

NAME = "elbo"
DRAWS = 4
"""Draws of z for each user. The mean over users averages their noise, too."""
Density = Callable[..., dict[str, np.ndarray]]
"""Takes histories [users, items], batch_size and draws = DRAWS; returns the values of each user, see `density_of`."""


def density_of(model: Autoencoder) -> Density | None:
    """The function that gives the ELBO of users; None for a model without a latent variable.

    It returns by name, float64 [users] each, in nats: `elbo`, a lower bound of log p(x); `elbo_nll`, −log p(x|z);
    `elbo_kl`, log q(z|x) − log p(z). All are means over draws of z from the posterior, without input dropout, at β = 1.
    The multinomial coefficient, which no model changes, is left out. Draws are the same at every call.
    """
    if not isinstance(model, Variational):
        return None

    def of_draw(histories: tf.RaggedTensor, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(model.terms(histories, seed, density=True))

    terms = batches.traced(of_draw, tf.TensorSpec([2], tf.int32))

    def density(fold_in: sp.csr_matrix, batch_size: int, draws: int = DRAWS) -> dict[str, np.ndarray]:
        nll, kl = np.zeros(fold_in.shape[0]), np.zeros(fold_in.shape[0])
        for place, histories in batches.in_order(fold_in, users_at_once(batch_size, model.num_items)):
            for draw in range(draws):
                log_likelihood, kl_of_draw = terms(histories, tf.constant([place.start, draw], tf.int32))
                nll[place] -= log_likelihood.numpy() / draws
                kl[place] += kl_of_draw.numpy() / draws
        return {NAME: -nll - kl, f"{NAME}_nll": nll, f"{NAME}_kl": kl}

    return density
