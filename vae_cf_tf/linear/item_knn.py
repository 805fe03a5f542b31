"""Item k-nearest neighbours: as a baseline, and beside the network."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.linear.base import Baseline, ItemItemModel, Scores, SparseRowBlock
from vae_cf_tf.settings import EvaluationSettings, ItemItemSettings

_ROWS = 2_000  # rows of S that are computed at once


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
        ones = train.astype(np.float32)
        weighted = (sp.diags(lengths**-self.user_power) @ ones).tocsr()
        by_item, ones_by_item = weighted.T.tocsr(), ones.T.tocsr()
        diagonal = np.maximum(np.asarray(weighted.sum(axis=0)).ravel(), np.finfo(np.float32).tiny)
        for start in range(0, train.shape[1], _ROWS):
            items = np.arange(start, min(start + _ROWS, train.shape[1]))
            block = by_item[items] @ ones  # rows of C, which become rows of S
            common_users = ones_by_item[items] @ ones
            block.sort_indices()
            common_users.sort_indices()
            row = np.repeat(items, np.diff(block.indptr))
            block.data *= common_users.data / (common_users.data + self.shrinkage)
            block.data *= diagonal[row] ** -self.power * diagonal[block.indices] ** (self.power - 1)
            block.data[block.indices == row] = 0
            yield SparseRowBlock(items, block)


class ItemNeighbours(ItemItemModel):
    """Item k-nearest neighbours as the item–item model beside the network.

    Use it for a sparse log of a large catalogue. There it ranks better than EASE, which covers only the most popular
    items, and takes seconds to compute.
    """

    @classmethod
    def from_settings(cls, settings: ItemItemSettings) -> "ItemNeighbours":
        return cls()

    def fit(self, train: sp.csr_matrix) -> Iterator[SparseRowBlock]:
        return Similarity(user_power=0.5, shrinkage=10, power=0.7).rows(train)


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
            cls(neighbours, user_power=user_power, shrinkage=10, power=power)
            for neighbours, user_power, power in (
                *((100, 0.5, 0.5), (0, 0.5, 0.5)),  # dense logs
                *((0, 0.5, 0.7), (0, 0.5, 0.85), (0, 1.0, 0.7)),  # sparse logs
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
        matrix = sp.vstack([block.values for block in self.similarity.rows(train)], format="csr")
        if self.neighbours:
            matrix = _largest_of_columns(matrix, self.neighbours)
        return lambda fold_in: (fold_in @ matrix).toarray()


def _largest_of_columns(matrix: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """The matrix, [items, items], with only the k largest values of each column and values equal to the k-th."""
    columns = matrix.tocsc()
    for start, end in zip(columns.indptr[:-1], columns.indptr[1:], strict=True):
        if end - start > k:
            values = columns.data[start:end]
            values[values < np.partition(values, -k)[-k]] = 0
    columns.eliminate_zeros()
    return columns.tocsr()
