"""The inverse of XᵀX + λI, which the linear item–item models are made of."""

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

FLOAT64_ITEMS = 8_000  # above it, half the memory is worth more than the last digits
BLOCK = 1_000


class Singular(ValueError):
    """λ is too small for the precision."""


def inverse(x: sp.csr_matrix, l2: float) -> np.ndarray:
    """P = (XᵀX + λI)⁻¹, float [items, items]: float64 up to FLOAT64_ITEMS, float32 above.

    One such matrix is all the memory it takes: it is filled in blocks and inverted in place.

    Args:
      x: X, [users, items].
      l2: λ > 0.

    Raises:
      Singular: see there.
    """
    items = x.shape[1]
    dtype = np.float64 if items <= FLOAT64_ITEMS else np.float32
    potrf, potri = (lapack.dpotrf, lapack.dpotri) if dtype is np.float64 else (lapack.spotrf, lapack.spotri)
    columns, rows = x.astype(dtype).tocsc(), x.T.tocsr().astype(dtype)
    p = np.empty((items, items), dtype, order="F")
    for block in blocks(items):  # the lower triangle, which is all that is read of it
        p[block.start :, block] = (rows[block.start :] @ columns[:, block]).toarray()
    p[np.diag_indices(items)] += l2
    p, failed = potrf(p, lower=1, overwrite_a=1)  # Cholesky factor, then the inverse, in the lower triangle
    if failed:
        raise Singular
    p, _ = potri(p, lower=1, overwrite_c=1)
    for block in blocks(items):
        p[block, block] = np.tril(p[block, block]) + np.tril(p[block, block], -1).T
        p[block, block.stop :] = p[block.stop :, block].T
    return p.T  # the same numbers, in the order of rows that a sparse product reads without a copy


def blocks(items: int) -> list[slice]:
    """All rows or columns, BLOCK at a time."""
    return [slice(start, min(start + BLOCK, items)) for start in range(0, items, BLOCK)]
