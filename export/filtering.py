"""Recommendations under the rules of a request: which items may be ranked, and which never."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from export.served_model import LOWEST, ServedModel
from vae_cf_tf.evaluation.ranking import top_unseen
from vae_cf_tf.models.histories import rows_of


class Rules(NamedTuple):
    """What a request allows for each of its histories. "", unknown ids and repeats change nothing."""

    candidates: tf.RaggedTensor  # string [batch, (ids)]: only these are ranked; a row without any: all items are
    exclude: tf.RaggedTensor  # string [batch, (ids)]: never ranked
    include_history: tf.Tensor  # bool [batch]: whether items of the history may be ranked


def best_allowed(served: ServedModel, history: tf.RaggedTensor, rules: Rules) -> dict[str, tf.Tensor]:
    """`item_ids` and `scores`, [batch, k] each, of the best items that the rules allow.

    The score of a row without candidates is the item's log-probability over the catalogue, as `recommend` has it. With
    candidates it is the log-probability given that one of the known candidates is chosen, excluded ones included: so
    the other items need no score. Where each row has candidates and they are few in all, only theirs are computed.

    Args:
      served: the model.
      history: string [batch, (ids)].
      rules: of each row.
    """
    histories = served.known_items(history)
    items, rows = histories[:2]
    listed, listed_rows = _columns(served, rules.candidates)
    excluded, excluded_rows = _columns(served, rules.exclude)
    kept = tf.where(~tf.gather(rules.include_history, rows))[:, 0]
    never = tf.concat([tf.gather(items, kept), excluded], axis=0)
    never_rows = tf.concat([tf.gather(rows, kept), excluded_rows], axis=0)
    has_candidates = _any_id(rules.candidates)

    is_candidate = tf.tensor_scatter_nd_update(
        tf.zeros([served.num_items], tf.bool), listed[:, None], tf.ones_like(listed, tf.bool)
    )
    some = tf.cast(tf.where(is_candidate)[:, 0], tf.int32)

    def of_catalogue() -> tuple[tf.Tensor, tf.Tensor]:
        scores = served.log_probs(*histories)
        scores = tf.cond(
            tf.reduce_any(has_candidates),
            lambda: _given_candidates(scores, has_candidates, listed, listed_rows),
            lambda: scores,
        )
        return top_unseen(scores, never, never_rows, served.top_k)

    def of_candidates() -> tuple[tf.Tensor, tf.Tensor]:
        place = tf.tensor_scatter_nd_update(tf.fill([served.num_items], -1), some[:, None], tf.range(tf.size(some)))
        scores = served.scores_of(*histories, some)
        scores = _given_candidates(scores, has_candidates, tf.gather(place, listed), listed_rows)
        among = tf.where(tf.gather(place, never) >= 0)[:, 0]
        seen, seen_rows = tf.gather(place, tf.gather(never, among)), tf.gather(never_rows, among)
        count = tf.minimum(tf.size(some), served.top_k)
        best, places = top_unseen(scores, seen, seen_rows, count)
        rest = [[0, 0], [0, served.top_k - count]]
        return tf.pad(best, rest, constant_values=-np.inf), tf.pad(tf.gather(some, places), rest)

    few = tf.reduce_all(has_candidates) & (tf.size(some) <= served.few_items)
    scores, columns = tf.cond(few, of_candidates, of_catalogue)
    shape = [None, served.top_k]
    return served.named(tf.ensure_shape(scores, shape), tf.ensure_shape(columns, shape))


def _given_candidates(scores: tf.Tensor, has_candidates: tf.Tensor, columns: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Log-probabilities given that a candidate is chosen; −∞ for all else. Rows without candidates stay as they are.

    Args:
      scores: float [batch, n], log-probabilities up to a number that a row has in common.
      has_candidates: bool [batch].
      columns, rows: int32 [candidates], the known ones and the row of each.
    """
    others = tf.broadcast_to(~has_candidates[:, None], tf.shape(scores))
    cells = tf.stack([rows, columns], axis=1)
    allowed = tf.tensor_scatter_nd_update(others, cells, tf.ones_like(rows, tf.bool))
    masked = tf.where(allowed, scores, -np.inf)
    largest = tf.maximum(tf.reduce_max(masked, axis=1, keepdims=True), LOWEST)  # finite in rows without a known one
    total = largest + tf.math.log(tf.reduce_sum(tf.exp(masked - largest), axis=1, keepdims=True))
    return tf.where(allowed & has_candidates[:, None], scores - total, masked)


def unknown_ids(served: ServedModel, history: tf.RaggedTensor) -> tf.Tensor:
    """How many distinct ids of each history the catalogue lacks, int32 [batch]; "" is no id."""
    unknown = tf.where((served.column_of.lookup(history.values) < 0) & (history.values != ""))[:, 0]
    texts = tf.unique(tf.gather(history.values, unknown), out_idx=tf.int64).idx
    width = tf.size(unknown, tf.int64) + 1
    cells = tf.unique(tf.cast(tf.gather(rows_of(history), unknown), tf.int64) * width + texts).y
    batch = tf.cast(history.nrows(), tf.int32)
    return tf.math.bincount(tf.cast(cells // width, tf.int32), minlength=batch, maxlength=batch)


def _columns(served: ServedModel, ids: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Columns of the known ids, repeats included, and the row of each: int32 [known]."""
    columns = served.column_of.lookup(ids.values)
    known = tf.where(columns >= 0)[:, 0]
    return tf.cast(tf.gather(columns, known), tf.int32), tf.gather(rows_of(ids), known)


def _any_id(ids: tf.RaggedTensor) -> tf.Tensor:
    """Whether a row has an id, known or not: bool [batch]."""
    return (
        tf.math.unsorted_segment_sum(tf.cast(ids.values != "", tf.int32), rows_of(ids), tf.cast(ids.nrows(), tf.int32))
        > 0
    )
