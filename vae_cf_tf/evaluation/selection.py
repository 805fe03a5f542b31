"""What is chosen on validation users: the weight of the item–item model, the share of its low-rank part in it, and the
popularity discount."""

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
SHARES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Grid for the share of the low-rank part; each value is tried with each w. At 1, the scores of both parts of the
item–item model have the same standard deviation over the items (a mean over users)."""


POOL = 400
"""Items that each part of the sum brings into the comparison. On ML-1M the choice is that of the whole catalogue."""


class Candidate(NamedTuple):
    """Values of w, τ and the share of the low-rank part, and the mean NDCG@100 of held-out users."""

    weight: float
    discount: float
    ndcg: float
    share: float = 0.0


LARGEST = Candidate(weight=2.0**16, discount=4.0, ndcg=1.0)
"""Where the search for larger values ends."""


class Choice(NamedTuple):
    """What `choose` returns."""

    best: Candidate
    tried: list[Candidate]  # first that without the item–item model
    at_edge: list[str]  # of weight and discount, those whose best value is the largest that was tried


def choose(
    parts: Callable[[tf.RaggedTensor], tuple[tf.Tensor, ...]],
    held_out: HeldOut,
    batch_size: int,
    discounts: Sequence[float] = DISCOUNTS,
) -> Choice:
    """The w, share and τ that rank held-out users best.

    First w and share are chosen with τ = 0; then τ, with this share and w times each of FACTORS. If the largest w or τ
    tried is the best, larger ones are tried, up to LARGEST. All are compared on the same items of each user (`_Pool`).

    Args:
      parts: from histories to the network's log-probabilities, the scores by B's stored rows, the popularity term at
        τ = 1 and, if B has a low-rank part, the scores by it at share 1; float [batch, items] each.
      held_out: users, none of whom was trained on.
      batch_size: users at a time.
      discounts: values of τ; none: τ stays 0.
    """
    pool = _Pool(parts, held_out.with_targets(), batch_size)
    tried: dict[tuple[float, float, float], Candidate] = {}

    def best_of(values: Iterable[tuple[float, float, float]]) -> Candidate:
        """The best of all w, τ and shares up to these."""
        for weight, discount, share in dict.fromkeys(values):
            if (weight, discount, share) not in tried:
                ndcg = pool.ndcg(weight, discount, share)
                tried[weight, discount, share] = Candidate(weight, discount, ndcg, share)
        return max(tried.values(), key=lambda t: t.ndcg)

    def edges(best: Candidate) -> list[str]:
        largest = {name: max(getattr(t, name) for t in tried.values()) for name in Candidate._fields[:2]}
        return [name for name, value in largest.items() if value and getattr(best, name) == value]

    shares = [share * pool.share_unit for share in SHARES] if pool.share_unit else [0.0]
    best = best_of((weight, 0.0, share if weight else 0.0) for share in shares for weight in WEIGHTS)
    best = best_of((best.weight * factor, tau, best.share) for factor in FACTORS for tau in discounts if tau)
    while wanting := [name for name in edges(best) if getattr(best, name) < getattr(LARGEST, name)]:
        factors = FACTORS if "weight" in wanting else (1.0,)
        steps = (0.0, 0.2, 0.4) if "discount" in wanting else (0.0,)
        best = best_of(
            (
                min(best.weight * factor, LARGEST.weight),
                min(round(best.discount + step, 1), LARGEST.discount),
                best.share,
            )
            for factor in factors
            for step in steps
        )
    return Choice(best, list(tried.values()), edges(best))


class _Pool:
    """The candidate items of each user: the POOL best by the network, by each part of the item–item model, and by the
    network minus the popularity term at τ = 1. The search ranks these few hundred items instead of the catalogue.

    Args:
      parts, batch_size: as of `choose`.
      judged: users with targets.
    """

    def __init__(self, parts: Callable, judged: HeldOut, batch_size: int):
        pool = min(POOL, judged.target.shape[1])

        def best(histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
            """The parts at the pooled items, these items in ascending order, some of them twice, which of them are no
            candidates, and each user's spread of the item–item model's parts."""
            terms = parts(histories)
            scores, rows, popularity, *factors = terms
            ranked = [
                ranking.top_unseen(values, histories.values, rows_of(histories), pool)[1]
                for values in (scores, rows, scores - popularity, *factors)
            ]
            items = tf.sort(tf.concat(ranked, axis=1))
            seen = tf.math.is_inf(ranking.masked(tf.zeros_like(scores), histories.values, rows_of(histories)))
            out = tf.gather(seen, items, batch_dims=1) | tf.pad(items[:, 1:] == items[:, :-1], [[0, 0], [1, 0]])
            spread = tf.stack([tf.math.reduce_std(part, axis=1) for part in (rows, *factors)], axis=1)
            return *(tf.gather(term, items, batch_dims=1) for term in terms), items, out, spread

        at_once = ranking.users_at_once(batch_size, 4 * judged.target.shape[1])  # a dozen tensors of scores
        traced = batches.traced(best)
        pooled = [traced(histories) for _, histories in batches.in_order(judged.fold_in, at_once)]
        *terms, items, out, spread = (np.concatenate(p) for p in zip(*pooled, strict=True))
        self.scores, self.rows, self.popularity = terms[:3]
        self.share_unit = 0.0
        if len(terms) > 3 and spread[:, 1].any():
            self.factors = terms[3]
            self.share_unit = float(spread[:, 0].mean() / spread[:, 1].mean())
        self.scores[out] = -np.inf
        self.targets = np.diff(judged.target.indptr)
        self.is_target = metrics.hits(items, judged.target) & ~out

    def ndcg(self, weight: float, discount: float, share: float = 0.0) -> float:
        """Mean NDCG@100 of the users with this w, τ and share."""
        sums = self.rows + np.float32(share) * self.factors if share else self.rows
        scores = self.scores + np.float32(weight) * sums - np.float32(discount) * self.popularity
        top = np.argpartition(-scores, metrics.TOP - 1, axis=1)[:, : metrics.TOP]
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
        hit = np.take_along_axis(self.is_target, np.take_along_axis(top, order, 1), 1)
        return float(metrics.per_user(hit, self.targets)[metrics.MAIN].mean())
