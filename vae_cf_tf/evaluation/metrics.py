"""NDCG@k and Recall@k of ranked lists, a value a user (Liang et al. 2018, section 4.2)."""

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.errors import UserError

NDCG_AT = (10, 20, 50, 100)
RECALL_AT = (1, 5, 10, 20, 50, 100)
TOP = max(NDCG_AT + RECALL_AT)
METRICS = tuple(f"ndcg@{k}" for k in NDCG_AT) + tuple(f"recall@{k}" for k in RECALL_AT)
MAIN = "ndcg@100"
"""The metric by which epochs and settings are chosen on validation users."""
SHOWN = (MAIN, "ndcg@10", "recall@20", "recall@50")
"""Metrics of a short table."""


def check_catalogue(num_items: int) -> None:
    """Raises UserError if there are fewer items than a metric ranks."""
    if num_items < TOP:
        raise UserError(
            f"The catalogue has {num_items} items, fewer than the {TOP} that NDCG@{TOP} ranks. "
            "Keep more items (--min_users_per_item, --threshold) or bring more data."
        )


def hits(ranked: np.ndarray, target: sp.csr_matrix) -> np.ndarray:
    """Whether each ranked item is a target: bool [users, k].

    Args:
      ranked: int [users, k], item indices, best first.
      target: [users, items] with sorted indices.

    Examples:
      >>> hits(np.array([[3, 0, 1]]), sp.csr_matrix([[0, 1, 0, 1]])).tolist()
      [[True, False, True]]
    """
    items = np.int64(target.shape[1])
    wanted = np.repeat(np.arange(target.shape[0]), np.diff(target.indptr)) * items + target.indices  # ascending
    asked = np.arange(len(ranked))[:, None] * items + ranked
    found = np.searchsorted(wanted, asked)
    return np.append(wanted, -1)[found] == asked


def per_user(hit: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric's value of each user, float64 [users].

    DCG@k sums 1/log2(rank + 1) over the hits; NDCG@k divides by that of min(k, targets) hits at the top; Recall@k is
    hits / min(k, targets).

    Args:
      hit: bool [users, TOP], whether the item at each rank is a target.
      targets: int [users], number of targets, at least 1.

    Examples:
      >>> hit = np.zeros([1, TOP], bool)
      >>> hit[0, [0, 2]] = True  # two of three targets, at ranks 1 and 3
      >>> values = per_user(hit, targets=np.array([3]))
      >>> round(float(values["ndcg@100"][0]), 3), round(float(values["recall@20"][0]), 3)
      (0.704, 0.667)
    """
    gain = 1 / np.log2(np.arange(2, hit.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(gain)])
    values = {f"ndcg@{k}": hit[:, :k] @ gain[:k] / ideal[np.minimum(k, targets)] for k in NDCG_AT}
    return values | {f"recall@{k}": hit[:, :k].sum(1) / np.minimum(k, targets) for k in RECALL_AT}


def summary(values: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Mean and standard error over users of each metric."""
    return {
        name: {"mean": float(np.mean(v)), "stderr": float(np.std(v) / np.sqrt(len(v)))} for name, v in values.items()
    }
