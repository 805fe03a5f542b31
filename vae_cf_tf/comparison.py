"""Which of two systems is better, and how sure is that: means over users, paired differences, bootstrap intervals.

All intervals come from the percentile bootstrap over users (Efron 1979): as many users as there are are drawn with
replacement, `RESAMPLES` times, and the interval is cut from the resampled figures. It tells how far the figure would
move with other users of the same kind; it knows nothing of other seeds or other training data.
"""

from typing import NamedTuple

import numpy as np

RESAMPLES = 2_000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A figure with its standard error and its interval."""

    mean: float
    stderr: float
    low: float
    high: float


def bootstrap_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means over users drawn with replacement, the same users for every column.

    Args:
      values: float [users, columns].
      resamples: how often all users are drawn.
      seed: of the draws.

    Returns:
      float64 [resamples, columns].
    """
    users = len(values)
    if not users:
        raise ValueError("`values` should have at least one user. Received: 0.")
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, 100):  # blocks, so that memory does not grow with the users
        drawn = rng.integers(users, size=(min(100, resamples - start), users))
        times = np.stack([np.bincount(row, minlength=users) for row in drawn])
        means[start : start + len(drawn)] = times @ np.asarray(values, np.float64) / users
    return means


def estimates(values: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> list[Estimate]:
    """The mean over users of each column of `values`, [users, columns], with interval."""
    columns = np.asarray(values, np.float64)
    resampled = bootstrap_means(columns, resamples, seed)
    return _cut(columns.mean(axis=0), resampled, level)


def estimate(values: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean over users of `values`, [users], with interval."""
    return estimates(np.asarray(values)[:, None], level, resamples, seed)[0]


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The mean over users of `ours` − `theirs`, a value a user each, of the same users in the same order."""
    if np.shape(ours) != np.shape(theirs):
        raise ValueError(
            f"`ours` and `theirs` should be values of the same users. Received: shapes {np.shape(ours)} and "
            f"{np.shape(theirs)}."
        )
    return estimate(np.asarray(ours, np.float64) - theirs, level, resamples, seed)


def ratio(
    parts: np.ndarray, wholes: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Σ parts / Σ wholes over users, such as the share of all held-out items that are found.

    A resample without any whole (a rare group of items) is left out of the interval.
    """
    means = bootstrap_means(np.stack([parts, wholes], axis=1), resamples, seed)
    drawn = means[means[:, 1] > 0]
    return _cut(np.array([np.sum(parts) / np.sum(wholes)]), drawn[:, :1] / drawn[:, 1:], level)[0]


def _cut(figures: np.ndarray, resampled: np.ndarray, level: float) -> list[Estimate]:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    rows = zip(figures, resampled.std(axis=0), low, high, strict=True)
    return [Estimate(*map(float, row)) for row in rows]
