"""The Gaussian likelihood, with more confidence in what was consumed."""

import tensorflow as tf

from vae_cf_tf.models.likelihoods.base import Likelihood
from vae_cf_tf.settings import ModelSettings


class Gaussian(Likelihood):
    """−Σ_i (c_i/2)(x_i − f_i)², c_i = `confidence` where x_i = 1, else `confidence_zero` (Liang et al., equation 3).

    This is a density of x and gives no probability of an item: `item_log_probs` is log softmax(f), and only its order
    has a meaning.
    """

    def __init__(self, f: tf.Tensor, confidence: float = 10.0, confidence_zero: float = 1.0, name: str = "Gaussian"):
        parameters = dict(locals())
        self._confidence, self._confidence_zero = confidence, confidence_zero
        super().__init__(f, parameters, name)

    @classmethod
    def from_settings(cls, f: tf.Tensor, settings: ModelSettings) -> "Gaussian":
        return cls(f, settings.confidence, settings.confidence_zero)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        weight = self._confidence_zero + (self._confidence - self._confidence_zero) * x
        return -0.5 * tf.reduce_sum(weight * (x - self._f) ** 2, axis=-1)
