"""Ranking the unseen items of held-out users, batch by batch."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf.data.split import HeldOut
from vae_cf_tf.evaluation import metrics
from vae_cf_tf.models import batches, replicas
from vae_cf_tf.models.histories import rows_of

Ranker = Callable[[sp.csr_matrix], np.ndarray]
"""From fold-in histories [users, items] to the best unseen items, int [users, TOP], best first."""

SCORES = 50_000_000


def evaluate(rank: Ranker, held_out: HeldOut, batch_size: int) -> dict[str, np.ndarray]:
    """Every metric of every held-out user with targets, float64 [users with targets] each."""
    judged = held_out.with_targets()
    return per_user(ranked_lists(rank, judged.fold_in, batch_size), judged)


def ranked_lists(rank: Ranker, fold_in: sp.csr_matrix, batch_size: int) -> np.ndarray:
    """The lists of all users, int [users, TOP]."""
    at_once = users_at_once(batch_size, fold_in.shape[1])
    lists = [rank(fold_in[start : start + at_once]) for start in range(0, fold_in.shape[0], at_once)]
    return np.concatenate(lists) if lists else np.empty((0, metrics.TOP), np.int32)


def per_user(ranked: np.ndarray, judged: HeldOut) -> dict[str, np.ndarray]:
    """Each metric's value of each user with targets, from their lists, int [users, TOP]."""
    return metrics.per_user(metrics.hits(ranked, judged.target), np.diff(judged.target.indptr))


def users_at_once(batch_size: int, num_items: int) -> int:
    """`batch_size`, or fewer where their scores would be more than SCORES numbers."""
    return min(batch_size, max(1, SCORES // num_items))


def model_ranker(model: tf.keras.Model) -> Ranker:
    """The ranker of a model of this package."""
    return traced_ranker(model.scores)


def traced_ranker(scores: Callable[[tf.RaggedTensor], tf.Tensor]) -> Ranker:
    """The ranker of a function from histories to scores, float [batch, items], which TensorFlow traces."""
    scored = replicas.shared_out(lambda histories: best_unseen(scores(histories), histories))
    best = batches.traced(scored)
    return lambda fold_in: best(batches.ragged(fold_in)).numpy()


def best_unseen(scores: tf.Tensor, histories: tf.RaggedTensor) -> tf.Tensor:
    """The items of the highest scores, float [batch, items], that are not in the histories: int32 [batch, TOP]."""
    return top_unseen(scores, histories.values, rows_of(histories), metrics.TOP)[1]


def top_unseen(scores: tf.Tensor, items: tf.Tensor, rows: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The k highest scores of unseen items in each row, best first, and these items: float and int32 [batch, k].

    If a row has fewer than k unseen items, the other scores are −∞.

    Args:
      scores: float [batch, items].
      items, rows: int32 [seen]: the seen items, and the batch row of each.
    """
    found = tf.math.top_k(masked(scores, items, rows), k)
    return found.values, found.indices


def masked(scores: tf.Tensor, items: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """The scores with −∞ for the items that are seen; arguments as those of `top_unseen`."""
    never = tf.fill(tf.shape(items), tf.constant(-np.inf, scores.dtype))
    return tf.tensor_scatter_nd_update(scores, tf.stack([rows, items], axis=1), never)


def score_ranker(score: Callable[[sp.csr_matrix], np.ndarray]) -> Ranker:
    """The ranker of a function that gives scores, float [users, items]; ties go to the lower index.

    Examples:
      >>> rank = score_ranker(lambda fold_in: np.ones(fold_in.shape))
      >>> rank(sp.csr_matrix(np.eye(1, 300)))[0, :3].tolist()  # item 0 is seen
      [1, 2, 3]
    """

    def rank(fold_in: sp.csr_matrix) -> np.ndarray:
        scores = np.array(score(fold_in), copy=True)
        scores[fold_in.nonzero()] = -np.inf
        last = -np.partition(-scores, metrics.TOP - 1, axis=1)[:, metrics.TOP - 1, None]  # the lowest score that counts
        above, level = scores > last, scores == last
        room = metrics.TOP - above.sum(axis=1, keepdims=True)
        best = np.nonzero(above | (level & (np.cumsum(level, axis=1) <= room)))[1].reshape(-1, metrics.TOP)
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
        return np.take_along_axis(best, order, 1)

    return rank
