"""What a deep model has to beat: popularity, and the closed-form linear autoencoder EASE."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from vae_cf_tf.errors import UserError

Scores = Callable[[sp.csr_matrix], np.ndarray]

FLOAT64_ITEMS = 8_000  # above it, half the memory is worth more than the last digits


def popularity(train: sp.csr_matrix) -> Scores:
    """Scores every item by its number of training users."""
    counts = np.asarray(train.sum(axis=0), np.float64).ravel()
    return lambda fold_in: np.broadcast_to(counts, fold_in.shape)


def ease(train: sp.csr_matrix, l2: float) -> Scores:
    """EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", equation 8): scores x B with
    B = I − P diag(P)⁻¹, P = (XᵀX + λI)⁻¹.

    One items × items matrix is all the memory it takes (float64 up to FLOAT64_ITEMS, float32 above): it is filled in
    blocks and inverted in place.

    Args:
      train: X, [users, items].
      l2: λ > 0.

    Raises:
      UserError: λ is too small for the precision.
    """
    items = train.shape[1]
    dtype = np.float64 if items <= FLOAT64_ITEMS else np.float32
    potrf, potri = (lapack.dpotrf, lapack.dpotri) if dtype is np.float64 else (lapack.spotrf, lapack.spotri)
    columns, rows = train.astype(dtype).tocsc(), train.T.tocsr().astype(dtype)
    p = np.empty((items, items), dtype, order="F")
    blocks = [slice(start, min(start + 1_000, items)) for start in range(0, items, 1_000)]
    for block in blocks:
        p[:, block] = (rows @ columns[:, block]).toarray()
    p[np.diag_indices(items)] += l2
    p, failed = potrf(p, lower=1, overwrite_a=1)  # Cholesky factor, then the inverse, in the lower triangle
    if failed:
        raise UserError(f"EASE: XᵀX + {l2:g}·I is singular to working precision. Give --ease_l2 larger values.")
    p, _ = potri(p, lower=1, overwrite_c=1)
    for block in blocks:
        p[block, block] = np.tril(p[block, block]) + np.tril(p[block, block], -1).T
        p[block, block.stop :] = p[block.stop :, block].T
    p = p.T  # the same numbers, in the order of rows that a sparse product reads without a copy
    diagonal = np.diag(p).copy()
    # The zero diagonal of B touches the scores of seen items only, and those are never ranked.
    return lambda fold_in: -(fold_in.astype(dtype) @ p) / diagonal
