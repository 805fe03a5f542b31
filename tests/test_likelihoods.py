"""The likelihoods against TFP's own and plain arithmetic, in float64: values and gradients."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.likelihoods.bernoulli import Bernoulli
from vae_cf_tf.models.likelihoods.gaussian import Gaussian
from vae_cf_tf.models.likelihoods.multinomial import Multinomial
from vae_cf_tf.registries import LIKELIHOODS

tfd = tfp.distributions


@pytest.fixture
def f(rng):
    return tf.constant(rng.normal(size=(4, 9)) * 3)


@pytest.fixture
def x(rng):
    counts = (rng.random((4, 9)) < 0.4).astype(np.float64)
    counts[1] = 0  # an empty history
    return tf.constant(counts)


def with_gradient(log_prob, f):
    with tf.GradientTape() as tape:
        tape.watch(f)
        value = log_prob(f)
        loss = tf.reduce_sum(value * tf.constant([1.0, 2.0, 3.0, 4.0], f.dtype))
    return value, tape.gradient(loss, f)


def tfp_multinomial(x):
    def log_prob(f):
        total = tf.reduce_sum(x, -1)
        coefficient = tf.math.lgamma(total + 1) - tf.reduce_sum(tf.math.lgamma(x + 1), -1)
        return tfd.Multinomial(total, logits=f).log_prob(x) - coefficient

    return log_prob


def test_multinomial_is_tfps_without_its_coefficient(f, x):
    ours, theirs = (with_gradient(g, f) for g in (lambda f: Multinomial(f).log_prob(x), tfp_multinomial(x)))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_bernoulli_is_tfps(f, x):
    reference = lambda f: tfd.Independent(tfd.Bernoulli(logits=f), 1).log_prob(x)  # noqa: E731
    for a, b in zip(with_gradient(lambda f: Bernoulli(f).log_prob(x), f), with_gradient(reference, f), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_gaussian_is_the_papers_formula(f, x):
    value, gradient = with_gradient(lambda f: Gaussian(f, 7.0, 2.0).log_prob(x), f)
    c = np.where(x.numpy() == 1, 7.0, 2.0)
    np.testing.assert_allclose(value, -(c / 2 * (x.numpy() - f.numpy()) ** 2).sum(1), rtol=1e-12)
    weights = np.arange(1, 5)[:, None]
    np.testing.assert_allclose(gradient, weights * c * (x.numpy() - f.numpy()), rtol=1e-12)


@pytest.mark.parametrize("name", LIKELIHOODS.names())
def test_histories_have_the_log_prob_of_their_multi_hot_rows(name, f, x):
    rows, items = np.nonzero(x.numpy())
    histories = tf.RaggedTensor.from_value_rowids(tf.constant(items, tf.int32), rows, nrows=4)
    dense = with_gradient(lambda f: LIKELIHOODS[name](f).log_prob(x), f)
    sparse = with_gradient(lambda f: LIKELIHOODS[name](f).history_log_prob(histories), f)
    for a, b in zip(sparse, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LIKELIHOODS.names())
def test_item_log_probs_are_finite_log_probabilities_in_the_order_of_f(name, f):
    scores = LIKELIHOODS[name](f).item_log_probs().numpy()
    np.testing.assert_array_equal(np.argsort(scores, axis=1), np.argsort(f.numpy(), axis=1))
    assert np.all(scores <= 0)
    assert np.isfinite(LIKELIHOODS[name](tf.constant([[-1e4, 1e4]])).item_log_probs()).all()


def test_the_log_probability_of_an_item_is_that_of_the_only_one_chosen(f):
    p = 1 / (1 + np.exp(-f.numpy()))  # of each item by itself, under the Bernoulli likelihood
    alone = np.stack([np.prod(np.where(np.eye(9)[i] == 1, p, 1 - p), axis=1) for i in range(9)], axis=1)
    found = Bernoulli(f).item_log_probs()
    np.testing.assert_allclose(found, np.log(alone / alone.sum(axis=1, keepdims=True)), rtol=1e-10)


@pytest.mark.parametrize("name", LIKELIHOODS.names())
def test_large_logits_keep_their_order_in_float32(name):
    f = tf.constant([[90.0, 120.0, 130.0, 200.0, 300.0]])
    assert (np.diff(LIKELIHOODS[name](f).item_log_probs().numpy()) > 0).all()


@pytest.mark.parametrize("name", LIKELIHOODS.names())
def test_shapes_are_a_distributions(name, f):
    distribution = LIKELIHOODS[name](f)
    assert distribution.batch_shape == (4,)
    assert distribution.event_shape == (9,)


def test_sampled_softmax_of_all_items_is_the_softmax(f, x):
    rows, places = (tf.constant(a.astype(np.int32)) for a in np.nonzero(x))
    everything = tf.zeros(f.shape[1], f.dtype)
    ours = with_gradient(lambda f: Multinomial.sampled_log_prob(f, rows, places, everything), f)
    exact = with_gradient(lambda f: Multinomial(f).log_prob(x), f)
    for a, b in zip(ours, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_the_sampled_softmax_is_its_definition_with_weights_and_inclusion(f, x, rng):
    """Value and gradient against TensorFlow's own gradient of the formula, in float64."""
    rows, places = (tf.constant(a.astype(np.int32)) for a in np.nonzero(x))
    log_inclusion, weights = np.log(rng.uniform(0.1, 0.9, f.shape[1])), rng.uniform(0.5, 2.0, rows.shape[0])
    w = np.zeros(x.shape)
    w[np.nonzero(x)] = weights

    def definition(f):
        normaliser = tf.reduce_logsumexp(f - np.where(x > 0, 0.0, log_inclusion), axis=1)
        return tf.reduce_sum(w * f, axis=1) - w.sum(axis=1) * normaliser

    def ours(f):
        return Multinomial.sampled_log_prob(f, rows, places, tf.constant(log_inclusion), tf.constant(weights))

    for a, b in zip(with_gradient(ours, f), with_gradient(definition, f), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_the_sampled_normaliser_has_the_true_one_as_its_mean(rng):
    f, own = rng.normal(size=(1, 40)), [3, 7]
    p = rng.uniform(0.2, 0.9, 40)
    sums = []
    for _ in range(4_000):
        drawn = np.flatnonzero(rng.random(40) < p)
        candidates = np.union1d(own, drawn)
        places = np.searchsorted(candidates, own).astype(np.int32)
        found = Multinomial.sampled_log_prob(
            tf.constant(f[:, candidates]),
            tf.zeros(2, tf.int32),
            tf.constant(places),
            tf.constant(np.log(p[candidates])),
        )
        sums.append(np.exp((f[0, own].sum() - found.numpy()[0]) / 2))
    assert abs(np.mean(sums) - np.exp(f).sum()) < 4 * np.std(sums) / np.sqrt(len(sums))
