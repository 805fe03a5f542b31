"""Recommendations from the items that a request allows: its candidates, without its exclusions."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from export.served_model import LOWEST, ServedModel
from vae_cf_tf.evaluation.ranking import top_unseen
from vae_cf_tf.models.histories import rows_of


class Rules(NamedTuple):
    """Which items a request allows, for each of its histories.

    "" and repeated ids are ignored. An unknown id names no item, but it counts as a candidate: a row whose candidates
    are all unknown gets no item.
    """

    candidates: tf.RaggedTensor  # string [batch, (ids)]: only these are ranked; in a row without candidates, all items
    exclude: tf.RaggedTensor  # string [batch, (ids)]: these are never ranked
    include_history: tf.Tensor  # bool [batch]: whether items of the history may be ranked


def best_allowed(served: ServedModel, history: tf.RaggedTensor, rules: Rules) -> dict[str, tf.Tensor]:
    """The best items that the rules allow, and their scores.

    In a row without candidates, a score is the item's log-probability over the catalogue, as in `recommend`. In a row
    with candidates, it is the log-probability given that one of the row's known candidates is chosen. Excluded
    candidates count among these. Such a row needs no score of other items: if each row has candidates, and they are few
    in all rows together, only the candidates are scored.

    Args:
      served: the model.
      history: string [batch, (ids)].
      rules: what is allowed in each row.

    Returns:
      `item_ids`, string [batch, k], and `scores`, float [batch, k], best first.
    """
    histories = served.known_items(history)
    items, rows = histories[:2]
    listed, listed_rows = _columns(served, rules.candidates)
    excluded, excluded_rows = _columns(served, rules.exclude)
    not_included = tf.where(~tf.gather(rules.include_history, rows))[:, 0]  # of the histories' items
    forbidden = tf.concat([tf.gather(items, not_included), excluded], axis=0)
    forbidden_rows = tf.concat([tf.gather(rows, not_included), excluded_rows], axis=0)
    has_candidates = _any_id(rules.candidates)

    is_candidate = tf.tensor_scatter_nd_update(
        tf.zeros([served.num_items], tf.bool), listed[:, None], tf.ones_like(listed, tf.bool)
    )
    candidates = tf.cast(tf.where(is_candidate)[:, 0], tf.int32)

    def of_catalogue() -> tuple[tf.Tensor, tf.Tensor]:
        scores = served.log_probs(*histories)
        scores = tf.cond(
            tf.reduce_any(has_candidates),
            lambda: _given_candidates(scores, has_candidates, listed, listed_rows),
            lambda: scores,
        )
        return top_unseen(scores, forbidden, forbidden_rows, served.top_k)

    def of_candidates() -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.size(candidates)
        # The position of each column of the catalogue among the candidates; −1: it is none.
        position_of = tf.tensor_scatter_nd_update(tf.fill([served.num_items], -1), candidates[:, None], tf.range(size))
        scores = served.scores_of(*histories, candidates)
        scores = _given_candidates(scores, has_candidates, tf.gather(position_of, listed), listed_rows)
        positions = tf.gather(position_of, forbidden)
        scored = tf.where(positions >= 0)[:, 0]
        count = tf.minimum(size, served.top_k)
        best, best_positions = top_unseen(
            scores, tf.gather(positions, scored), tf.gather(forbidden_rows, scored), count
        )
        padding = [[0, 0], [0, served.top_k - count]]
        best_columns = tf.gather(candidates, best_positions)
        return tf.pad(best, padding, constant_values=-np.inf), tf.pad(best_columns, padding)

    few = tf.reduce_all(has_candidates) & (tf.size(candidates) <= served.few_items)
    scores, columns = tf.cond(few, of_candidates, of_catalogue)
    shape = [None, served.top_k]
    return served.named(tf.ensure_shape(scores, shape), tf.ensure_shape(columns, shape))


def _given_candidates(scores: tf.Tensor, has_candidates: tf.Tensor, columns: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Log-probabilities given that one of a row's candidates is chosen, and −∞ for other items: float [batch, n].

    Rows without candidates are returned as they are.

    Args:
      scores: float [batch, n], log-probabilities up to a constant per row.
      has_candidates: bool [batch].
      columns, rows: int32 [known]: the column in `scores` and the row of each known candidate.
    """
    unrestricted = tf.broadcast_to(~has_candidates[:, None], tf.shape(scores))
    cells = tf.stack([rows, columns], axis=1)
    allowed = tf.tensor_scatter_nd_update(unrestricted, cells, tf.ones_like(rows, tf.bool))
    masked = tf.where(allowed, scores, -np.inf)
    largest = tf.maximum(tf.reduce_max(masked, axis=1, keepdims=True), LOWEST)  # finite if no candidate is known
    total = largest + tf.math.log(tf.reduce_sum(tf.exp(masked - largest), axis=1, keepdims=True))
    return tf.where(allowed & has_candidates[:, None], scores - total, masked)


def unknown_ids(served: ServedModel, history: tf.RaggedTensor) -> tf.Tensor:
    """Counts the distinct ids of each history, string [batch, (ids)], that are not in the catalogue: int32 [batch].

    "" is not counted.
    """
    unknown = tf.where((served.column_of.lookup(history.values) < 0) & (history.values != ""))[:, 0]
    texts = tf.unique(tf.gather(history.values, unknown), out_idx=tf.int64).idx
    width = tf.size(unknown, tf.int64) + 1
    cells = tf.unique(tf.cast(tf.gather(rows_of(history), unknown), tf.int64) * width + texts).y
    batch = tf.cast(history.nrows(), tf.int32)
    return tf.math.bincount(tf.cast(cells // width, tf.int32), minlength=batch, maxlength=batch)


def _columns(served: ServedModel, ids: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The columns of the known ids, repeats included, and their rows: int32 [known] each. `ids`: [batch, (ids)]."""
    columns = served.column_of.lookup(ids.values)
    known = tf.where(columns >= 0)[:, 0]
    return tf.cast(tf.gather(columns, known), tf.int32), tf.gather(rows_of(ids), known)


def _any_id(ids: tf.RaggedTensor) -> tf.Tensor:
    """Whether each row has an id other than "", known or not: bool [batch]."""
    return (
        tf.math.unsorted_segment_sum(tf.cast(ids.values != "", tf.int32), rows_of(ids), tf.cast(ids.nrows(), tf.int32))
        > 0
    )
