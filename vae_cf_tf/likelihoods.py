"""Likelihoods p(x|z) of a user's items, as TFP distributions over multi-hot rows (Liang et al. 2018, section 2.1).

A likelihood is made from the decoder's output f, [batch, items]. Beside `log_prob(x)` it has `history_log_prob`, the
same for rows given as histories, and `item_log_probs()`, the scores that rank the items.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.histories import multi_hot, rows_of

tfd = tfp.distributions


class _ItemLikelihood(tfd.Distribution):
    """What the three have in common: parameters f [batch, items], one event a row."""

    def __init__(self, f: tf.Tensor, parameters: dict, name: str):
        self._f = tf.convert_to_tensor(f)
        super().__init__(
            dtype=self._f.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _batch_shape(self):
        return self._f.shape[:-1]

    def _batch_shape_tensor(self):
        return tf.shape(self._f)[:-1]

    def _event_shape(self):
        return self._f.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self._f)[-1:]

    def item_log_probs(self) -> tf.Tensor:
        """Log-probability of each item to be the one chosen, if one is: log softmax(f), in the order of f."""
        return tf.nn.log_softmax(self._f)

    def history_log_prob(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """log_prob of the multi-hot rows of histories, int32 [batch, (items)]: float [batch]."""
        return self.log_prob(tf.cast(multi_hot(histories, self._f.shape[-1]), self.dtype))


class Multinomial(_ItemLikelihood):
    """Σ_i x_i log softmax(f)_i: the multinomial log-likelihood up to its coefficient (Liang et al. 2018, equation 2).

    Differs from `tfd.Multinomial` in that log N! − Σ log x_i!, a constant for training and the larger part of its cost,
    is left out, and that N is taken from x.
    """

    def __init__(self, f: tf.Tensor, name: str = "Multinomial"):
        super().__init__(f, dict(locals()), name)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(x * tf.nn.log_softmax(self._f), axis=-1)

    def history_log_prob(self, histories: tf.RaggedTensor) -> tf.Tensor:
        return _sum_of_log_softmax(self._f, histories.values, rows_of(histories))


def _own(f: tf.Tensor, columns: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where a row's own items are in f, int32 [items of the batch, 2]; how many, and the sum of f there, by row."""
    place, batch = tf.stack([rows, columns], axis=1), tf.shape(f)[0]
    lengths = tf.math.unsorted_segment_sum(tf.ones_like(columns, f.dtype), rows, batch)
    return place, lengths, tf.math.unsorted_segment_sum(tf.gather_nd(f, place), rows, batch)


@tf.custom_gradient
def _sum_of_log_softmax(f: tf.Tensor, items: tf.Tensor, rows: tf.Tensor):
    """Σ log softmax(f) over the `items` of each row, in four passes over f and its gradient.

    TensorFlow's fused cross-entropy kernels took 78 ms for [500, 20,108] on 2 cores, and automatic differentiation of a
    dense x·log_softmax(f) as long; this takes 20.
    """
    exponential, total, largest = _exponentials(f)
    place, lengths, picked = _own(f, items, rows)

    def gradient(upstream):
        expected = exponential * (-upstream * lengths / total)[:, None]
        return tf.tensor_scatter_nd_add(expected, place, tf.gather(upstream, rows)), None, None

    return picked - lengths * (largest + tf.math.log(total)), gradient


@tf.function(jit_compile=True)
def _exponentials(f: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """exp(f − max f), [batch, items], its sum and max f, [batch] each: XLA reads f twice and writes once."""
    largest = tf.reduce_max(f, axis=1)
    exponential = tf.exp(f - largest[:, None])
    return exponential, tf.reduce_sum(exponential, axis=1), largest


def sampled_log_softmax(f: tf.Tensor, rows: tf.Tensor, places: tf.Tensor, log_inclusion: tf.Tensor) -> tf.Tensor:
    """Σ log softmax over the catalogue of each row's items, estimated from candidates that hold all of them.

    Σ_i x_i (f_i − log Ẑ), Ẑ = Σ_{i∈x} exp f_i + Σ_{j∈C∖x} exp(f_j) / p_j: a row's own items count as they are, every
    other candidate for 1/p_j items, p_j being its probability to be one (Horvitz & Thompson 1952), so that Ẑ has the
    true sum as its mean. With all items as candidates and p = 1 it is the log-likelihood itself. The correction by
    log p_j is that of sampled softmax (Jean et al. 2015, section 3), for sampling without replacement.

    Args:
      f: float [batch, C], of the candidates.
      rows, places: int32 [items of the batch], whose they are and where among the candidates.
      log_inclusion: log p, float [C].

    Returns:
      float [batch].
    """
    own, lengths, picked = _own(f, places, rows)
    counted = tf.tensor_scatter_nd_add(f - log_inclusion, own, tf.gather(log_inclusion, places))
    return picked - lengths * tf.reduce_logsumexp(counted, axis=1)


class Bernoulli(_ItemLikelihood):
    """Σ_i x_i log σ(f_i) + (1−x_i) log(1−σ(f_i)): the logistic likelihood (Liang et al. 2018, equation 4).

    Given that exactly one x_i is 1, it is item i with probability softmax(f)_i: the odds of an item are exp f_i.
    """

    def __init__(self, f: tf.Tensor, name: str = "Bernoulli"):
        super().__init__(f, dict(locals()), name)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(x, self._f), axis=-1)


class Gaussian(_ItemLikelihood):
    """−Σ_i (c_i/2)(x_i − f_i)², c_i = `confidence` where x_i = 1, else `confidence_zero` (Liang et al., equation 3).

    A density of x, which knows no probability of an item: `item_log_probs` only keeps the order of f.
    """

    def __init__(self, f: tf.Tensor, confidence: float = 10.0, confidence_zero: float = 1.0, name: str = "Gaussian"):
        parameters = dict(locals())
        self._confidence, self._confidence_zero = confidence, confidence_zero
        super().__init__(f, parameters, name)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        weight = self._confidence_zero + (self._confidence - self._confidence_zero) * x
        return -0.5 * tf.reduce_sum(weight * (x - self._f) ** 2, axis=-1)


LIKELIHOODS = {"multinomial": Multinomial, "bernoulli": Bernoulli, "gaussian": Gaussian}
