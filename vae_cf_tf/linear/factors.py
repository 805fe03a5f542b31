"""A low-rank model from items to items, by alternating least squares."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

_CHUNK = 2**25  # numbers of the rows that are solved at once


class LowRank(NamedTuple):
    """A low-rank item–item matrix EDᵀ. Its diagonal is not 0: it may only rank items that a history lacks."""

    encoder: np.ndarray  # E, float32 [items, rank]
    decoder: np.ndarray  # D, float32 [items, rank]


class ImplicitFactors:
    """Weighted matrix factorisation of implicit feedback (Hu, Koren & Volinsky 2008; iALS of Rendle et al. 2021), as a
    linear model from items to items.

    It minimises Σ_observed (1 − u·v)² + α Σ_all (u·v)² + λ_u Σ|u|² + λ_v Σ|v|² over vectors u of users and v of items,
    one side after the other. The vector of a user with items x is then (P⁻¹ + V_xᵀV_x)⁻¹V_xᵀ1 with
    P = (α VᵀV + λ_u I)⁻¹, which is P V_xᵀ(I + V_x P V_xᵀ)⁻¹1. Here the off-diagonal elements of V_x P V_xᵀ are left
    out, so that the scores are linear in x: each item i of x adds P v_i / (1 + v_iᵀP v_i) to the user's vector. On
    amazon-book-wide this ranks as well as the exact vectors.

    It finds what item-kNN cannot: two items that no user has both of are alike if they share neighbours.

    Args:
      rank: length of the vectors.
      unobserved: α in units that follow the data: all cells of the matrix together weigh this many times as much as
        the observed ones.
      ridge: λ_u = ridge·√(mean length of a history) and λ_v = ridge·√(mean number of users of an item).
      passes: over users and items, from the largest singular vectors of the matrix. On amazon-book-wide three passes
        from there rank as well as ten from random vectors.
      seed: of the search for singular vectors.
    """

    def __init__(self, rank: int, unobserved: float = 50.0, ridge: float = 0.2, passes: int = 5, seed: int = 0):
        self.rank, self.unobserved, self.ridge, self.passes, self.seed = rank, unobserved, ridge, passes, seed

    def fit(self, train: sp.csr_matrix) -> LowRank:
        """The matrix of training users, [users, items]; an item without users gets zeros."""
        users, items = train.shape
        by_user, by_item = train.tocsr(), train.T.tocsr()
        alpha = self.unobserved * train.nnz / max(users * items, 1)
        of_users, of_items = (self.ridge * max(train.nnz / max(n, 1), 1e-6) ** 0.5 for n in (users, items))
        v = _singular_vectors(by_user, self.rank, self.seed)
        for _ in range(self.passes):
            u = _solve(by_user, v, _inverse(v, alpha, of_users))
            v = _solve(by_item, u, _inverse(u, alpha, of_items))
        encoder = v @ _inverse(v, alpha, of_users)
        encoder /= 1 + np.einsum("ik,ik->i", encoder, v)[:, None]
        return LowRank(encoder, v)


def _singular_vectors(matrix: sp.csr_matrix, rank: int, seed: int) -> np.ndarray:
    """The right singular vectors of the largest singular values σ, each times √σ, by subspace iteration (Halko,
    Martinsson & Tropp 2011, algorithm 4.4). Where the matrix has fewer than `rank`, the other columns are about zero.

    Returns:
      float32 [columns, rank].
    """
    random = np.random.default_rng(seed)
    subspace = random.standard_normal((matrix.shape[1], rank + 10), np.float32)
    for _ in range(4):
        subspace = matrix.T @ np.linalg.qr(matrix @ subspace)[0]
    squares, rotation = np.linalg.eigh((subspace.T @ subspace).astype(np.float64))  # in ascending order
    squares = np.maximum(squares, max(1e-6 * squares[-1], np.finfo(np.float32).tiny))  # below is rounding
    weights = (rotation * squares**-0.25)[:, ::-1][:, :rank].astype(np.float32)
    return subspace @ np.pad(weights, ((0, 0), (0, rank - weights.shape[1])))


def _inverse(vectors: np.ndarray, alpha: float, ridge: float) -> np.ndarray:
    """(α·VᵀV + ridge·I)⁻¹, float32 [rank, rank]."""
    gram = alpha * (vectors.T @ vectors).astype(np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    return np.linalg.inv(gram).astype(np.float32)


def _solve(matrix: sp.csr_matrix, fixed: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """(P⁻¹ + FᵀF)⁻¹Fᵀ1 for each row, where F are the `fixed` vectors of the row's columns and P is `inverse`.

    Rows of one length are solved together: by Woodbury's identity, FᵀF being [rank, rank] and FPFᵀ [length, length],
    through the smaller of the two.

    Returns:
      float32 [rows, rank]; zeros for an empty row.
    """
    rank, lengths = fixed.shape[1], np.diff(matrix.indptr)
    weighted = fixed @ inverse  # the rows of FP
    solved = np.zeros((matrix.shape[0], rank), np.float32)
    precision = None
    for length in np.unique(lengths[lengths > 0]):
        rows = np.flatnonzero(lengths == length)
        through_length = length <= rank
        at_once = max(1, _CHUNK // int(length * 2 * rank + min(length, rank) ** 2))
        for start in range(0, len(rows), at_once):
            some = rows[start : start + at_once]
            columns = matrix.indices[matrix.indptr[some][:, None] + np.arange(length)]
            f = fixed[columns]  # [rows, length, rank]
            if through_length:
                fp = weighted[columns]
                system = fp @ f.transpose(0, 2, 1)
                system[:, np.arange(length), np.arange(length)] += 1
                sums = np.linalg.solve(system, np.ones((len(some), length, 1), np.float32))
                solved[some] = (sums.transpose(0, 2, 1) @ fp)[:, 0]
            else:
                if precision is None:
                    precision = np.linalg.inv(inverse.astype(np.float64)).astype(np.float32)
                system = precision + f.transpose(0, 2, 1) @ f
                solved[some] = np.linalg.solve(system, f.sum(axis=1)[..., None])[..., 0]
    return solved
