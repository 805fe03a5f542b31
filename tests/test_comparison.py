"""Paired differences and bootstrap intervals against plain loops, binomial quantiles and Student's t."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats

from vae_cf_tf.evaluation import significance


def test_the_interval_is_that_of_a_plain_loop(rng):
    values = rng.exponential(size=80)
    found = significance.estimate(values, level=0.9, resamples=20_000, seed=1)
    plain = np.random.default_rng(5)
    means = sorted(sum(values[user] for user in plain.integers(80, size=80)) / 80 for _ in range(20_000))
    assert found.mean == pytest.approx(sum(values) / 80)
    # Both are Monte Carlo: a quantile of 20,000 draws strays by about a hundredth of its distance from the mean.
    assert found.low == pytest.approx(means[999], abs=0.04 * found.stderr)
    assert found.high == pytest.approx(means[18_999], abs=0.04 * found.stderr)
    assert found.stderr == pytest.approx(np.std(values) / np.sqrt(80), rel=0.03)


def test_of_zeros_and_ones_the_interval_is_binomial():
    hits = np.arange(60) < 24  # of users drawn with replacement, Binomial(60, .4) are hits
    expected = scipy.stats.binom.ppf([0.025, 0.975], 60, 0.4) / 60
    for found in (significance.estimate(hits, seed=3), significance.ratio(hits, np.ones(60), seed=3)):
        assert found.mean == pytest.approx(0.4)
        np.testing.assert_allclose([found.low, found.high], expected, atol=1 / 60 + 1e-9)  # a step of the quantile


def test_memory_does_not_grow_with_users_times_resamples(rng):
    values = rng.random(200_000)
    tracemalloc.start()
    significance.estimate(values, resamples=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * values.nbytes


def test_one_user_has_no_interval():
    assert significance.estimate(np.array([0.25])) == (0.25, 0, 0.25, 0.25)
    assert significance.ratio(np.array([1]), np.array([4])) == (0.25, 0, 0.25, 0.25)


@pytest.mark.parametrize(("low", "high", "excludes"), [(-2, -1, True), (-1, 1, False), (0, 1, False), (0.1, 1, True)])
def test_an_interval_tells_whether_it_excludes_zero(low, high, excludes):
    assert significance.Estimate(0.5, 0.1, low, high).excludes_zero == excludes


def test_a_paired_difference_sees_what_is_common_to_both(rng):
    users = rng.random(200)
    ours, theirs = users + 0.01 + 0.02 * rng.standard_normal(200), users
    found = significance.paired_difference(ours, theirs, resamples=5_000, seed=3)
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    test = scipy.stats.ttest_rel(ours, theirs)
    assert found.mean == pytest.approx(sum(gaps) / 200)
    low, high = test.confidence_interval(0.95)
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))
    # Of unpaired users, the same difference would drown.
    assert high - low < 0.1 * (significance.estimate(users).high - significance.estimate(users).low)


def test_a_ratio_is_of_sums_and_resamples_users(rng):
    wholes = rng.integers(0, 5, 60)
    parts = rng.binomial(wholes, 0.4)
    found = significance.ratio(parts, wholes, resamples=4_000, seed=2)
    plain = np.random.default_rng(9)
    drawn = [plain.choice(60, 60) for _ in range(4_000)]
    expected = np.quantile([parts[d].sum() / wholes[d].sum() for d in drawn], [0.025, 0.975])
    assert found.mean == pytest.approx(parts.sum() / wholes.sum())
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.01)


def test_users_who_never_have_any_do_not_spoil_a_ratio():
    parts, wholes = np.array([1, 0, 0]), np.array([1, 0, 0])
    assert significance.ratio(parts, wholes) == (1, 0, 1, 1)


def test_other_users_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(4,\)"):
        significance.paired_difference(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="at least one user"):
        significance.estimate(np.zeros(0))
