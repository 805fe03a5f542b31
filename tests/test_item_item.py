"""The item–item model, the layer that holds it, and the choice of its weight and of the popularity discount."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf
from conftest import ROOT, built, small

from trainers import evaluate
from vae_cf_tf.data.split import HeldOut
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation.selection import DISCOUNTS, FACTORS, LARGEST, SHARES, WEIGHTS, Candidate, Choice, choose
from vae_cf_tf.linear import item_knn
from vae_cf_tf.linear.base import most_neighbours
from vae_cf_tf.linear.factors import ImplicitFactors, LowRank
from vae_cf_tf.linear.item_item import NormalizedEase
from vae_cf_tf.linear.item_knn import ItemNeighbours
from vae_cf_tf.models import batches
from vae_cf_tf.models.hybrid import HALF_AT, MAX_RANK, HybridModel, ItemItemLayer, shares
from vae_cf_tf.registries import ITEM_ITEM
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import ItemItemSettings


@pytest.fixture
def train(rng):
    popular = rng.random(130) ** 2
    return sp.csr_matrix((rng.random((200, 130)) < 0.3 * popular).astype(np.float32))


def fitted(train, l2=4.0, max_items=1000, neighbours=None, model=None):
    """The layer with the model of these users: B whole, or so many coefficients of each row."""
    layer = ItemItemLayer(train.shape[1], megabytes=1)
    assert layer.whole
    if neighbours:  # a megabyte holds all of so small a catalogue
        layer = ItemItemLayer(train.shape[1], megabytes=0)
        assert not layer.whole
        for name, dtype in (("columns", "int32"), ("coefficients", "float32")):
            setattr(layer, name, layer.add_weight(shape=(train.shape[1] * neighbours,), dtype=dtype, name=name))
    layer.fit(model or NormalizedEase(l2, max_items), train)
    return layer


def closed_form(train, l2):
    """B, float64 [items, items]."""
    x = train.toarray().astype(np.float64)
    users, items = ((np.maximum(n, 1) / n.mean()) ** -0.25 for n in (x.sum(1), x.sum(0)))
    scaled = users[:, None] * x * items
    gram = scaled.T @ scaled
    p = np.linalg.inv(gram + l2 * np.trace(gram) / len(gram) * np.eye(len(gram)))
    b = items[:, None] * (np.eye(len(gram)) - p / np.diag(p)) / items
    np.fill_diagonal(b, 0)
    return b


@pytest.mark.parametrize("neighbours", [None, 260])
def test_it_is_the_closed_form_of_the_scaled_matrix(train, neighbours):
    layer = fitted(train, neighbours=neighbours)
    expected = train[:9].toarray() @ closed_form(train, 4.0)
    np.testing.assert_allclose(layer(batches.ragged(train[:9])), expected, rtol=1e-4, atol=1e-5)


def test_the_settings_give_its_regularisation_and_its_items():
    settings = ItemItemSettings(item_path_l2=7.0, item_path_max_items=12)
    assert vars(NormalizedEase.from_settings(settings)) == {"l2": 7.0, "max_items": 12}


def test_it_keeps_the_largest_coefficients_of_each_item(train):
    b = closed_form(train, 4.0)
    others = [len(set(train[train[:, [i]].nonzero()[0]].indices) - {i}) for i in range(130)]
    assert (most_neighbours(train) >= others).all()
    places = shares(most_neighbours(train), 130 * 20)
    ranks = np.argsort(np.argsort(-np.abs(b), axis=1), axis=1)
    expected = train[:9].toarray() @ np.where(ranks < places[:, None], b, 0)
    np.testing.assert_allclose(fitted(train, neighbours=20)(batches.ragged(train[:9])), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("capacity", [0, 7, 100, 1001, 20_000, 80_000])
def test_the_places_are_shared_out(rng, capacity):
    wanted = rng.integers(0, 200, 200)
    places = shares(wanted, capacity)
    assert places.sum() <= capacity
    assert places.max() <= 200
    cut = places < wanted
    assert cut.any() == (capacity < wanted.sum())
    assert len({*places[cut]}) <= 1
    assert (places[cut].min(initial=200) >= places[~cut]).all()
    assert capacity < 80_000 or (places == 200).all()


@pytest.mark.parametrize(("nearest", "at_once"), [(100, 10**7), (7, 900)])
@pytest.mark.parametrize("neighbours", [None, 260, 20])
def test_item_neighbours_are_the_formula(train, neighbours, nearest, at_once, monkeypatch):
    monkeypatch.setattr(item_knn, "_NEAREST", nearest)
    monkeypatch.setattr(item_knn, "_AT_ONCE", at_once)
    x = train.toarray().astype(np.float64)
    together = x.T @ x
    weighted = x.T @ (x / np.sqrt(np.maximum(x.sum(1, keepdims=True), 1)))
    diagonal = np.maximum(np.diag(weighted), 1e-30)
    s = weighted * together / (together + 3) / diagonal[:, None] ** 0.7 / diagonal**0.3
    np.fill_diagonal(s, 0)
    rho = s.sum(axis=1)[s.any(axis=1)].mean()
    rounded = sp.vstack([block.values for block in item_knn.Similarity(0.5, 3, 0.7).rows(train)]).toarray()
    np.testing.assert_allclose(rounded, s, rtol=1e-5)

    def largest_of_rows(most):
        """S without the values below the `most`-th of each row, and which rows have a tie there."""
        places = np.minimum(most, 129)[:, None]
        descending = -np.sort(-rounded, axis=1)
        last, next_one = (np.take_along_axis(descending, p, axis=1) for p in (places - 1, places))
        return np.where(rounded >= last, s, 0), (last == next_one) & (last > 0)

    places = shares(most_neighbours(train), 130 * neighbours) if neighbours else np.full(130, 129)
    stored, tied = largest_of_rows(places)
    near, nearly_tied = largest_of_rows(np.full(130, nearest))
    assert not tied.any()
    assert not nearly_tied.any()
    near = np.where(stored > 0, near, 0)
    expected = stored - np.where(stored > 0, near @ near, 0) / (2 * rho)
    layer = fitted(train, neighbours=neighbours, model=ItemNeighbours())
    np.testing.assert_allclose(layer(batches.ragged(train[:9])), x[:9] @ expected, rtol=1e-4, atol=1e-5)


def test_of_items_that_only_one_user_has_no_more_than_their_places_are_computed():
    """All similarities are equal here."""
    one_user = sp.csr_matrix(np.ones((1, 130), np.float32))
    blocks = list(ItemNeighbours().fit(one_user, np.arange(130) % 40))
    assert [len(values) for block in blocks for _, _, values in block.rows()] == [n % 40 for n in range(130)]


def test_item_neighbours_of_items_that_share_no_user():
    nothing = np.zeros(0, dtype=int)
    assert not list(ItemNeighbours().fit(sp.csr_matrix((3, 0), dtype=np.float32), nothing))
    alone = sp.identity(12, dtype=np.float32, format="csr")
    assert not fitted(alone, model=ItemNeighbours())(batches.ragged(alone)).numpy().any()


@pytest.mark.parametrize("neighbours", [None, 20])
def test_of_a_larger_catalogue_it_takes_the_items_of_most_users(train, neighbours):
    popular = np.sort(np.argsort(-train.toarray().sum(0), kind="stable")[:50])
    layer = fitted(train, max_items=50, neighbours=neighbours)
    scores = layer(batches.ragged(train[:9])).numpy()
    others = np.setdiff1d(np.arange(130), popular)
    assert not scores[:, others].any()
    assert scores[:, popular].any()
    only_others = train[:9].toarray()
    only_others[:, popular] = 0
    assert not layer(batches.ragged(sp.csr_matrix(only_others))).numpy().any()


@pytest.mark.parametrize("neighbours", [None, 20])
def test_an_empty_history_gets_zeros(train, neighbours):
    popular = int(train.toarray().sum(0).argmax())
    histories = tf.ragged.constant([[], [popular]], dtype=tf.int32, row_splits_dtype=tf.int32)
    scores = fitted(train, neighbours=neighbours)(histories).numpy()
    assert not scores[0].any()
    assert scores[1].any()


def test_a_lambda_too_small_for_the_precision_is_named():
    twins = sp.csr_matrix(np.repeat(np.eye(4, dtype=np.float32), 2, axis=1))
    with pytest.raises(UserError, match="--item_path_l2"):
        fitted(twins, l2=1e-30)


def test_the_discount_grows_with_popularity_and_with_the_history(train):
    length, n = train[:9].toarray().sum(1), train.toarray().sum(0) + 1
    expected = (length / (length + HALF_AT))[:, None] * np.log(n)
    np.testing.assert_allclose(fitted(train).popularity(batches.ragged(train[:9])), expected, rtol=1e-5)


def test_network_and_item_item_model_are_added_with_the_weight_and_the_discount(train):
    network = built(small(ROOT / "trainers" / "flags" / "baseline.flags"), 130)
    layer, histories = fitted(train), batches.ragged(train[:9])
    alone = HybridModel(network, layer)
    np.testing.assert_array_equal(alone.scores(histories), network(histories))
    hybrid = HybridModel(network, layer, weight=2.5, discount=0.6)
    of_network, sums, popularity = (
        np.asarray(part(histories), np.float64) for part in (network, layer, layer.popularity)
    )
    scores = of_network + 2.5 * sums - 0.6 * popularity
    np.testing.assert_allclose(hybrid.scores(histories), scores, rtol=1e-5, atol=1e-5)
    normalised = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(hybrid(histories), normalised, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(hybrid.embed(histories), network.embed(histories))


@pytest.mark.parametrize("best", [0, 1])
def test_of_two_models_the_better_one_is_kept(best, train, tmp_path, monkeypatch):
    settings = small(ROOT / "vamp.flags")
    names, ndcgs = settings.item_item.candidates, iter((0.2, 0.1 + 0.2 * best))
    assert len(names) == 2
    tried = [Candidate(weight=0, discount=0, ndcg=0)]
    monkeypatch.setattr(evaluate.selection, "choose", lambda *_: Choice(Candidate(1, 0, next(ndcgs)), tried, []))
    monkeypatch.setattr(evaluate.loading, "item_item_meta", lambda *_: {})  # there was no training
    split, network, said = SimpleNamespace(train=train, validation=None), built(settings, 130, train), []
    model, _ = evaluate.with_item_item(network, settings, Workdir(tmp_path), split, said.append)
    assert f"Item–item model: {names[best]}, weight 1," in said[-1]
    alone = ItemItemLayer(130, settings.item_item.item_path_mb)
    alone.fit(ITEM_ITEM[names[best]].from_settings(settings.item_item), train)
    np.testing.assert_array_equal(model.item_item.b.kernel, alone.b.kernel)


def users_of_one_item(users=30, items=150):
    """User i has item i and wants item i + 40."""
    fold_in = sp.csr_matrix(np.eye(users, items, dtype=np.float32))
    target = sp.csr_matrix((np.eye(users, items, k=40)).astype(np.float32))
    return HeldOut(fold_in, target), target.toarray()


def test_the_weight_is_that_which_ranks_held_out_users_best(rng):
    held_out, signal = users_of_one_item()
    noise = rng.normal(size=signal.shape).astype(np.float32)

    def chosen(deep, path):
        return choose(lambda h: tuple(tf.gather(t, h.values) for t in (deep, path, 0 * path)), held_out, 7)

    best, tried, at_edge = chosen(noise, signal)
    assert best.ndcg == max(t.ndcg for t in tried) == 1.0  # targets above all noise
    assert at_edge == []
    assert tried[0].weight == 0
    assert tried[0].ndcg < 0.5
    assert [t.weight for t in tried[: len(WEIGHTS)]] == list(WEIGHTS)
    assert chosen(signal, noise)[0].weight == 0.0


def test_the_discount_is_tried_with_the_best_weight_and_above():
    held_out, signal = users_of_one_item()
    popular = np.broadcast_to(np.arange(150, dtype=np.float32), signal.shape)
    deep = 0.5 * popular  # which counts popularity, half of it too much

    def parts(histories):
        return tuple(tf.gather(t, histories.values) for t in (deep, 0.02 * signal, popular))

    best, tried, _ = choose(parts, held_out, 7)
    assert (best.discount, best.ndcg) == (0.5, 1.0)
    first, later = tried[: len(WEIGHTS)], tried[len(WEIGHTS) :]
    assert {t.discount for t in first} == {0.0}
    alone = max(first, key=lambda t: t.ndcg).weight
    assert alone > 1
    pairs = [(alone * factor, tau) for factor in FACTORS for tau in DISCOUNTS[1:]]
    assert [(t.weight, t.discount) for t in later] == pairs
    best, tried, _ = choose(parts, held_out, 7, discounts=())
    assert {t.discount for t in tried} == {0.0}


def test_larger_values_are_tried_where_the_largest_is_the_best():
    held_out, signal = users_of_one_item()
    popular = np.broadcast_to(np.arange(150, dtype=np.float32), signal.shape)

    def chosen(deep, path, popularity):
        return choose(lambda h: tuple(tf.gather(t, h.values) for t in (deep, path, popularity)), held_out, 7)

    weak = chosen(popular, 0.03 * signal, 0 * signal)  # a weight of about 150/.03 = 5,000 is needed
    assert weak.best.ndcg == 1.0
    assert weak.best.weight > max(WEIGHTS)
    counted_often = chosen(1.7 * popular + 30 * signal, 0 * signal, popular)
    assert counted_often.best.discount > max(DISCOUNTS)
    assert counted_often.best.ndcg == 1.0
    never = chosen(1e9 * popular, signal, 0 * signal)
    assert never.best.ndcg < 1
    counted_ten_times = chosen(10 * popular + 400 * signal, 0 * signal, popular)
    assert counted_ten_times.best.discount == LARGEST.discount == 4.0
    assert counted_ten_times.at_edge == ["discount"]


def test_without_a_weight_no_pair_is_tried_twice():
    held_out, signal = users_of_one_item()
    _, tried, _ = choose(lambda h: tuple(tf.gather(t, h.values) for t in (signal, 0 * signal, signal)), held_out, 7)
    assert len(tried) == len(set(t[:2] for t in tried)) == len(WEIGHTS) + len(DISCOUNTS) - 1


def test_memory_is_bounded_and_a_matrix_that_fits_is_whole():
    assert ItemItemLayer(500, megabytes=1).whole
    layer = ItemItemLayer(1000, megabytes=1)
    assert not layer.whole
    assert layer.columns.shape == layer.coefficients.shape == (62_500,)
    assert layer.rank == 62  # two vectors of so many float32 for each of 1,000 items are the other half
    assert ItemItemLayer(1000, megabytes=3.9).rank == 243
    assert ItemItemLayer(2000, megabytes=15).rank == MAX_RANK


@pytest.mark.parametrize("rank", [3, 40, 70])  # less than a history's length, more, more than users
def test_the_factors_are_those_of_the_normal_equations(rng, rank):
    alike = np.arange(60)[:, None] % 3 == np.arange(25) % 3  # three communities: three large singular values
    train = sp.csr_matrix((rng.random((60, 25)) < np.linspace(0, 0.9, 25) * (0.05 + alike)).astype(np.float32))
    model = ImplicitFactors(rank, unobserved=5.0, ridge=0.3, passes=2, seed=4)
    x, alpha = train.toarray().astype(np.float64), 5.0 * train.nnz / (60 * 25)
    of_users, of_items = 0.3 * (train.nnz / 60) ** 0.5, 0.3 * (train.nnz / 25) ** 0.5

    def solved(matrix, fixed, ridge):
        prior = alpha * fixed.T @ fixed + ridge * np.eye(rank)
        return np.stack([np.linalg.solve(prior + (fixed.T * row) @ fixed, fixed.T @ row) for row in matrix])

    _, sigma, singular_vectors = np.linalg.svd(x)  # the passes start there
    v = (singular_vectors.T * sigma**0.5)[:, :rank]
    v = np.pad(v, ((0, 0), (0, rank - v.shape[1])))
    for _ in range(2):
        u = solved(x, v, of_users)
        v = solved(x.T, u, of_items)
    encoder = v @ np.linalg.inv(alpha * v.T @ v + of_users * np.eye(rank))
    encoder /= 1 + (encoder * v).sum(1, keepdims=True)
    low_rank = model.fit(train)
    np.testing.assert_allclose(low_rank.encoder @ low_rank.decoder.T, encoder @ v.T, rtol=2e-3, atol=2e-4)
    assert not low_rank.encoder[0].any()  # the first item has no user
    assert np.isfinite(low_rank.encoder).all()


@pytest.mark.parametrize("items", [None, np.array([3, 129, 0])])
def test_factors_stand_beside_the_rows(train, rng, items):
    layer = fitted(train, neighbours=20)
    low_rank = LowRank(*(rng.normal(size=(130, layer.rank)).astype(np.float32) for _ in range(2)))
    layer.assign_factors(low_rank)
    histories, columns = batches.ragged(train[:9]), slice(None) if items is None else items
    rows = layer.by_rows(histories).numpy()
    np.testing.assert_array_equal(layer(histories), rows)  # a share of 0
    layer.share.assign(0.7)
    expected = rows + 0.7 * (train[:9].toarray() @ low_rank.encoder @ low_rank.decoder.T)
    np.testing.assert_allclose(layer(histories, items=items), expected[:, columns], rtol=1e-4, atol=1e-4)


def test_the_share_of_the_factors_is_that_which_ranks_held_out_users_best(rng):
    held_out, signal = users_of_one_item()
    noise = rng.normal(size=(2, *signal.shape)).astype(np.float32)

    def chosen(rows, factors):
        terms = (noise[0], rows, 0 * rows, factors)
        return choose(lambda h: tuple(tf.gather(t, h.values) for t in terms), held_out, 7, discounts=())

    best, tried, _ = chosen(noise[1], 10 * signal)
    assert best.ndcg == 1.0
    assert best.weight * best.share > 0
    spread = noise[1].std(axis=1).mean() / (10 * signal).std(axis=1).mean()
    shares = {t.share for t in tried}
    assert sorted(shares) == pytest.approx([spread * share for share in SHARES], rel=1e-3)
    assert chosen(signal, noise[1]).best.share == 0.0
    assert chosen(signal, 0 * signal).tried[-1].share == 0.0  # factors that say nothing are not tried
