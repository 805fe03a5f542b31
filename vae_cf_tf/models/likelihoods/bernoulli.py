"""The logistic likelihood."""

import tensorflow as tf

from vae_cf_tf.models.likelihoods.base import Likelihood


class Bernoulli(Likelihood):
    """Σ_i x_i log σ(f_i) + (1−x_i) log(1−σ(f_i)): the logistic likelihood (Liang et al. 2018, equation 4).

    Given that exactly one x_i is 1, it is item i with probability softmax(f)_i: the odds of an item are exp f_i.
    """

    def __init__(self, f: tf.Tensor, name: str = "Bernoulli"):
        super().__init__(f, dict(locals()), name)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(x, self._f), axis=-1)
