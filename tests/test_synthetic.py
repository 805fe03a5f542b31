"""The made-up data: its shape, and that there is taste in it to be found."""

import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from typed import here

from vae_cf_tf.data.split import split
from vae_cf_tf.data.synthetic import synthetic_log, synthetic_matrix


def test_log_is_reproducible_and_without_repeats():
    log, again, other = synthetic_log(3, users=500), synthetic_log(3, users=500), synthetic_log(4, users=500)
    np.testing.assert_array_equal(log.items, again.items)
    np.testing.assert_array_equal(log.users, again.users)
    assert not np.array_equal(log.items[:100], other.items[:100])
    assert log.users.dtype == log.items.dtype == np.int32
    assert log.ratings is None
    pairs = log.users.astype(np.int64) * len(log.item_ids) + log.items
    assert len(np.unique(pairs)) == len(pairs)
    assert np.bincount(log.users, minlength=500).min() >= 5


def test_log_has_the_size_that_was_asked_for_and_titles():
    start = time.perf_counter()
    log = synthetic_log()
    assert time.perf_counter() - start < 10  # about half a second on an idle machine
    assert len(log.user_ids) == 6000
    assert len(log.item_ids) == 1500
    assert 35 < len(log.users) / 6000 < 45
    assert set(log.titles) == set(log.item_ids)
    assert len(set(log.titles.values())) == 1500
    assert any(title.startswith("Jazz 0") for title in log.titles.values())


@pytest.mark.parametrize(("users", "items", "communities"), [(5, 4, 1), (30, 20, 3), (100, 2000, 30)])
def test_log_of_other_sizes(users, items, communities):
    log = synthetic_log(0, users, items, communities, mean_items=6)
    assert log.items.max() < items
    assert np.unique(log.users).tolist() == list(range(users))


def test_item_item_model_beats_popularity_clearly():
    data = split(synthetic_log())
    fold_in, target = data.test.fold_in.toarray(), data.test.target.toarray()

    def recall_at_20(scores):
        top = np.argsort(-np.where(fold_in > 0, -np.inf, scores), axis=1)[:, :20]
        some = target.sum(axis=1) > 0
        hits = np.take_along_axis(target, top, axis=1).sum(axis=1)
        return (hits[some] / np.minimum(target.sum(axis=1)[some], 20)).mean()

    # EASE (Steck 2019): B = -P / diag(P), P = (X'X + λI)^-1, with a zero diagonal.
    gram = (data.train.T @ data.train).toarray()
    inverse = np.linalg.inv(gram + 500 * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    popularity = recall_at_20(np.broadcast_to(np.diag(gram), fold_in.shape))
    ease = recall_at_20(fold_in @ weights)
    assert ease > 2 * popularity
    assert ease < 0.8  # and yet not trivial


@pytest.mark.parametrize(
    ("users", "items", "interactions"),
    [(1000, 300, 20_000), (50, 10, 250), (50, 10, 50), (3, 1, 3), (20, 4000, 30_000)],
)
@pytest.mark.parametrize("zipf", [0.0, 0.7, 1.0, 2.0])
def test_matrix_has_its_shape(users, items, interactions, zipf):
    matrix = synthetic_matrix(users, items, interactions, seed=1, zipf=zipf)
    assert matrix.shape == (users, items)
    assert matrix.nnz == interactions
    assert matrix.indices.dtype == np.int32
    assert matrix.dtype == np.float32
    dense = matrix.toarray()
    assert dense.max() == 1  # repeats would add up
    assert dense.sum(axis=1).min() >= 1
    assert all((np.diff(matrix.getrow(u).indices) > 0).all() for u in range(users))


def test_matrix_is_skewed_and_reproducible():
    matrix = synthetic_matrix(5000, 1000, 150_000, seed=2)
    popularity = np.bincount(matrix.indices, minlength=1000)
    assert popularity[:10].mean() > 20 * popularity[500:].mean()
    sizes = np.diff(matrix.indptr)
    assert abs(np.log(sizes[sizes > 2]).std() - 1) < 0.3
    np.testing.assert_array_equal(matrix.indices, synthetic_matrix(5000, 1000, 150_000, seed=2).indices)


def test_matrix_too_full_is_an_error():
    with pytest.raises(ValueError, match="Received: 26"):
        synthetic_matrix(5, 10, 26, seed=0)


def test_a_log_in_parts_has_the_asked_size_and_goes_on_after_a_kill(tmp_path):
    out = tmp_path / "log"
    command = [f"--out={out}", "--parts=7", "--users=300", "--items=40", "--mean_items=30.01"]
    result = here("trainers.generate", *command)
    assert result.status == 0, result.stderr
    assert "9,003 events, up to 300 users and 40 items" in result.stdout
    parts = [pq.read_table(path) for path in sorted(out.iterdir())]
    assert (len(parts), sum(map(len, parts))) == (7, 9003)
    users, items = (np.concatenate([part[name] for part in parts]) for name in ("user_id", "item_id"))
    assert (users.min(), users.max(), items.min(), items.max()) == (0, 299, 0, 39)
    assert (np.bincount(items)[:3] > 1.5 * np.bincount(items)[-3:]).all()  # by the power law 13 times
    assert not parts[0]["item_id"].equals(parts[1]["item_id"].slice(0, len(parts[0])))
    (out / "part-00003.parquet").unlink()
    assert here("trainers.generate", *command).status == 0
    assert pq.read_table(out / "part-00003.parquet").equals(parts[3])
