"""A linear path from items to items beside the decoder: f(z) + w·xB − τ_x log n, B in closed form, w and τ from
validation users.

A deep model and a shallow one see different things (Vančura & Kordík 2021, VASP, train the two as one). Here they are
made in turn: a finished B, which fits its own training users far better than any others, would leave the decoder
nothing to learn from them.

Two experts that both know how popular items are count it twice when they are multiplied; the last term divides by some
of what they share, as Hinton 2002 does for experts and as Menon et al. 2021, section 4, adjust logits by log priors.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf import batches, evaluation, gram
from vae_cf_tf.blocks import Linear
from vae_cf_tf.data.split import HeldOut
from vae_cf_tf.errors import UserError
from vae_cf_tf.histories import ones

USER_POWER = ITEM_POWER = 0.25
WEIGHTS = (0.0, *(2.0 ** (step / 2) for step in range(19)))
"""The values of w that are tried: none, and 1 to 512 in steps of √2."""
DISCOUNTS, FACTORS = tuple(step / 10 for step in range(11)), (1.0, 2**0.5, 2.0)
"""The values of τ that are tried, each with the best w times each factor."""
HALF_AT = 20
"""Items of a history at which τ_x is τ/2. On ML-1M τ_x = τ lost as much with ten or fewer of a user's items as it
gained with all of them: who is hardly known is served best by what is popular."""


class ItemPath(keras.layers.Layer):
    """w·xB − τ_x log n: B whole where it fits into `megabytes`, else the largest coefficients of each row.

    Differs from EASE (`vae_cf_tf.baselines`) in its normalisation, see `fit`, and in that it takes memory by items, not
    by their square.

    n is an item's training users plus 1, τ_x = τ·|x| / (|x| + HALF_AT). w and τ are the variables `weight` and
    `discount`, 0 until they are set.

    Args:
      num_items: size of the catalogue.
      megabytes: 10⁶ bytes that B may take.

    Call arguments:
      histories: int32 [batch, (items)].

    Returns:
      float [batch, num_items].
    """

    def __init__(self, num_items: int, megabytes: int, **kwargs):
        super().__init__(**kwargs)
        self.num_items, frozen = num_items, {"initializer": "zeros", "trainable": False}
        self.neighbours = min(num_items, max(1, megabytes * 10**6 // (8 * num_items)))
        self.whole = 4 * num_items**2 <= megabytes * 10**6
        if self.whole:
            self.b = Linear(num_items, num_items, items=num_items, name="b")
            self.b.trainable = False
        else:
            shape = (num_items, self.neighbours)
            self.columns = self.add_weight(shape=shape, dtype="int32", name="columns", **frozen)
            self.coefficients = self.add_weight(shape=shape, name="coefficients", **frozen)
        self.log_counts = self.add_weight(shape=(num_items,), name="log_counts", **frozen)
        self.weight = self.add_weight(shape=(), name="weight", **frozen)
        self.discount = self.add_weight(shape=(), name="discount", **frozen)
        self.built = True

    def call(self, histories: tf.RaggedTensor) -> tf.Tensor:
        return self.weight * self.sums(histories) - self.discount * self.shared(histories)

    def shared(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """τ_x log n at τ = 1, float [batch, num_items]."""
        length = tf.cast(histories.row_lengths(), tf.float32)
        return (length / (length + HALF_AT))[:, None] * self.log_counts

    def sums(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """xB, float [batch, num_items]."""
        batch = tf.cast(histories.nrows(), tf.int32)
        if self.whole:
            return self.b.product(ones(histories))
        columns, coefficients = (tf.convert_to_tensor(v) for v in (self.columns, self.coefficients))

        def of_user(items: tf.Tensor) -> tf.Tensor:
            place, found = (tf.reshape(tf.gather(t, items), [1, -1]) for t in (columns, coefficients))
            return tf.raw_ops.DenseBincount(  # five times as fast as a segment sum, and in order where it has one row
                input=place, size=self.num_items, weights=found, binary_output=False
            )[0]

        # User by user: memory by one history, and sums whose order does not depend on who else is in the batch.
        splits, items = histories.row_splits, histories.values
        answer = tf.TensorSpec([self.num_items], coefficients.dtype)
        return tf.map_fn(
            lambda u: of_user(items[splits[u] : splits[u + 1]]), tf.range(batch), fn_output_signature=answer
        )

    def fit(self, train: sp.csr_matrix, l2: float, max_items: int) -> None:
        """Sets B and n from training users: EASE (Steck 2019, equation 8) of X̃ = D_u X D_i, as it acts on rows of X.

        D_u = |x_u|^−¼ and D_i = n_i^−¼, each over its mean: a user of many items and an item of many users count for
        less than in EASE, where the two are 1. B = D_i B̃ D_i⁻¹, with a zero diagonal.

        Args:
          train: X, [users, items].
          l2: λ, in units of the mean diagonal element of X̃ᵀX̃.
          max_items: B is made of the items of most users, at most so many; the rows and columns of others are 0.

        Raises:
          UserError: λ is too small for the precision.
        """
        lengths, counts = np.diff(train.indptr), np.bincount(train.indices, minlength=train.shape[1])
        self.log_counts.assign(np.log1p(counts).astype(np.float32))
        some = np.sort(np.argsort(-counts, kind="stable")[:max_items])
        scale = _scale(counts, ITEM_POWER)[some]
        scaled = (sp.diags(_scale(lengths, USER_POWER)) @ train[:, some] @ sp.diags(scale)).tocsr()
        try:
            p = gram.inverse(scaled, l2 * float(scaled.multiply(scaled).sum()) / len(some))
        except gram.Singular as error:
            raise UserError(
                f"The item path's matrix is singular at --item_path_l2={l2:g}. Give a larger one."
            ) from error
        diagonal = np.diag(p).copy()
        if self.whole:
            whole = np.zeros((train.shape[1],) * 2, np.float32)
        else:
            columns, coefficients = (np.zeros(v.shape, v.dtype) for v in (self.columns, self.coefficients))
        kept = min(self.neighbours, len(some))
        for block in gram.blocks(len(some)):
            b = p[block] * -scale[block, None] / (diagonal * scale)
            b[np.arange(len(b)), np.arange(len(some))[block]] = 0
            if self.whole:
                whole[np.ix_(some[block], some)] = b
            else:
                largest = np.sort(np.argpartition(-np.abs(b), kept - 1, axis=1)[:, :kept], axis=1)
                columns[some[block], :kept] = some[largest]
                coefficients[some[block], :kept] = np.take_along_axis(b, largest, axis=1)
        if self.whole:
            self.b.kernel.assign(whole)
        else:
            self.columns.assign(columns)
            self.coefficients.assign(coefficients)


def _scale(counts: np.ndarray, power: float) -> np.ndarray:
    """counts^−power over the mean count, float64; a count of 0 as of 1."""
    return (np.maximum(counts, 1) / max(counts.mean(), 1e-9)) ** -power


class Tried(NamedTuple):
    """Values of w and τ, and the mean NDCG@100 of held-out users."""

    weight: float
    discount: float
    ndcg: float


LARGEST = Tried(weight=2.0**16, discount=4.0, ndcg=1.0)
"""Where the search for larger values ends."""


class Choice(NamedTuple):
    """What `choose` found."""

    best: Tried
    tried: list[Tried]  # first that without the path
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
      parts: from histories to log-probabilities without the path, xB, and τ_x log n at τ = 1; float [batch, items]
        each.
      held_out: users, none of whom was trained on.
      batch_size: users at a time.
      discounts: values of τ; none: τ stays 0.
    """
    judged = held_out.with_targets()
    at_once = evaluation.users_at_once(batch_size, judged.target.shape[1])
    tried: dict[tuple[float, float], Tried] = {}

    @tf.function(input_signature=[batches.HISTORIES, tf.TensorSpec([None, 2])])
    def ranked(histories, pairs):
        scores, sums, shared = parts(histories)
        return tf.map_fn(
            lambda pair: evaluation.best_unseen(scores + pair[0] * sums - pair[1] * shared, histories),
            pairs,
            fn_output_signature=tf.int32,
            parallel_iterations=1,
        )

    def best_of(pairs: Iterable[tuple[float, float]]) -> Tried:
        """The best of all pairs up to these."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in tried]
        if new:
            lists = [ranked(histories, new).numpy() for _, histories in batches.in_order(judged.fold_in, at_once)]
            values = [evaluation.per_user(ranks, judged)["ndcg@100"].mean() for ranks in np.concatenate(lists, axis=1)]
            tried.update({pair: Tried(*pair, float(value)) for pair, value in zip(new, values, strict=True)})
        return max(tried.values(), key=lambda t: t.ndcg)

    def edges(best: Tried) -> list[str]:
        largest = {name: max(getattr(t, name) for t in tried.values()) for name in Tried._fields[:2]}
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
