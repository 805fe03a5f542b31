"""The inverse of XᵀX + λI, which the linear item–item models are made of."""

from collections.abc import Iterator

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
        p[block, block] = _symmetric(p[block, block])
        p[block, block.stop :] = p[block.stop :, block].T
    return p.T  # the same numbers, in the order of rows that a sparse product reads without a copy


def inverse_by_rows(x: sp.csr_matrix, l2: float) -> tuple[np.ndarray, Iterator[tuple[slice, np.ndarray]]]:
    """The diagonal of P, [items], and P's rows from the first to the last, some at a time, as `inverse` has them.

    Differs from `inverse` in that it takes half the memory: only the lower triangle is stored, in LAPACK's rectangular
    full packed format (Gustavson et al. 2010, "Rectangular Full Packed Format for Cholesky's Algorithm"). For a matrix
    A of an even number n of rows, and k = n / 2, this is R, [n + 1, k]. Of the lower triangle of A, A[i, j] lies in
    R[i + 1, j] where j < k, and in R[j − k, i − k] where j ≥ k. Where the number of items is odd, there is one more
    item, which no user has.

    Raises:
      Singular: as `inverse`.
    """
    items = x.shape[1]
    dtype = np.float64 if items <= FLOAT64_ITEMS else np.float32
    pftrf, pftri = (lapack.dpftrf, lapack.dpftri) if dtype is np.float64 else (lapack.spftrf, lapack.spftri)
    n = items + items % 2
    k = n // 2
    x = sp.csr_matrix((x.data, x.indices, x.indptr), shape=(x.shape[0], n))
    columns, rows = x.astype(dtype).tocsc(), x.T.tocsr().astype(dtype)
    packed = np.empty(n * (n + 1) // 2, dtype)
    r = packed.reshape(n + 1, k, order="F")
    for block in blocks(k):
        r[block.start + 1 :, block] = (rows[block.start :] @ columns[:, block]).toarray()
    for block in blocks(k):
        found = (rows[k : k + block.stop] @ columns[:, k + block.start : k + block.stop]).toarray()
        r[: block.start, block] = found[: block.start]
        square = found[block.start :]
        np.copyto(r[block, block], square, where=np.tri(len(square), dtype=bool).T)
    diagonal = np.arange(k)
    r[diagonal + 1, diagonal] += l2
    r[diagonal, diagonal] += l2
    packed, failed = pftrf(n, packed, uplo="L", overwrite_a=1)
    if failed:
        raise Singular
    packed, _ = pftri(n, packed, uplo="L", overwrite_a=1)
    r = packed.reshape(n + 1, k, order="F")
    p = np.concatenate([r[diagonal + 1, diagonal], r[diagonal, diagonal]])[:items]
    return p, _rows(r, items)


def _rows(r: np.ndarray, items: int) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows of `inverse_by_rows`, from R."""
    k = r.shape[1]
    for b in blocks(k):
        below, square = r[b.start + 1 : b.stop + 1], r[b.start + 1 : b.stop + 1, b]
        yield b, np.hstack([below[:, : b.start], _symmetric(square), r[b.stop + 1 : items + 1, b].T])
    for b in blocks(items - k):
        first, above = r[k + b.start + 1 : k + b.stop + 1], r[b]
        square = _symmetric(above[:, b].T)
        yield (
            slice(k + b.start, k + b.stop),
            np.hstack([first, r[: b.start, b].T, square, above[:, b.stop : items - k]]),
        )


def _symmetric(lower: np.ndarray) -> np.ndarray:
    """The symmetric matrix of a lower triangle; what stands above it does not matter."""
    return np.tril(lower) + np.tril(lower, -1).T


def blocks(items: int) -> list[slice]:
    """All rows or columns, BLOCK at a time."""
    return [slice(start, min(start + BLOCK, items)) for start in range(0, items, BLOCK)]
