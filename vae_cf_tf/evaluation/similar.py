"""Chooses, on validation users, the item similarity that best finds the other items of a user."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.data.split import PARTS, HeldOut, Split
from vae_cf_tf.evaluation import metrics, ranking
from vae_cf_tf.models import batches, similar
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.hybrid import HybridModel
from vae_cf_tf.registries import SIMILARITIES

DECIDES = "ndcg@20"
SHOWN = (DECIDES, "recall@20")
KNN, KNN_TITLE = "cosine_knn", "cosine item-kNN"
"""The baseline that the similarities are compared with. It is not served."""


def choose(model: Autoencoder | HybridModel, split: Split, seed: int, batch_size: int) -> dict[str, Any]:
    """Chooses the similarity with the highest validation NDCG@20, and returns the metrics of all of them.

    The task is that of a "more like this" shelf: one item of each held-out user is given, and the user's other items
    are the targets. The model was not trained on these users.

    Args:
      model: the trained model.
      split: its data.
      seed: seed of the draw of the given items.
      batch_size: given items per batch.

    Returns:
      A dict with
      source: a name of `SIMILARITIES`; the plainest one if no validation user has two items.
      users: for each part, the number of users with two or more items.
      validation, test: for each similarity and for `KNN`, by metric the mean and standard error over these users.
    """
    names = similar.names(model)
    log_probs = batches.traced(model)  # traced once for all similarities
    rankers = {name: ranking.traced_ranker(SIMILARITIES[name](model, log_probs)) for name in names}
    if sp.issparse(split.train):  # else they are not in memory
        rankers[KNN] = ranking.score_ranker(cosine_of_users(split.train))
    queries = {part: one_item_each(getattr(split, part), seed) for part in PARTS}
    figures = {
        part: {name: _figures(rank, query, batch_size) for name, rank in rankers.items()} if query.target.nnz else {}
        for part, query in queries.items()
    }
    means = {name: figures["validation"][name][DECIDES]["mean"] for name in names if figures["validation"]}
    source = max(means, key=means.__getitem__, default=SIMILARITIES.plainest)
    return {"source": source, "users": {part: query.target.shape[0] for part, query in queries.items()}} | figures


def summary_line(chosen: dict[str, Any]) -> str:
    """One line for people about the result of `choose`."""
    validation = chosen["validation"]
    titles = {name: KNN_TITLE if name == KNN else SIMILARITIES[name].title for name in validation}
    means = ", ".join(f"{titles[name]} {values[DECIDES]['mean']:.4f}" for name, values in validation.items())
    best = SIMILARITIES[chosen["source"]].title
    return f"Similar items: from {best}. Validation NDCG@20: {means or 'no user to ask'}."


def one_item_each(held_out: HeldOut, seed: int) -> HeldOut:
    """For each user with two or more items: one item drawn at random as fold-in, and the others as targets.

    Both parts of the result are [users with two or more items, items].
    """
    own = sp.csr_matrix(held_out.fold_in + held_out.target)
    own = own[np.flatnonzero(np.diff(own.indptr) > 1)]
    own.sort_indices()
    drawn = own.indptr[:-1] + np.random.default_rng(seed).integers(np.diff(own.indptr))
    given = np.zeros(own.nnz, np.float32)
    given[drawn] = 1
    parts = [sp.csr_matrix((data, own.indices, own.indptr), own.shape, copy=True) for data in (given, 1 - given)]
    for part in parts:
        part.eliminate_zeros()
    return HeldOut(*parts)


def cosine_of_users(train: sp.csr_matrix) -> Callable[[sp.csr_matrix], np.ndarray]:
    """Item-kNN with the cosine of two columns of `train`, [training users, items].

    Returns:
      A function from histories, [users, items], to scores, float [users, items]: the sum of the cosines between the
      scored item and each item of the history.
    """
    norms = np.sqrt(np.bincount(train.indices, minlength=train.shape[1]))
    columns = sp.csr_matrix(train @ sp.diags(1 / np.maximum(norms, 1)))
    items = columns.T.tocsr()
    return lambda histories: (histories @ items @ columns).toarray()


def _figures(rank: ranking.Ranker, asked: HeldOut, batch_size: int) -> dict[str, dict[str, float]]:
    values = ranking.evaluate(rank, asked, batch_size)
    return metrics.summary({name: values[name] for name in SHOWN})
