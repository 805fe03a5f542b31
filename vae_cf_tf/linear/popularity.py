"""The popularity baseline."""

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.linear.base import Baseline, Scores, item_counts
from vae_cf_tf.settings import EvaluationSettings


class Popularity(Baseline):
    """Scores every item by its number of training users.

    Examples:
      >>> scores = Popularity().fit(sp.csr_matrix([[1, 1, 0], [0, 1, 0]]))
      >>> scores(sp.csr_matrix([[0, 0, 1]])).tolist()
      [[1.0, 2.0, 0.0]]
    """

    description = "recommends to everyone the items that most training users have"
    label = "popularity"
    out_of_core = True

    @classmethod
    def candidates(cls, settings: EvaluationSettings, num_items: int) -> list[Baseline]:
        return [cls()]

    def fit(self, train: sp.csr_matrix) -> Scores:
        counts = item_counts(train).astype(np.float64)
        return lambda fold_in: np.broadcast_to(counts, fold_in.shape)
