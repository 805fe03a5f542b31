"""Paired differences and bootstrap intervals against plain loops and SciPy."""

import numpy as np
import pytest
import scipy.stats

from vae_cf_tf import comparison


def test_resampled_means_are_those_of_a_plain_loop(rng):
    values = rng.random((23, 3))
    plain = np.random.default_rng(5)
    expected = []
    for size in (100, 30):  # drawn a hundred resamples at a time
        for row in plain.integers(23, size=(size, 23)):
            expected.append([sum(values[user, c] for user in row) / 23 for c in range(3)])
    np.testing.assert_allclose(comparison.bootstrap_means(values, 130, seed=5), expected, rtol=1e-12)


def test_the_interval_is_scipys(rng):
    values = rng.exponential(size=80)
    found = comparison.estimate(values, level=0.9, resamples=20_000, seed=1)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    )
    assert found.mean == pytest.approx(sum(values) / 80)
    # Both are Monte Carlo: a quantile of 20,000 draws strays by about a hundredth of its distance from the mean.
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * found.stderr)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * found.stderr)
    assert found.stderr == pytest.approx(np.std(values) / np.sqrt(80), rel=0.03)


def test_a_paired_difference_sees_what_is_common_to_both(rng):
    users = rng.random(200)
    ours, theirs = users + 0.01 + 0.02 * rng.standard_normal(200), users
    found = comparison.paired_difference(ours, theirs, resamples=5_000, seed=3)
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    test = scipy.stats.ttest_rel(ours, theirs)
    assert found.mean == pytest.approx(sum(gaps) / 200)
    low, high = test.confidence_interval(0.95)
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))
    # Of unpaired users, the same difference would drown.
    assert high - low < 0.1 * (comparison.estimate(users).high - comparison.estimate(users).low)


def test_a_ratio_is_of_sums_and_resamples_users(rng):
    wholes = rng.integers(0, 5, 60)
    parts = rng.binomial(wholes, 0.4)
    found = comparison.ratio(parts, wholes, resamples=4_000, seed=2)
    plain = np.random.default_rng(9)
    drawn = [plain.choice(60, 60) for _ in range(4_000)]
    expected = np.quantile([parts[d].sum() / wholes[d].sum() for d in drawn], [0.025, 0.975])
    assert found.mean == pytest.approx(parts.sum() / wholes.sum())
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.01)


def test_users_who_never_have_any_do_not_spoil_a_ratio():
    parts, wholes = np.array([1, 0, 0]), np.array([1, 0, 0])
    assert comparison.ratio(parts, wholes) == (1, 0, 1, 1)


def test_other_users_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(4,\)"):
        comparison.paired_difference(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="at least one user"):
        comparison.estimate(np.zeros(0))
