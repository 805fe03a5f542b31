"""What is chosen on validation users: the weight of the item–item model and the popularity discount."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vae_cf_tf.data.split import HeldOut
from vae_cf_tf.evaluation import metrics, ranking
from vae_cf_tf.models import batches
from vae_cf_tf.models.histories import rows_of

WEIGHTS = (0.0, *(2.0 ** (step / 2) for step in range(19)))
"""Grid for the weight w: none, and 1 to 512 in steps of √2."""
DISCOUNTS, FACTORS = tuple(step / 10 for step in range(11)), (1.0, 2**0.5, 2.0)
"""Grid for the discount τ; each value is tried with the best w times each of FACTORS."""


POOL = 400
"""Items that each part of the sum brings into the comparison. On ML-1M the choice is that of the whole catalogue."""


class Candidate(NamedTuple):
    """Values of w and τ, and the mean NDCG@100 of held-out users."""

    weight: float
    discount: float
    ndcg: float


LARGEST = Candidate(weight=2.0**16, discount=4.0, ndcg=1.0)
"""Where the search for larger values ends."""


class Choice(NamedTuple):
    """What `choose` returns."""

    best: Candidate
    tried: list[Candidate]  # first that without the item–item model
    at_edge: list[str]  # of weight and discount, those whose best value is the largest that was tried


def choose(
    parts: Callable[[tf.RaggedTensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    held_out: HeldOut,
    batch_size: int,
    discounts: Sequence[float] = DISCOUNTS,
) -> Choice:
    """The w and τ that rank held-out users best: w with τ = 0, then τ with that w and larger ones.

    Where the largest value that was tried is the best, larger ones are tried, up to LARGEST. All are compared on the
    same items of each user (see `_Pool`).

    Args:
      parts: from histories to the network's log-probabilities, xB and the popularity term at τ = 1; float
        [batch, items] each.
      held_out: users, none of whom was trained on.
      batch_size: users at a time.
      discounts: values of τ; none: τ stays 0.
    """
    pool = _Pool(parts, held_out.with_targets(), batch_size)
    tried: dict[tuple[float, float], Candidate] = {}

    def best_of(pairs: Iterable[tuple[float, float]]) -> Candidate:
        """The best of all pairs up to these."""
        for pair in dict.fromkeys(pairs):
            if pair not in tried:
                tried[pair] = Candidate(*pair, pool.ndcg(*pair))
        return max(tried.values(), key=lambda t: t.ndcg)

    def edges(best: Candidate) -> list[str]:
        largest = {name: max(getattr(t, name) for t in tried.values()) for name in Candidate._fields[:2]}
        return [name for name, value in largest.items() if value and getattr(best, name) == value]

    best = best_of((weight, 0.0) for weight in WEIGHTS)
    best = best_of((best.weight * factor, tau) for factor in FACTORS for tau in discounts if tau)
    while wanting := [name for name in edges(best) if getattr(best, name) < getattr(LARGEST, name)]:
        factors = FACTORS if "weight" in wanting else (1.0,)
        steps = (0.0, 0.2, 0.4) if "discount" in wanting else (0.0,)
        best = best_of(
            (min(best.weight * factor, LARGEST.weight), min(round(best.discount + step, 1), LARGEST.discount))
            for factor in factors
            for step in steps
        )
    return Choice(best, list(tried.values()), edges(best))


class _Pool:
    """The items that can be among the best of some w and τ: those that the network, the item–item model, or the network
    less the whole popularity term ranks highest, POOL each. A search of fifty pairs then ranks a few hundred items of a
    user and not the catalogue.

    Args:
      parts, batch_size: as of `choose`.
      judged: users with targets.
    """

    def __init__(self, parts: Callable, judged: HeldOut, batch_size: int):
        pool = min(POOL, judged.target.shape[1])

        @tf.function(input_signature=[batches.HISTORIES])
        def best(histories):
            """The three parts at the pooled items, and these items in ascending order, some of them twice."""
            terms = parts(histories)
            scores, sums, popularity = terms
            ranked = [
                ranking.top_unseen(values, histories.values, rows_of(histories), pool)[1]
                for values in (scores, sums, scores - popularity)
            ]
            items = tf.sort(tf.concat(ranked, axis=1))
            seen = tf.math.is_inf(ranking.masked(tf.zeros_like(scores), histories.values, rows_of(histories)))
            out = tf.gather(seen, items, batch_dims=1) | tf.pad(items[:, 1:] == items[:, :-1], [[0, 0], [1, 0]])
            return *(tf.gather(term, items, batch_dims=1) for term in terms), items, out

        at_once = ranking.users_at_once(batch_size, judged.target.shape[1])
        pooled = [best(histories) for _, histories in batches.in_order(judged.fold_in, at_once)]
        self.scores, self.sums, self.popularity, items, out = (np.concatenate(p) for p in zip(*pooled, strict=True))
        self.scores[out] = -np.inf
        self.targets = np.diff(judged.target.indptr)
        self.is_target = metrics.hits(items, judged.target) & ~out

    def ndcg(self, weight: float, discount: float) -> float:
        """Mean NDCG@100 of the users with this w and τ."""
        scores = self.scores + np.float32(weight) * self.sums - np.float32(discount) * self.popularity
        top = np.argpartition(-scores, metrics.TOP - 1, axis=1)[:, : metrics.TOP]
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
        hit = np.take_along_axis(self.is_target, np.take_along_axis(top, order, 1), 1)
        return float(metrics.per_user(hit, self.targets)[metrics.MAIN].mean())
