"""Priors p(z) of the (upper) latent variable. A prior is a layer whose `distribution` is a TFP distribution."""

from collections.abc import Callable

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.batches import ragged
from vae_cf_tf.distributions import MixtureOfNormals, diagonal_normal
from vae_cf_tf.histories import Bags, keep_mask, unit_norm

tfd = tfp.distributions

Posteriors = tuple[tf.Tensor, tf.Tensor]
"""Mean and log-variance of a training batch's users, float [batch, latent] each."""


class StandardNormal(keras.layers.Layer):
    """p(z) = N(0, I) (Liang et al. 2018)."""

    def __init__(self, latent_dim: int, **kwargs):
        super().__init__(**kwargs)
        self.latent_dim = latent_dim

    def distribution(
        self, rate: float = 0.0, seed: tf.Tensor | None = None, batch: Posteriors | None = None
    ) -> tfd.Distribution:
        """The prior; it has no random part, and the arguments are those of every prior."""
        zeros = tf.zeros([self.latent_dim])
        return diagonal_normal(zeros, zeros)


class VampPrior(keras.layers.Layer):
    """p(z) = 1/K Σ_k q(z|u_k), u_k = clip(w_k, 0, 1): a mixture of the encoder's own posteriors at K learned
    pseudo-inputs (Tomczak & Welling 2018, equation 9; Kim & Suh 2019).

    As in Kim & Suh's code, pseudo-inputs pass through the encoder's input dropout in training, and are not
    L2-normalised.

    Args:
      encoder: gives (mean, log-variance) for rows [K, num_items]; its weights stay its own.
      pseudo_inputs: K.
      num_items: width of a pseudo-input.
      start: float [K, num_items] to start from; None: N(.05, .01²).
    """

    def __init__(
        self,
        encoder: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        pseudo_inputs: int,
        num_items: int,
        start: np.ndarray | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._encode = lambda u: encoder(u)  # in a closure, so that Keras counts the encoder's weights once
        initializer = keras.initializers.RandomNormal(0.05, 0.01) if start is None else lambda shape, dtype: start
        self.pseudo_inputs = self.add_weight(
            shape=(pseudo_inputs, num_items), initializer=initializer, name="pseudo_inputs"
        )
        self.built = True

    def distribution(
        self, rate: float = 0.0, seed: tf.Tensor | None = None, batch: Posteriors | None = None
    ) -> tfd.Distribution:
        """The prior under the encoder's present weights, with input dropout at `rate` drawn from `seed`."""
        w = tf.convert_to_tensor(self.pseudo_inputs)
        if rate:
            u = _dropped_out(w, keep_mask(tf.shape(w), rate, seed), tf.constant(1 / (1 - rate), w.dtype))
        else:
            u = tf.clip_by_value(w, 0.0, 1.0)
        return MixtureOfNormals(*self._encode(u))


@tf.custom_gradient
def _dropped_out(w: tf.Tensor, kept: tf.Tensor, scale: tf.Tensor):
    """clip(w, 0, 1) where `kept`, times `scale`; XLA makes one pass of it, and one of its gradient.

    At [1000, 20,108] these took 8 and 10 ms on 2 cores, 19 and 33 operation by operation. XLA has no part in matrix
    products here: its own are slow on the CPU.
    """
    return _opened(w, kept, scale), lambda upstream: (_opened_gradient(upstream, w, kept, scale), None, None)


@tf.function(jit_compile=True)
def _opened(w: tf.Tensor, kept: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    return tf.where(kept, tf.clip_by_value(w, 0.0, 1.0) * scale, 0.0)


@tf.function(jit_compile=True)
def _opened_gradient(upstream: tf.Tensor, w: tf.Tensor, kept: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    return tf.where(kept & (w >= 0) & (w <= 1), upstream * scale, 0.0)


class HiddenVampPrior(keras.layers.Layer):
    """p(z) = 1/K Σ_k q(z|h_k): a mixture of the encoder's posteriors at K learned points behind its first block.

    Differs from `VampPrior` in that a pseudo-input is a vector of hidden_dim numbers instead of a row of the catalogue.
    K·items·hidden multiply-adds forward and twice that backward, the largest part of a step, are gone, and the cost no
    longer depends on the catalogue. A component is still a posterior of the encoder, but of a point that need not be
    the image of any history. It sees no input dropout.

    Args:
      encoder: gives (mean, log-variance) for rows [K, hidden_dim]; its weights stay its own.
      start: float [K, hidden_dim], what the first block makes of training users, in its first state.
    """

    def __init__(
        self, encoder: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], start: tf.Tensor | np.ndarray, **kwargs
    ):
        super().__init__(**kwargs)
        self._encode = lambda h: encoder(h)  # in a closure, so that Keras counts the encoder's weights once
        self.pseudo_inputs = self.add_weight(
            shape=tuple(start.shape), initializer=lambda shape, dtype: start, name="pseudo_inputs"
        )
        self.built = True

    def distribution(
        self, rate: float = 0.0, seed: tf.Tensor | None = None, batch: Posteriors | None = None
    ) -> tfd.Distribution:
        """The prior under the encoder's present weights; the arguments are those of every prior."""
        return MixtureOfNormals(*self._encode(tf.convert_to_tensor(self.pseudo_inputs)))


class UserVampPrior(keras.layers.Layer):
    """p(z) = 1/K Σ_k q(z|u_k) at K training users u_k, who stay as they are.

    Differs from `VampPrior` in that pseudo-inputs are not learned, and in that their posteriors are those of the
    encoder at the last `refresh`: between two of these the prior costs nothing but its density. There is no gradient
    through it.

    Args:
      encoder: gives (mean, log-variance) for `Bags` of items; its weights stay its own.
      users: float [K, num_items], ones.
      latent_dim: width of z.
    """

    def __init__(
        self, encoder: Callable[[Bags], tuple[tf.Tensor, tf.Tensor]], users: sp.csr_matrix, latent_dim: int, **kwargs
    ):
        super().__init__(**kwargs)
        self._encode, self.users = lambda x: encoder(x), users
        frozen = {"shape": (users.shape[0], latent_dim), "initializer": "zeros", "trainable": False}
        self.means = self.add_weight(name="means", **frozen)
        self.log_variances = self.add_weight(name="log_variances", **frozen)
        self.built = True

    def refresh(self) -> None:
        """Encodes the users by the encoder's present weights."""
        means, log_variances = self._encode(unit_norm(ragged(self.users)))
        self.means.assign(means)
        self.log_variances.assign(log_variances)

    def distribution(
        self, rate: float = 0.0, seed: tf.Tensor | None = None, batch: Posteriors | None = None
    ) -> tfd.Distribution:
        """The prior as of the last refresh; the arguments are those of every prior."""
        return MixtureOfNormals(tf.convert_to_tensor(self.means), tf.convert_to_tensor(self.log_variances))


class BatchVampPrior(UserVampPrior):
    """In training, for each user of a batch: 1/(B−1) Σ_{b≠u} q(z|x_b), a mixture of the posteriors of the others.

    The VampPrior stands in for the mixture of all users' posteriors, the optimal prior, at K learned points (Tomczak &
    Welling 2018, equations 8 and 9); this estimates it from the users at hand, whose posteriors are known already, so
    that it costs its density alone. Differs from `UserVampPrior` in that components are new in every step, and pass on
    gradients. Outside training, and for a batch of one user, who has no others, it is that prior.
    """

    def distribution(
        self, rate: float = 0.0, seed: tf.Tensor | None = None, batch: Posteriors | None = None
    ) -> tfd.Distribution:
        """The prior of a training batch's users, or, without a batch, that of `UserVampPrior`."""
        if batch is None:
            return super().distribution()
        size = tf.shape(batch[0])[0]
        users = tf.convert_to_tensor(self.means), tf.convert_to_tensor(self.log_variances)
        parameters = tf.cond(size > 1, lambda: batch, lambda: users)
        return MixtureOfNormals(*parameters, left_out=tf.where(size > 1, tf.range(size), -1))


PRIORS = ("standard", "vamp", "hidden_vamp", "user_vamp", "batch_vamp")
