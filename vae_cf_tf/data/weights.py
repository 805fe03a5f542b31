"""Weights x_ui of the training users' items in the multinomial likelihood."""

import numpy as np
from scipy import sparse

from vae_cf_tf.settings import SplitSettings

DAY = 86_400.0  # seconds
LEAST = 1e-6
"""Lower limit of the factor by which age reduces an event's weight. It keeps every item in its history."""


def pair_weights(
    train: sparse.csr_matrix,
    rows: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray | None,
    times: np.ndarray | None,
    settings: SplitSettings,
) -> np.ndarray | None:
    """The weight x_ui of each pair of a training user u and an item i.

    1. An event's weight is its value in the weight column, or 1 without one. With `half_life_days`, it is multiplied by
       2^(−age / half_life_days), where age is the number of days before the last training event.
    2. x_ui is the largest weight of the pair's events (`repeats` = once), or their sum (`repeats` = sum).
    3. With `weight_scale` = log, x_ui becomes log2(1 + x_ui), which keeps 1 at 1.
    4. With `weight_cap`, x_ui is at most the cap.

    Args:
        train: [users, items], with sorted indices.
        rows, columns: int [events], user and item of each training event; `train` has each of these pairs.
        weights: float [events], above 0; None: 1 each.
        times: float64 [events], seconds since 1970; needed only with `half_life_days`.
        settings: the settings named above.

    Returns: float32 [train.nnz], in the order of train.indices; None if all are 1.
    """
    event_weights = np.ones(len(rows)) if weights is None else weights.astype(np.float64)
    if settings.half_life_days:
        assert times is not None
        age = (times.max() - times) / DAY
        event_weights *= np.maximum(np.exp2(-age / settings.half_life_days), LEAST)
    items = np.int64(train.shape[1])
    pairs = np.repeat(np.arange(train.shape[0], dtype=np.int64), np.diff(train.indptr)) * items + train.indices
    pair_of_event = np.searchsorted(pairs, rows.astype(np.int64) * items + columns)
    if settings.repeats == "sum":
        x = np.bincount(pair_of_event, event_weights, minlength=train.nnz)
    else:
        x = np.zeros(train.nnz)
        np.maximum.at(x, pair_of_event, event_weights)
    if settings.weight_scale == "log":
        x = np.log2(1 + x)
    if settings.weight_cap:
        x = np.minimum(x, settings.weight_cap)
    return None if (x == 1).all() else x.astype(np.float32)
