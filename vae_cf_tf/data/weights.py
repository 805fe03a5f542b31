"""Weights of a training user's items: x_ui ≥ 0 of the multinomial likelihood."""

import numpy as np
from scipy import sparse

from vae_cf_tf.settings import SplitSettings

DAY = 86_400.0
LEAST = 1e-6
"""The least weight that age leaves of an event, so that every item stays a part of its history."""


def pair_weights(
    train: sparse.csr_matrix,
    rows: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray | None,
    times: np.ndarray | None,
    settings: SplitSettings,
) -> np.ndarray | None:
    """x_ui of each pair of a training user and an item.

    An event's weight is that of the weight column, or 1, times 2^(−age / half_life_days), its age counted from the last
    of these events. A pair has the largest weight of its events (`repeats` = once) or their sum (sum). `weight_scale` =
    log makes x of it log2(1 + x), which leaves 1 as it is; then `weight_cap` is the most that counts.

    Args:
        train: [users, items], sorted indices.
        rows, columns: int [events], of the training events; each is a pair of `train`.
        weights: float [events], above 0; None: 1 each.
        times: float64 [events], seconds; only a half-life needs them.
        settings: those named above.

    Returns: float32 [train.nnz], in the order of train.indices; None where all are 1.
    """
    of_events = np.ones(len(rows)) if weights is None else weights.astype(np.float64)
    if settings.half_life_days:
        assert times is not None
        age = (times.max() - times) / DAY
        of_events *= np.maximum(np.exp2(-age / settings.half_life_days), LEAST)
    items = np.int64(train.shape[1])
    pairs = np.repeat(np.arange(train.shape[0], dtype=np.int64), np.diff(train.indptr)) * items + train.indices
    place = np.searchsorted(pairs, rows.astype(np.int64) * items + columns)
    if settings.repeats == "sum":
        x = np.bincount(place, of_events, minlength=train.nnz)
    else:
        x = np.zeros(train.nnz)
        np.maximum.at(x, place, of_events)
    if settings.weight_scale == "log":
        x = np.log2(1 + x)
    if settings.weight_cap:
        x = np.minimum(x, settings.weight_cap)
    return None if (x == 1).all() else x.astype(np.float32)
