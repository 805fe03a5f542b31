"""Who gains and what is recommended: groups of users and of items, coverage, concentration."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp


class Group(NamedTuple):
    """Users, or items, of a kind."""

    label: str
    members: np.ndarray  # bool, over users or over items


def by_history_length(fold_in: sp.csr_matrix, groups: int = 5) -> list[Group]:
    """Users in about equal groups by the length of their history; equal lengths stay together."""
    lengths = np.diff(fold_in.indptr)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, groups + 1)[1:-1], method="lower"))
    place = np.searchsorted(edges, lengths, side="left")
    return [Group(_span(lengths[place == i]), place == i) for i in np.unique(place)]


def by_popularity(train: sp.csr_matrix, groups: int = 5) -> list[Group]:
    """Items in groups that hold about equal shares of the training interactions, the rarest first; items of equal
    popularity stay together."""
    users = np.bincount(train.indices, minlength=train.shape[1])
    order = np.sort(users)
    reached = np.cumsum(order) / max(order.sum(), 1)
    at = [min(np.searchsorted(reached, i / groups), len(order) - 1) for i in range(1, groups)]
    edges = np.unique(order[at])
    place = np.searchsorted(edges, users, side="left")
    return [Group(_span(users[place == i]), place == i) for i in np.unique(place)]


def found_and_wanted(ranked: np.ndarray, target: sp.csr_matrix, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the held-out items that are in `items` (bool [items]): how many of each user are in `ranked`, [users, k], and
    how many there are."""
    wanted = target.multiply(items[None, :].astype(np.float32)).tocsr()
    asked = sp.csr_matrix(
        (np.ones(ranked.size, np.float32), ranked.ravel(), np.arange(len(ranked) + 1) * ranked.shape[1]), target.shape
    )
    return np.asarray(asked.multiply(wanted).sum(axis=1)).ravel(), np.asarray(wanted.sum(axis=1)).ravel()


def times_recommended(ranked: np.ndarray, items: int) -> np.ndarray:
    """In how many lists each item is, int [items]."""
    return np.bincount(ranked.ravel(), minlength=items)


def coverage(counts: np.ndarray) -> float:
    """Share of the catalogue that is recommended to anyone."""
    return float(np.mean(counts > 0))


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of the counts: 0 where all items are recommended alike, near 1 where one item is everything."""
    ordered = np.sort(counts).astype(np.float64)
    n, total = len(ordered), ordered.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total else 0.0


def concentration(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of all recommendations (y) that the most recommended share of the catalogue (x) gets, from 0 to 1."""
    ordered = np.sort(counts)[::-1]
    y = np.concatenate([[0.0], np.cumsum(ordered) / max(ordered.sum(), 1)])
    return np.linspace(0, 1, len(y)), y


def _span(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
