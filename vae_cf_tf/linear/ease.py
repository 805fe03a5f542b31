"""The EASE baseline."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.errors import UserError
from vae_cf_tf.linear import gram
from vae_cf_tf.linear.base import Baseline, Scores, Skipped
from vae_cf_tf.settings import EvaluationSettings


class Ease(Baseline):
    """EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", equation 8): scores x B with
    B = I − P diag(P)⁻¹, P = (XᵀX + λI)⁻¹.

    Args:
      l2: λ > 0.

    Examples:
      >>> train = sp.csr_matrix([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32)
      >>> scores = Ease(l2=1.0).fit(train)
      >>> scores(sp.csr_matrix([[1, 0, 0]], dtype=np.float32)).argmax()
      np.int64(1)
    """

    description = (
        "is a linear model from items to items (Steck 2019) with the regularisation λ that ranks best on validation "
        "users"
    )

    def __init__(self, l2: float):
        self.l2 = l2

    @classmethod
    def candidates(cls, settings: EvaluationSettings, num_items: int) -> list[Baseline]:
        if num_items > settings.ease_max_items:
            raise Skipped(f"No EASE: the catalogue is larger than --ease_max_items={settings.ease_max_items:,}.")
        return [cls(l2) for l2 in settings.ease_l2_values]

    @property
    def settings(self) -> dict[str, Any]:
        return {"l2": self.l2}

    @property
    def label(self) -> str:
        return f"EASE, λ {self.l2:g}"

    def fit(self, train: sp.csr_matrix) -> Scores:
        try:
            p = gram.inverse(train, self.l2)
        except gram.Singular as error:
            raise UserError(
                f"EASE: XᵀX + {self.l2:g}·I is singular to working precision. Give --ease_l2 larger values."
            ) from error
        diagonal = np.diag(p).copy()
        # The zero diagonal of B touches the scores of seen items only, and those are never ranked.
        return lambda fold_in: -(fold_in.astype(p.dtype) @ p) / diagonal
