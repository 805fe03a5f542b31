"""What a deep model has to beat: popularity, and the closed-form linear autoencoder EASE."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from vae_cf_tf import gram
from vae_cf_tf.errors import UserError

Scores = Callable[[sp.csr_matrix], np.ndarray]


def popularity(train: sp.csr_matrix) -> Scores:
    """Scores every item by its number of training users."""
    counts = np.asarray(train.sum(axis=0), np.float64).ravel()
    return lambda fold_in: np.broadcast_to(counts, fold_in.shape)


def ease(train: sp.csr_matrix, l2: float) -> Scores:
    """EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", equation 8): scores x B with
    B = I − P diag(P)⁻¹, P = (XᵀX + λI)⁻¹.

    Args:
      train: X, [users, items].
      l2: λ > 0.

    Raises:
      UserError: λ is too small for the precision.
    """
    try:
        p = gram.inverse(train, l2)
    except gram.Singular as error:
        raise UserError(
            f"EASE: XᵀX + {l2:g}·I is singular to working precision. Give --ease_l2 larger values."
        ) from error
    diagonal = np.diag(p).copy()
    # The zero diagonal of B touches the scores of seen items only, and those are never ranked.
    return lambda fold_in: -(fold_in.astype(p.dtype) @ p) / diagonal
