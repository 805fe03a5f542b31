import math

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.evaluation import metrics


def plain(ranked, wanted, name, k):
    """NDCG@k and Recall@k of one user, as the papers write them."""
    found = [item in wanted for item in ranked[:k]]
    best = min(k, len(wanted))
    if name == "recall":
        return sum(found) / best
    dcg = sum(hit / math.log2(rank + 2) for rank, hit in enumerate(found))
    return dcg / sum(1 / math.log2(rank + 2) for rank in range(best))


def test_metrics_are_the_papers_on_random_lists(rng):
    users, items = 50, 300
    ranked = np.stack([rng.permutation(items)[: metrics.TOP] for _ in range(users)])
    wanted = [sorted(rng.choice(items, rng.integers(1, 150), replace=False).tolist()) for _ in range(users)]
    splits = np.cumsum([0] + [len(w) for w in wanted])
    target = sp.csr_matrix((np.ones(splits[-1]), np.concatenate(wanted), splits), shape=(users, items))
    hit = metrics.hits(ranked, target)
    values = metrics.per_user(hit, np.diff(target.indptr))
    assert set(values) == {f"ndcg@{k}" for k in (10, 20, 50, 100)} | {f"recall@{k}" for k in (1, 5, 10, 20, 50, 100)}
    for metric, value in values.items():
        name, k = metric.split("@")
        expected = [plain(r.tolist(), set(w), name, int(k)) for r, w in zip(ranked, wanted, strict=True)]
        np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_a_perfect_list_scores_one_and_a_list_without_hits_zero():
    target = sp.csr_matrix(np.eye(1, 200, 199) + np.eye(1, 200, 198))
    perfect = np.r_[199, 198, np.arange(98)][None]
    empty = np.arange(100)[None]
    for ranked, value in ((perfect, 1.0), (empty, 0.0)):
        scores = metrics.per_user(metrics.hits(ranked, target), np.array([2]))
        assert {v[0] for name, v in scores.items()} == {value}


def test_summary_is_mean_and_standard_error():
    figures = metrics.summary({"ndcg@10": np.array([0.0, 1.0, 1.0, 1.0])})["ndcg@10"]
    assert figures == {"mean": 0.75, "stderr": math.sqrt(0.1875) / 2}
