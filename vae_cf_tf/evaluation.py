"""Ranking the unseen items of held-out users, batch by batch."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf import batches, metrics
from vae_cf_tf.data.split import HeldOut

Ranker = Callable[[sp.csr_matrix], np.ndarray]
"""From fold-in histories [users, items] to the best unseen items, int [users, TOP], best first."""

SCORES = 50_000_000


def evaluate(rank: Ranker, held_out: HeldOut, batch_size: int) -> dict[str, np.ndarray]:
    """Every metric of every held-out user with targets, float64 [users with targets] each."""
    judged = held_out.with_targets()
    batch_size = users_at_once(batch_size, judged.target.shape[1])
    fold_in, target = judged.fold_in, judged.target
    hit = np.empty((target.shape[0], metrics.TOP), bool)
    for start in range(0, len(hit), batch_size):
        place = slice(start, start + batch_size)
        hit[place] = metrics.hits(rank(fold_in[place]), target[place])
    return metrics.per_user(hit, np.diff(target.indptr))


def users_at_once(batch_size: int, num_items: int) -> int:
    """`batch_size`, or fewer where their scores would be more than SCORES numbers."""
    return min(batch_size, max(1, SCORES // num_items))


def model_ranker(model: tf.keras.Model) -> Ranker:
    """The ranker of a model of this package."""

    @tf.function(input_signature=[batches.HISTORIES])
    def best(histories):
        scores = model.scores(histories)
        seen = tf.stack([histories.value_rowids(), histories.values], axis=1)
        never = tf.fill(tf.shape(histories.values), tf.constant(-np.inf, scores.dtype))
        return tf.math.top_k(tf.tensor_scatter_nd_update(scores, seen, never), metrics.TOP).indices

    return lambda fold_in: best(batches.ragged(fold_in)).numpy()


def score_ranker(score: Callable[[sp.csr_matrix], np.ndarray]) -> Ranker:
    """The ranker of a function that gives scores, float [users, items]; ties go to the lower index."""

    def rank(fold_in: sp.csr_matrix) -> np.ndarray:
        scores = np.array(score(fold_in), copy=True)
        scores[fold_in.nonzero()] = -np.inf
        best = np.sort(np.argpartition(-scores, metrics.TOP - 1, axis=1)[:, : metrics.TOP], axis=1)
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
        return np.take_along_axis(best, order, 1)

    return rank
