"""The latent space of a run: users' posteriors, the prior, and its components."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf.evaluation.ranking import users_at_once
from vae_cf_tf.models import batches
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.distributions import MixtureOfNormals
from vae_cf_tf.models.flat import Variational

GAP_USERS = 5_000
"""Training users whose posteriors stand for those of all."""


class Normals(NamedTuple):
    """Diagonal Gaussians, float64 [n, latent] each."""

    mean: np.ndarray
    log_variance: np.ndarray

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One draw of each."""
        return self.mean + np.exp(self.log_variance / 2) * rng.standard_normal(self.mean.shape)


class Latent(NamedTuple):
    """The (upper) latent variable of users and of the prior."""

    users: Normals
    prior: np.ndarray  # float64 [users, latent]: as many draws from the prior as there are users
    components: Normals | None  # [K, latent]; None: the prior is no mixture


def examine(model: Autoencoder, fold_in: sp.csr_matrix, batch_size: int, seed: int = 0) -> Latent | None:
    """The latent space with users of these histories, [users, items]; None for a model that has no prior."""
    if not isinstance(model, Variational):
        return None
    at_once = users_at_once(batch_size, model.num_items)
    pairs = [model.encoder(model.first_input(rows)) for _, rows in batches.in_order(fold_in, at_once)]
    users = Normals(*(np.concatenate(parts).astype(np.float64) for parts in zip(*pairs, strict=True)))
    prior = model.prior.distribution()
    draws = np.asarray(prior.sample(len(users.mean), seed=tf.constant([seed, 0])), np.float64)
    if not isinstance(prior, MixtureOfNormals):
        return Latent(users, draws, None)
    parts = (np.asarray(prior.parameters[name], np.float64) for name in ("mean", "log_variance"))
    return Latent(users, draws, Normals(*parts))


def decoded(model: Variational, z: np.ndarray) -> np.ndarray:
    """p(item) at each z of the prior's variable, float32 [n, latent] → [n, items]; a lower variable is at its mean."""
    return np.exp(np.asarray(model.likelihood(model.decode_from_prior(tf.constant(z, tf.float32))).item_log_probs()))


def mean_decoded(model: Variational, z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ_k weights_k p(item|z_k), float [n, latent] and [n] → [items]; n × items need not fit into memory."""
    step = users_at_once(100, model.num_items)
    blocks = (slice(start, start + step) for start in range(0, len(z), step))
    return sum(weights[block] @ decoded(model, z[block]) for block in blocks)


def responsibilities(z: np.ndarray, components: Normals) -> np.ndarray:
    """p(k|z) under the mixture 1/K Σ_k N(z; mean_k, diag exp(log_variance_k)), float64 [n, K].

    Args:
      z: float [n, latent].
      components: [K, latent].
    """
    mean, log_variance = components
    precision = np.exp(-log_variance)
    exponent = z @ (mean * precision).T - 0.5 * (z**2 @ precision.T)
    exponent -= 0.5 * (mean**2 * precision + log_variance).sum(axis=1)
    exponent = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def effective_number(shares: np.ndarray) -> float:
    """The exponential of the entropy of the shares: n for n equal ones."""
    return float(np.exp(-np.sum(shares * np.log(np.maximum(shares, 1e-300)))))


class Plane(NamedTuple):
    """The two directions in which the users differ most."""

    centre: np.ndarray  # [latent]
    axes: np.ndarray  # [latent, 2], orthonormal
    shares: np.ndarray  # [2], of the users' variance

    def project(self, z: np.ndarray) -> np.ndarray:
        return (z - self.centre) @ self.axes


def principal_plane(means: np.ndarray) -> Plane:
    """PCA of the users' posterior means, [users, latent]."""
    centre = means.mean(axis=0)
    _, singular, axes = np.linalg.svd(means - centre, full_matrices=False)
    variance = np.pad(singular**2, (0, 2))[:2] / max(np.sum(singular**2), 1e-300)
    axes = np.pad(axes, ((0, 2), (0, 0)))[:2]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], 1)
    return Plane(centre, (axes * np.where(largest < 0, -1, 1)).T, variance)  # SVD leaves the signs open


def diagnosis(model: Autoencoder, train: sp.csr_matrix, fold_in: sp.csr_matrix, batch_size: int) -> dict[str, Any]:
    """What metrics.json says of the latent space; {} for a model that has none.

    Args:
      model: trained.
      train: training users, [users, items].
      fold_in: histories of held-out users, [users, items].
      batch_size: users at a time.

    Returns:
      `active`: for each latent variable, the upper one first, its active dimensions (`active_dimensions`), of
      `dimensions`; `components`: their number, if the prior is a mixture; `components_in_use`: the effective number of
      components, weighted by the users' responsibilities (`effective_number`); `prior_gap`: see the function.
    """
    if (space := examine(model, fold_in, batch_size)) is None:
        return {}
    at_once = users_at_once(batch_size, model.num_items)
    means = [model.latent(rows)[:-1] for _, rows in batches.in_order(fold_in, at_once)]
    lower = [np.concatenate(parts) for parts in zip(*means, strict=True)]
    active = [active_dimensions(of_users) for of_users in (space.users.mean, *lower)]
    draws = space.users.draw(np.random.default_rng(0))
    values: dict[str, Any] = {
        "active": active,
        "dimensions": space.users.mean.shape[1],
        "prior_gap": prior_gap(model, train, draws, batch_size),
    }
    if space.components:
        shares = responsibilities(draws, space.components).mean(axis=0)
        values |= {"components": len(shares), "components_in_use": effective_number(shares)}
    return values


def prior_gap(model: Variational, train: sp.csr_matrix, draws: np.ndarray, batch_size: int) -> float:
    """Mean of log q(z) − log p(z) over draws of held-out users, float64 [users, latent], in nats.

    q(z) is the mixture of the posteriors of (up to GAP_USERS) training users, which is the best prior for this encoder
    (Tomczak & Welling 2018, equation 8; Hoffman & Johnson 2016 call the gap the marginal KL). So the gap tells about
    how much a more flexible prior can add to the ELBO while encoder and decoder stay as they are.
    """
    some = train[np.sort(np.random.default_rng(0).permutation(train.shape[0])[:GAP_USERS])]
    at_once = users_at_once(batch_size, model.num_items)
    pairs = [model.encoder(model.first_input(rows)) for _, rows in batches.in_order(some, at_once)]
    best = MixtureOfNormals(*(tf.concat(parts, axis=0) for parts in zip(*pairs, strict=True)))
    prior = model.prior.distribution()
    total = 0.0
    for start in range(0, len(draws), at_once):
        z = tf.constant(draws[start : start + at_once], tf.float32)
        total += float(tf.reduce_sum(best.log_prob(z) - prior.log_prob(z)))
    return total / len(draws)


def active_dimensions(means: np.ndarray, threshold: float = 0.01) -> int:
    """Dimensions whose posterior mean has a variance over users above `threshold` (Burda et al. 2016)."""
    return int(np.sum(means.var(axis=0) > threshold))
