"""What a baseline and an item–item model are."""

import abc
import itertools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.settings import EvaluationSettings, ItemItemSettings

Scores = Callable[[sp.csr_matrix], np.ndarray]
"""From histories, [users, items], to scores of the same shape."""


class Skipped(Exception):
    """Why a baseline is left out, in a sentence for people."""


def item_counts(train: Any) -> np.ndarray:
    """Training users of each item, int64 [items], of a matrix [users, items] or of users that are not in memory."""
    return np.bincount(train.indices, minlength=train.shape[1]) if sp.issparse(train) else train.item_counts()


def most_neighbours(train: sp.csr_matrix) -> np.ndarray:
    """An upper bound on each item's number of neighbours (other items that share a user with it): int [items]."""
    pairs = train.T @ np.maximum(np.diff(train.indptr) - 1, 0)  # counts a neighbour once for each shared user
    return np.minimum(pairs, train.shape[1] - 1).astype(np.int64)


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Where the n largest of these values are, int, ascending; all places if there are no more than n."""
    return np.sort(np.argpartition(-values, n)[:n]) if n < len(values) else np.arange(len(values))


class Baseline(abc.ABC):
    """What a deep model has to beat. A subclass is made by its own settings, as keywords, and has a line in
    `vae_cf_tf.registries`."""

    description: ClassVar[str]
    """What it does, to follow its label in a sentence."""

    out_of_core: ClassVar[bool] = False
    """Whether `fit` also takes training users that are not in memory, of which it asks `item_counts()` only."""

    @classmethod
    @abc.abstractmethod
    def candidates(cls, settings: EvaluationSettings, num_items: int) -> list["Baseline"]:
        """Those that are tried; the best on validation users is reported.

        Raises:
          Skipped: the data or the settings leave it out.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords that make this baseline again."""
        return {}

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What people read."""

    @abc.abstractmethod
    def fit(self, train: sp.csr_matrix) -> Scores:
        """Fits it to training users, [users, items]. Raises UserError where they do not allow it."""


class RowBlock(NamedTuple):
    """Some rows of an item–item matrix B, in the columns in which they may differ from 0."""

    items: np.ndarray  # int [n]: which rows
    columns: np.ndarray  # int [m]
    values: np.ndarray  # float [n, m]

    def rows(self) -> Iterator["Row"]:
        return zip(self.items, itertools.repeat(self.columns), self.values, strict=False)


class SparseRowBlock(NamedTuple):
    """Some rows of an item–item matrix B most of which is 0."""

    items: np.ndarray  # int [n]: which rows
    values: sp.csr_matrix  # [n, items]

    def rows(self) -> Iterator["Row"]:
        starts = self.values.indptr
        for item, start, end in zip(self.items, starts[:-1], starts[1:], strict=True):
            yield item, self.values.indices[start:end], self.values.data[start:end]


Row = tuple[int, np.ndarray, np.ndarray]
"""An item, columns, and the values of its row there."""


class ItemItemModel(abc.ABC):
    """A linear model from items to items: scores xB, with a zero diagonal. It stands beside the network."""

    @classmethod
    @abc.abstractmethod
    def from_settings(cls, settings: ItemItemSettings) -> "ItemItemModel":
        """The model of these settings."""

    @abc.abstractmethod
    def fit(self, train: sp.csr_matrix, places: np.ndarray) -> Iterator[RowBlock | SparseRowBlock]:
        """B, block by block; a row that is in no block is 0.

        Args:
          train: training users, [users, items].
          places: int [items], how many coefficients of each row are stored at most. The caller cuts a longer row to
            the coefficients of largest absolute value, so a model may ignore this.

        Raises:
          UserError: the users or the settings do not allow it.
        """
