"""The Gaussians of this family as TFP distributions: a user's posterior, and mixtures."""

import math

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


def diagonal_normal(mean: tf.Tensor, log_variance: tf.Tensor) -> tfd.Distribution:
    """N(mean, diag(exp(log_variance))) over the last axis, [batch, latent]."""
    return tfd.MultivariateNormalDiag(mean, tf.exp(0.5 * log_variance))


def anchored(base: tuple[tf.Tensor, tf.Tensor], own: tuple[tf.Tensor, tf.Tensor], own_share: float) -> tfd.Distribution:
    """RecVAE's composite prior (Shenbin et al. 2020, equation 9), each dimension a mixture of its own: N(base),
    N(own) with weight `own_share`, and the wide N(0, e¹⁰), which has two fifths of what is left as in RecVAE's code.

    Args:
      base, own: mean and log-variance, float [batch, latent] each; RecVAE's base is N(0, I).
    """
    rest = 1 - own_share
    zeros = tf.zeros_like(base[0])
    means = tf.stack([base[0], own[0], zeros], axis=-1)  # [batch, latent, 3]
    log_variances = tf.stack([base[1], own[1], zeros + 10.0], axis=-1)
    weights = tfd.Categorical(probs=tf.constant([0.6 * rest, own_share, 0.4 * rest], zeros.dtype))
    return tfd.Independent(tfd.MixtureSameFamily(weights, tfd.Normal(means, tf.exp(0.5 * log_variances))), 1)


class MixtureOfNormals(tfd.Distribution):
    """1/K Σ_k N(z; mean_k, diag exp(log_variance_k)), one mixture shared by all rows.

    Leaving one out, row k has the mixture of the K − 1 others instead.

    Differs from `tfd.MixtureSameFamily` in that its log_prob never builds a [batch, K, latent] tensor: the exponent of
    a diagonal Gaussian is linear in (z², z), so all components of all rows are two matrix products.

    Args:
      mean: float [K, latent].
      log_variance: float [K, latent].
      leave_one_out: see above; the batch then has K rows.
    """

    def __init__(
        self, mean: tf.Tensor, log_variance: tf.Tensor, leave_one_out: bool = False, name: str = "MixtureOfNormals"
    ):
        parameters = dict(locals())
        self._leave_one_out = leave_one_out
        with tf.name_scope(name):
            self._loc = tf.convert_to_tensor(mean)
            self._log_variance = tf.convert_to_tensor(log_variance)
        super().__init__(
            dtype=self._loc.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _batch_shape(self):
        return self._loc.shape[:1] if self._leave_one_out else tf.TensorShape([])

    def _batch_shape_tensor(self):
        return tf.shape(self._loc)[:1] if self._leave_one_out else tf.constant([], tf.int32)

    def _event_shape(self):
        return self._loc.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self._loc)[-1:]

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(z, [-1, tf.shape(z)[-1]])  # [N, D]
        centre = tf.stop_gradient(tf.reduce_mean(self._loc, axis=0))  # small numbers lose fewer digits when squared
        flat, mean = flat - centre, self._loc - centre
        precision = tf.exp(-self._log_variance)  # [K, D]
        weighted = mean * precision
        components, latent = tf.shape(mean)[0], tf.shape(mean)[1]
        constant = -0.5 * tf.reduce_sum(mean * weighted + self._log_variance, axis=1)  # [K]
        counted = tf.maximum(components - 1, 1) if self._leave_one_out else components
        constant -= 0.5 * math.log(2 * math.pi) * tf.cast(latent, z.dtype) + tf.math.log(tf.cast(counted, z.dtype))
        exponent = tf.matmul(flat, weighted, transpose_b=True) - 0.5 * tf.matmul(flat**2, precision, transpose_b=True)
        exponent += constant  # [N, K]
        if self._leave_one_out:
            exponent = tf.linalg.set_diag(exponent, tf.fill([components], z.dtype.min / 2))
        return tf.reshape(tf.reduce_logsumexp(exponent, axis=1), tf.shape(z)[:-1])

    def _sample_n(self, n: tf.Tensor, seed=None) -> tf.Tensor:
        if self._leave_one_out:
            raise NotImplementedError("A mixture that leaves one out is for densities; sample the whole one.")
        which_seed, noise_seed = tfp.random.split_seed(seed)
        which = tf.random.stateless_uniform([n], which_seed, 0, tf.shape(self._loc)[0], dtype=tf.int32)
        noise = tf.random.stateless_normal([n, tf.shape(self._loc)[1]], noise_seed, dtype=self.dtype)
        return tf.gather(self._loc, which) + noise * tf.exp(0.5 * tf.gather(self._log_variance, which))

    def _mean(self) -> tf.Tensor:
        return tf.reduce_mean(self._loc, axis=0)
