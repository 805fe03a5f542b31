"""What is chosen on validation users: the weight of the item–item model and the popularity discount."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vae_cf_tf.data.split import HeldOut
from vae_cf_tf.evaluation import ranking
from vae_cf_tf.evaluation.metrics import MAIN
from vae_cf_tf.models import batches

WEIGHTS = (0.0, *(2.0 ** (step / 2) for step in range(19)))
"""Grid for the weight w: none, and 1 to 512 in steps of √2."""
DISCOUNTS, FACTORS = tuple(step / 10 for step in range(11)), (1.0, 2**0.5, 2.0)
"""Grid for the discount τ; each value is tried with the best w times each of FACTORS."""


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

    Where the largest value that was tried is the best, larger ones are tried, up to LARGEST.

    Args:
      parts: from histories to the network's log-probabilities, xB and the popularity term at τ = 1; float
        [batch, items] each.
      held_out: users, none of whom was trained on.
      batch_size: users at a time.
      discounts: values of τ; none: τ stays 0.
    """
    judged = held_out.with_targets()
    at_once = ranking.users_at_once(batch_size, judged.target.shape[1])
    tried: dict[tuple[float, float], Candidate] = {}

    @tf.function(input_signature=[batches.HISTORIES, tf.TensorSpec([None, 2])])
    def ranked(histories, pairs):
        scores, sums, popularity = parts(histories)
        return tf.map_fn(
            lambda pair: ranking.best_unseen(scores + pair[0] * sums - pair[1] * popularity, histories),
            pairs,
            fn_output_signature=tf.int32,
            parallel_iterations=1,
        )

    def best_of(pairs: Iterable[tuple[float, float]]) -> Candidate:
        """The best of all pairs up to these."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in tried]
        if new:
            lists = [ranked(histories, new).numpy() for _, histories in batches.in_order(judged.fold_in, at_once)]
            values = [ranking.per_user(ranks, judged)[MAIN].mean() for ranks in np.concatenate(lists, axis=1)]
            tried.update({pair: Candidate(*pair, float(value)) for pair, value in zip(new, values, strict=True)})
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
