"""The items of a history that a recommendation owes most to."""

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.batches import ragged
from vae_cf_tf.models.explanation import contributions
from vae_cf_tf.models.histories import rows_of
from vae_cf_tf.models.hybrid import HybridModel


def owed_to(
    model: Autoencoder | HybridModel, fold_in: sp.csr_matrix, recommended: np.ndarray, most: int = 2
) -> list[list[list[int]]]:
    """For each recommendation of each user, the items without which its log-probability would fall most.

    Args:
      model: what recommended them.
      fold_in: histories, [users, items].
      recommended: int [users, n], item indices.
      most: items per recommendation, at most. Items without which the log-probability does not fall are left out.

    Returns:
      By user and recommendation: item indices, the most important first.
    """

    @tf.function(autograph=False)
    def explained(histories: tf.RaggedTensor, targets: tf.Tensor) -> tf.Tensor:
        return contributions(model, histories.values, rows_of(histories), targets, fold_in.shape[1])

    values = explained(ragged(fold_in), tf.constant(recommended, tf.int32)).numpy()  # [items of all histories, n]
    reasons = []
    for start, end in zip(fold_in.indptr, fold_in.indptr[1:], strict=False):
        items, of_user = fold_in.indices[start:end], values[start:end]
        best = np.argsort(-of_user, axis=0, kind="stable")[:most]  # [most, n]
        reasons.append([[int(items[p]) for p in best[:, n] if of_user[p, n] > 0] for n in range(values.shape[1])])
    return reasons
