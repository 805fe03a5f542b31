"""Arithmetic of the report: groups of users and of items, coverage and concentration of recommendations."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp


class Group(NamedTuple):
    """Users or items that are shown together."""

    label: str
    members: np.ndarray  # bool, over users or over items


def by_history_length(fold_in: sp.csr_matrix, groups: int = 5) -> list[Group]:
    """Users in about equal groups by the length of their history; equal lengths stay together."""
    lengths = np.diff(fold_in.indptr)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, groups + 1)[1:-1], method="lower"))
    group = np.searchsorted(edges, lengths, side="left")  # of each user
    return [Group(_span(lengths[group == i]), group == i) for i in np.unique(group)]


def by_popularity(train: sp.csr_matrix, groups: int = 5) -> list[Group]:
    """Items in groups with about equal shares of the training interactions, the rarest first.

    Items of equal popularity stay together.
    """
    users = np.bincount(train.indices, minlength=train.shape[1])
    order = np.sort(users)
    reached = np.cumsum(order) / max(order.sum(), 1)
    at = np.minimum(np.searchsorted(reached, np.arange(1, groups) / groups), len(order) - 1)
    edges = np.unique(order[at])
    group = np.searchsorted(edges, users, side="left")  # of each item
    return [Group(_span(users[group == i]), group == i) for i in np.unique(group)]


def found_and_wanted(ranked: np.ndarray, target: sp.csr_matrix, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each user's held-out items that are in `items`: how many are in the user's list, and how many there are.

    Args:
      ranked: int [users, k], the lists.
      target: [users, items], the held-out items.
      items: bool [items].
    """
    wanted = target.multiply(items[None, :].astype(np.float32)).tocsr()
    listed = sp.csr_matrix(
        (np.ones(ranked.size, np.float32), ranked.ravel(), np.arange(len(ranked) + 1) * ranked.shape[1]), target.shape
    )
    return np.asarray(listed.multiply(wanted).sum(axis=1)).ravel(), np.asarray(wanted.sum(axis=1)).ravel()


def times_recommended(ranked: np.ndarray, items: int) -> np.ndarray:
    """The number of lists that each item is in, int [items]."""
    return np.bincount(ranked.ravel(), minlength=items)


def coverage(counts: np.ndarray) -> float:
    """Share of the catalogue that is in at least one list."""
    return float(np.mean(counts > 0))


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of the counts: 0 where all are equal, near 1 where one item has everything."""
    ordered = np.sort(counts).astype(np.float64)
    n, total = len(ordered), ordered.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total else 0.0


def concentration(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrays x and y, float [items + 1]: the share x of items with the largest counts has the share y of all counts."""
    ordered = np.sort(counts)[::-1]
    y = np.concatenate([[0.0], np.cumsum(ordered) / max(ordered.sum(), 1)])
    return np.linspace(0, 1, len(y)), y


def _span(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
