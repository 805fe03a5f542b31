import numpy as np
import pytest
import scipy.sparse as sp
from conftest import ROOT, built, small

from vae_cf_tf.data.split import HeldOut
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import metrics, ranking
from vae_cf_tf.models import batches


@pytest.fixture
def held_out(rng):
    known = rng.random((37, 130)) < 0.2
    wanted = (rng.random((37, 130)) < 0.1) & ~known
    known[3], wanted[5] = False, False  # an empty history; a user without targets
    return HeldOut(sp.csr_matrix(known.astype(np.float32)), sp.csr_matrix(wanted.astype(np.float32)))


def expected(scores, held_out):
    """Rank by a full sort, in plain NumPy."""
    masked = np.where(held_out.fold_in.toarray() > 0, -np.inf, scores)
    ranked = np.argsort(-masked, axis=1, kind="stable")[:, : metrics.TOP]
    users = np.flatnonzero(held_out.target.getnnz(axis=1))
    hit = np.take_along_axis(held_out.target.toarray() > 0, ranked, 1)[users]
    return metrics.per_user(hit, held_out.target.getnnz(axis=1)[users])


@pytest.mark.parametrize("batch_size", [8, 1000])
def test_a_model_is_ranked_as_by_a_full_sort(held_out, batch_size):
    model = built(small(ROOT / "trainers" / "flags" / "baseline.flags"), 130)
    figures = ranking.evaluate(ranking.model_ranker(model), held_out, batch_size)
    for name, values in expected(model(batches.ragged(held_out.fold_in)).numpy(), held_out).items():
        assert len(values) == 36
        np.testing.assert_allclose(figures[name], values, rtol=1e-12)


def test_scores_with_ties_are_ranked_by_index(held_out, rng):
    scores = rng.integers(0, 4, 130).astype(np.float64)
    rank = ranking.score_ranker(lambda fold_in: np.broadcast_to(scores, fold_in.shape))
    everything = HeldOut(sp.csr_matrix((37, 130), dtype=np.float32), held_out.target)
    for part in (held_out, everything):
        values = expected(np.broadcast_to(scores, (37, 130)), part)
        for name, got in ranking.evaluate(rank, part, 10).items():
            np.testing.assert_allclose(got, values[name], rtol=1e-12)
    strict = scores + np.linspace(0.5, 0, 130)  # no ties: the order is one
    rank = ranking.score_ranker(lambda fold_in: np.broadcast_to(strict, fold_in.shape))
    values = expected(np.broadcast_to(strict, (37, 130)), held_out)
    for name, got in ranking.evaluate(rank, held_out, 10).items():
        np.testing.assert_allclose(got, values[name], rtol=1e-12)


def test_a_catalogue_smaller_than_the_largest_k_is_refused():
    with pytest.raises(UserError, match="has 99 items, fewer than the 100"):
        metrics.check_catalogue(99)
    metrics.check_catalogue(100)
