"""Which of two systems is better, and how sure that is: means over users, paired differences, bootstrap intervals.

All intervals come from the percentile bootstrap over users (Efron 1979; `scipy.stats.bootstrap`): a sample of the same
size is drawn with replacement, `RESAMPLES` times, and the interval lies between quantiles of the resampled figures. It
shows how much a figure would vary with other users of the same kind. It does not cover other seeds or training data.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats

RESAMPLES = 2_000
LEVEL = 0.95
NUMBERS_AT_ONCE = 100_000
"""Numbers that SciPy draws at a time, so that memory does not grow with the users. More is no faster."""


class Estimate(NamedTuple):
    """A figure with its standard error and its interval."""

    mean: float
    stderr: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval, so that the sign of the figure is hardly chance."""
        return self.low > 0 or self.high < 0


def estimate(values: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean over users of `values`, float [users], with its interval."""
    return _bootstrap((np.asarray(values, np.float64),), np.mean, level, resamples, seed)


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The mean over users of `ours` − `theirs`, float [users] each, of the same users in the same order.

    Raises:
      ValueError: their shapes differ, or there is no user.
    """
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

    def share(parts: np.ndarray, wholes: np.ndarray, axis: int = -1) -> np.ndarray:
        whole = wholes.sum(axis)
        return np.where(whole > 0, parts.sum(axis) / np.where(whole > 0, whole, 1), np.nan)

    return _bootstrap((np.asarray(parts, np.float64), np.asarray(wholes, np.float64)), share, level, resamples, seed)


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], level: float, resamples: int, seed: int
) -> Estimate:
    """The statistic of samples of the same users, float [users] each, with its interval."""
    users = len(samples[0])
    if not users:
        raise ValueError("`values` should have at least one user. Received: 0.")
    value = float(statistic(*samples, axis=-1))
    if users == 1:  # every resample is the sample itself; SciPy refuses it
        return Estimate(value, 0.0, value, value)
    with warnings.catch_warnings():  # SciPy's own interval is NaN where a resample has no figure
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        resampled = scipy.stats.bootstrap(
            samples,
            statistic,
            n_resamples=resamples,
            batch=max(1, NUMBERS_AT_ONCE // users),
            vectorized=True,
            paired=len(samples) > 1,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(np.nanstd(resampled)), float(low), float(high))
