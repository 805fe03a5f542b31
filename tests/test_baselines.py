import numpy as np
import pytest
import scipy.sparse as sp

from vae_cf_tf.errors import UserError
from vae_cf_tf.linear import gram, item_knn
from vae_cf_tf.linear.base import Skipped
from vae_cf_tf.linear.ease import Ease
from vae_cf_tf.linear.item_knn import ItemKNN
from vae_cf_tf.linear.popularity import Popularity
from vae_cf_tf.settings import EvaluationSettings


@pytest.fixture
def train(rng):
    return sp.csr_matrix((rng.random((200, 1300)) < 0.05).astype(np.float32))  # more items than one block


def test_popularity_counts_users(train):
    scores = Popularity().fit(train)(train[:3])
    np.testing.assert_array_equal(scores, np.tile(train.toarray().sum(0), (3, 1)))


def test_ease_is_its_closed_form(train):
    x = train.toarray().astype(np.float64)
    p = np.linalg.inv(x.T @ x + 20 * np.eye(x.shape[1]))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    scores = Ease(20.0).fit(train)(train[:7])
    unseen = x[:7] == 0
    np.testing.assert_allclose(scores[unseen], (x[:7] @ b)[unseen], rtol=1e-8, atol=1e-12)


def test_a_lambda_too_small_for_the_precision_is_named(rng):
    twins = sp.csr_matrix(np.repeat(np.eye(4, dtype=np.float32), 2, axis=1))
    with pytest.raises(UserError, match=r"XᵀX \+ 1e-30·I is singular.*--ease_l2"):
        Ease(1e-30).fit(twins)


def test_ease_in_float32_ranks_alike(train, monkeypatch):
    exact = Ease(20.0).fit(train)(train[:7])
    monkeypatch.setattr(gram, "FLOAT64_ITEMS", 100)
    rough = Ease(20.0).fit(train)(train[:7])
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, exact, atol=2e-4)


@pytest.mark.parametrize(("items", "block"), [(1, 3), (2, 3), (7, 3), (12, 3), (40, 7), (41, 7), (1300, 1000)])
def test_an_inverse_by_rows_is_the_inverse(items, block, train, monkeypatch):
    monkeypatch.setattr(gram, "BLOCK", block)
    x = train[:, :items].toarray().astype(np.float64)
    expected = np.linalg.inv(x.T @ x + 3 * np.eye(items))
    diagonal, rows = gram.inverse_by_rows(train[:, :items], 3.0)
    np.testing.assert_allclose(diagonal, np.diag(expected), rtol=1e-10)
    parts, found = zip(*rows, strict=True)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(items))
    np.testing.assert_allclose(np.vstack(found), expected, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("at_once", [1, 40_000, 10**7])
@pytest.mark.parametrize("neighbours", [0, 20])
def test_item_knn_is_its_formula(train, neighbours, at_once, monkeypatch):
    monkeypatch.setattr(item_knn, "_AT_ONCE", at_once)
    x = train.toarray().astype(np.float64)
    together, weighted = x.T @ x, x.T @ (x / np.maximum(x.sum(1, keepdims=True), 1))
    diagonal = np.maximum(np.diag(weighted), 1e-30)
    s = weighted * together / (together + 5) / diagonal[:, None] ** 0.8 / diagonal**0.2
    np.fill_diagonal(s, 0)
    if neighbours:
        s[s < -np.sort(-s, axis=0)[neighbours - 1]] = 0
    scores = ItemKNN(neighbours, user_power=1.0, shrinkage=5, power=0.8).fit(train)(train[:7])
    np.testing.assert_allclose(scores, x[:7] @ s, rtol=1e-4, atol=1e-6)


def test_item_knn_of_too_many_neighbours_is_left_out(train, monkeypatch):
    monkeypatch.setattr(item_knn, "_MOST", 100_000)
    with pytest.raises(UserError, match=r"all neighbours, .*: up to [\d,]+ coefficients would not fit, 100,000 do"):
        ItemKNN(0, user_power=1.0, shrinkage=5, power=0.8).fit(train)
    ItemKNN(20, user_power=1.0, shrinkage=5, power=0.8).fit(train)


def test_candidates_of_item_knn_can_be_made_again():
    candidates = ItemKNN.candidates(EvaluationSettings(), 10**6)
    assert len({c.label for c in candidates}) == len(candidates)
    assert [ItemKNN(**c.settings).label for c in candidates] == [c.label for c in candidates]


def test_candidates_are_those_of_the_settings():
    settings = EvaluationSettings(ease_l2="200,7.5", ease_max_items=1300)
    (popularity,) = Popularity.candidates(settings, 10**6)
    assert (popularity.label, popularity.settings) == ("popularity", {})
    candidates = Ease.candidates(settings, 1300)
    assert [(c.label, c.settings) for c in candidates] == [
        ("EASE, λ 200", {"l2": 200.0}),
        ("EASE, λ 7.5", {"l2": 7.5}),
    ]
    assert Ease(**candidates[1].settings).label == "EASE, λ 7.5"
    with pytest.raises(Skipped, match="larger than --ease_max_items=1,300"):
        Ease.candidates(settings, 1301)
