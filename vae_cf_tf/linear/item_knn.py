"""Item k-nearest neighbours: as a baseline, and beside the network."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.errors import UserError
from vae_cf_tf.linear.base import Baseline, ItemItemModel, Scores, SparseRowBlock, largest, most_neighbours
from vae_cf_tf.settings import EvaluationSettings, ItemItemSettings
from vae_cf_tf.threads import map_in_order

_AT_ONCE = 5_000_000  # coefficients of S, or paths, that a thread computes at once, about
_MOST = 400_000_000
"""Coefficients of S that the baseline holds at most: 3.2 GB."""
_NEAREST, _MOST_NEAREST = 100, 50_000_000
"""Largest number of neighbours for S² in `ItemNeighbours`: of one item, and of all items together."""


class Similarity(NamedTuple):
    """S_ij = C_ij · n_ij/(n_ij + shrinkage) / (C_ii^power · C_jj^(1 − power)), with a zero diagonal.

    C = Xᵀ diag(|x_u|^−user_power) X, and n_ij is the number of users who have both items. i is an item of the history,
    j the item that is scored. With user_power 0 and power ½ this is the cosine with shrinkage of Koren & Bell 2011. A
    larger user_power gives less weight to users with many items. A larger power gives less weight to popular items of
    the history, and higher scores to popular items.
    """

    user_power: float
    shrinkage: float
    power: float

    def rows(self, train: sp.csr_matrix) -> Iterator[SparseRowBlock]:
        """Yields S, [items, items], in blocks of rows.

        Args:
          train: [users, items], 1 where a user has an item.
        """
        lengths = np.maximum(np.diff(train.indptr), 1).astype(np.float32)
        ones = train.astype(np.complex64)
        # One product for both: C is its real part, the numbers of common users are its imaginary part.
        by_item = (sp.diags(lengths**-self.user_power + 1j).astype(np.complex64) @ ones).T.tocsr()
        diagonal = np.maximum(np.asarray(by_item.sum(axis=1)).ravel().real, np.finfo(np.float32).tiny)

        def block(items: np.ndarray) -> SparseRowBlock:
            both = by_item[items] @ ones  # rows of C, which become rows of S
            both.sort_indices()
            row = np.repeat(items, np.diff(both.indptr))
            values = both.data.real * (both.data.imag / (both.data.imag + self.shrinkage))
            values *= diagonal[row] ** -self.power * diagonal[both.indices] ** (self.power - 1)
            values[both.indices == row] = 0
            return SparseRowBlock(items, sp.csr_matrix((values, both.indices, both.indptr), shape=both.shape))

        yield from map_in_order(block, _blocks(most_neighbours(train)))


def _blocks(sizes: np.ndarray) -> Iterator[np.ndarray]:
    """The numbers 0 to len(sizes) − 1 in blocks whose sizes add up to at most _AT_ONCE, or that hold one number."""
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        room = _AT_ONCE + (ends[start - 1] if start else 0)
        stop = max(start + 1, int(np.searchsorted(ends, room, side="right")))
        yield np.arange(start, stop)
        start = stop


def _keep_largest(rows: sp.csr_matrix, n: int) -> sp.csr_matrix:
    """`rows`, changed: only the n largest values of each row are kept, and values equal to the last of them."""
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        if end - start > n:
            values = rows.data[start:end]
            values[values < np.partition(values, -n)[-n]] = 0
    rows.eliminate_zeros()
    return rows


def _largest_of_rows(rows: sp.csr_matrix, most: np.ndarray) -> sp.csr_matrix:
    """The largest values of each row; `most`, int [rows], says how many at most."""
    starts = rows.indptr.astype(np.int64)
    of_rows = zip(starts[:-1], starts[1:], most, strict=True)
    kept = np.concatenate([starts[:0], *(start + largest(rows.data[start:end], n) for start, end, n in of_rows)])
    ends = np.cumsum(np.concatenate([starts[:1], np.minimum(np.diff(starts), most)]))
    return sp.csr_matrix((rows.data[kept], rows.indices[kept], ends), shape=rows.shape)


def _stacked(blocks: Iterable[sp.csr_matrix], room: int, columns: int) -> sp.csr_matrix:
    """The blocks of rows as one matrix with this number of columns and at most `room` coefficients. Blocks are copied
    as they come, because `scipy.sparse.vstack` would hold all blocks and the matrix at once."""
    indices, values = np.empty(room, np.int32), np.empty(room, np.float32)
    lengths, filled = [np.zeros(1, np.int64)], 0
    for rows in blocks:
        indices[filled : filled + rows.nnz], values[filled : filled + rows.nnz] = rows.indices, rows.data
        lengths.append(np.diff(rows.indptr))
        filled += rows.nnz
    indptr = np.cumsum(np.concatenate(lengths))
    return sp.csr_matrix((values[:filled], indices[:filled], indptr), shape=(len(indptr) - 1, columns))


class ItemNeighbours(ItemItemModel):
    """Item k-nearest neighbours as the item–item model beside the network: B = S − S²/(2ρ).

    S has only the largest coefficients of each row, as many as are stored. S² is computed at these places only, and
    from the 100 nearest neighbours of each item (fewer in a catalogue of more than 500,000 items). ρ is the mean row
    sum of the whole S, without empty rows. S² sums the paths over a third item: two similar items of a history
    recommend the same items, and S counts that twice. EASE corrects for it by a matrix inverse: its expansion
    (G + λI)⁻¹ = I/λ − G/λ² + G²/λ³ − …, where it converges, has G and G² with opposite signs too.

    The shrinkage is smaller than the best one for item-kNN alone, because the low-rank part beside it already smooths
    the similarities of pairs with few common users.

    Use it for a sparse log of a large catalogue. There it ranks better than EASE, which covers only the most popular
    items.
    """

    @classmethod
    def from_settings(cls, settings: ItemItemSettings) -> "ItemNeighbours":
        return cls()

    def fit(self, train: sp.csr_matrix, places: np.ndarray) -> Iterator[SparseRowBlock]:
        s, rho = self._stored(Similarity(user_power=0.5, shrinkage=3, power=0.7), train, places)
        of_each = max(1, min(_NEAREST, _MOST_NEAREST // max(train.shape[1], 1)))
        nearest = _largest_of_rows(s, np.full(len(places), of_each))

        def without_paths(items: np.ndarray) -> SparseRowBlock:
            rows = s[items]
            paths = (nearest[items] @ nearest).multiply(rows.astype(bool))
            changed = rows - paths * np.float32(0.5 / rho)
            changed.sort_indices()
            return SparseRowBlock(items, changed)

        yield from map_in_order(without_paths, _blocks(np.diff(nearest.indptr) * of_each))

    @staticmethod
    def _stored(similarity: Similarity, train: sp.csr_matrix, places: np.ndarray) -> tuple[sp.csr_matrix, float]:
        """The largest coefficients of each row of S, and ρ, which is 1 where S is 0."""
        sums = np.zeros(train.shape[1])

        def largest_of_blocks() -> Iterator[sp.csr_matrix]:
            for items, rows in similarity.rows(train):
                sums[items] = np.asarray(rows.sum(axis=1)).ravel()
                yield _largest_of_rows(rows, places[items])

        room = np.minimum(places, most_neighbours(train) + 1).sum()  # one for the diagonal, which is stored as 0
        s = _stacked(largest_of_blocks(), int(room), train.shape[1])
        return s, float(sums[sums > 0].mean()) if sums.any() else 1.0


class ItemKNN(Baseline):
    """Item k-nearest neighbours alone: the score of item j is the sum of S_ij over the items i of the history.

    Args:
      neighbours: how many of the largest similarities are kept for each scored item; 0: all.
      similarity: arguments of `Similarity`.
    """

    description = (
        "adds up similarities of items (Koren & Bell 2011), with the settings that rank best on validation users"
    )

    def __init__(self, neighbours: int, **similarity: float):
        self.neighbours, self.similarity = neighbours, Similarity(**similarity)

    @classmethod
    def candidates(cls, settings: EvaluationSettings, num_items: int) -> list[Baseline]:
        return [
            cls(neighbours, user_power=user_power, shrinkage=shrinkage, power=power)
            for neighbours, user_power, shrinkage, power in (
                *((100, 0.5, 10, 0.5), (0, 0.5, 10, 0.5)),  # dense logs
                *((0, 0.5, 3, 0.7), (0, 0.5, 10, 0.7), (0, 0.5, 10, 0.85), (0, 1.0, 10, 0.7)),  # sparse logs
            )
        ]

    @property
    def settings(self) -> dict[str, Any]:
        return {"neighbours": self.neighbours} | self.similarity._asdict()

    @property
    def label(self) -> str:
        kept = f"{self.neighbours} neighbours" if self.neighbours else "all neighbours"
        return f"item-kNN, {kept}, |x|^−{self.similarity.user_power:g}, n/(n + {self.similarity.shrinkage:g}), " + (
            f"power {self.similarity.power:g}"
        )

    def fit(self, train: sp.csr_matrix) -> Scores:
        matrix = self._nearest(train) if self.neighbours else self._all(train)
        return lambda fold_in: (fold_in @ matrix).toarray()

    def _nearest(self, train: sp.csr_matrix) -> sp.csr_matrix:
        """S with only the largest values of each column, and values equal to the last of them. Sᵀ is S with 1 − power
        for power, so its rows come in blocks as well."""
        transposed = self.similarity._replace(power=1 - self.similarity.power)
        kept = [_keep_largest(rows, self.neighbours) for _, rows in transposed.rows(train)]
        return sp.vstack(kept, format="csr").T.tocsr()

    def _all(self, train: sp.csr_matrix) -> sp.csr_matrix:
        room = int(most_neighbours(train).sum()) + train.shape[1]  # and the diagonal
        if room > _MOST:
            raise UserError(f"{self.label}: up to {room:,} coefficients would not fit, {_MOST:,} do.")
        return _stacked((rows for _, rows in self.similarity.rows(train)), room, train.shape[1])
