"""The multinomial likelihood, whole and sampled."""

from collections.abc import Callable

import tensorflow as tf

from vae_cf_tf.models.histories import rows_of
from vae_cf_tf.models.likelihoods.base import Likelihood


class Multinomial(Likelihood):
    """Σ_i x_i log softmax(f)_i: the multinomial log-likelihood up to its coefficient (Liang et al. 2018, equation 2).

    Differs from `tfd.Multinomial` in that it leaves out log N! − Σ log x_i!, which is constant in training and takes
    most of the time, and in that N is taken from x.

    Examples:
      >>> Multinomial(tf.math.log([[0.5, 0.25, 0.25]])).log_prob([[1.0, 1.0, 0.0]]).numpy().round(3)
      array([-2.079], dtype=float32)
    """

    def __init__(self, f: tf.Tensor, name: str = "Multinomial"):
        super().__init__(f, dict(locals()), name)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(x * tf.nn.log_softmax(self._f), axis=-1)

    def history_log_prob(self, histories: tf.RaggedTensor, weights: tf.Tensor | None = None) -> tf.Tensor:
        if weights is None:
            return _sum_of_log_softmax(self._f, histories.values, rows_of(histories))
        return _weighted_sum_of_log_softmax(self._f, histories.values, rows_of(histories), weights)

    @staticmethod
    def sampled_log_prob(
        f: tf.Tensor,
        rows: tf.Tensor,
        places: tf.Tensor,
        log_inclusion: tf.Tensor,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Σ log softmax over the catalogue of each row's items, estimated from candidates that hold all of them.

        Σ_i x_i (f_i − log Ẑ), Ẑ = Σ_{i∈x} exp f_i + Σ_{j∈C∖x} exp(f_j) / p_j for candidates C. A row's own items count
        once. Every other candidate j counts 1/p_j times, where p_j is the probability that j is a candidate (Horvitz &
        Thompson 1952), so the mean of Ẑ is the true sum. With all items as candidates and p = 1 it is the
        log-likelihood itself. The correction by log p_j is that of sampled softmax (Jean et al. 2015, section 3), for
        sampling without replacement.

        Args:
          f: float [batch, C], of the candidates.
          rows, places: int32 [items of the batch]: the row of each of the batch's items, and its place among the
            candidates.
          log_inclusion: log p, float [C].
          weights: x_ui, float [items of the batch]; None: ones.

        Returns:
          float [batch].
        """
        weights = tf.ones_like(places, f.dtype) if weights is None else weights
        return _sampled_sum_of_log_softmax(f, places, rows, log_inclusion, weights)


def _own_items(
    f: tf.Tensor, columns: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The (row, column) in f of each of the batch's items, int32 [items of the batch, 2]; and, float [batch] each, the
    number of a row's items and the sum of f at them. With weights, float [items of the batch], these are the sum of the
    weights and the weighted sum of f."""
    place, batch = tf.stack([rows, columns], axis=1), tf.shape(f)[0]
    picked = tf.gather_nd(f, place)
    if weights is None:
        weights = tf.ones_like(columns, f.dtype)
    else:
        picked *= weights
    lengths = tf.math.unsorted_segment_sum(weights, rows, batch)
    return place, lengths, tf.math.unsorted_segment_sum(picked, rows, batch)


def _add_at(values: tf.Tensor, place: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    """As `tf.tensor_scatter_nd_add`, which always copies `values` on a CPU; this only if something else uses them."""
    return tf.raw_ops.ScatterNdNonAliasingAdd(input=values, indices=place, updates=added)


def _value_and_gradient(
    exponentials: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    own: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    rows: tf.Tensor,
    weights: tf.Tensor | None = None,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Σ_i x_i (f_i − log Σ exp f), float [batch], and its gradient in f, from `_exponentials` and `_own_items`."""
    exponential, total, largest = exponentials
    place, lengths, picked = own

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        expected = exponential * (-upstream * lengths / total)[:, None]
        seen = tf.gather(upstream, rows)
        return _add_at(expected, place, seen if weights is None else seen * weights)

    return picked - lengths * (largest + tf.math.log(total)), gradient


@tf.custom_gradient
def _sum_of_log_softmax(f: tf.Tensor, items: tf.Tensor, rows: tf.Tensor):
    """Σ log softmax(f) over the `items` of each row, in four passes over f and its gradient.

    TensorFlow's fused cross-entropy kernels took 78 ms for [500, 20,108] on 2 cores, and automatic differentiation of a
    dense x·log_softmax(f) as long; this takes 20.
    """
    value, gradient = _value_and_gradient(_compiled_exponentials(f), _own_items(f, items, rows), rows)
    return value, lambda upstream: (gradient(upstream), None, None)


@tf.custom_gradient
def _weighted_sum_of_log_softmax(f: tf.Tensor, items: tf.Tensor, rows: tf.Tensor, weights: tf.Tensor):
    """As `_sum_of_log_softmax`, Σ_i x_i log softmax(f)_i for weights x_i, float [items of the batch]."""
    own = _own_items(f, items, rows, weights)
    value, gradient = _value_and_gradient(_compiled_exponentials(f), own, rows, weights)
    return value, lambda upstream: (gradient(upstream), None, None, None)


@tf.custom_gradient
def _sampled_sum_of_log_softmax(
    f: tf.Tensor, places: tf.Tensor, rows: tf.Tensor, log_inclusion: tf.Tensor, weights: tf.Tensor
):
    """As `_weighted_sum_of_log_softmax`, with log Ẑ of `Multinomial.sampled_log_prob` in place of the sum over items.

    Not compiled: the number of candidates changes with each step, and XLA would compile again for each.
    """
    place = tf.stack([rows, places], axis=1)
    counted = _add_at(f - log_inclusion, place, tf.gather(log_inclusion, places))
    own = _own_items(counted, places, rows, weights)
    value, gradient = _value_and_gradient(_exponentials(counted), own, rows, weights)
    return value, lambda upstream: (gradient(upstream), None, None, None, None)


def _exponentials(f: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """exp(f − max f), [batch, items], its sum and max f, [batch] each."""
    largest = tf.reduce_max(f, axis=1)
    exponential = tf.exp(f - largest[:, None])
    return exponential, tf.reduce_sum(exponential, axis=1), largest


_compiled_exponentials = tf.function(_exponentials, jit_compile=True, autograph=False)
"""By XLA, which reads f twice and writes once."""
