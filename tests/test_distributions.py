"""The Gaussians against TFP's own, in float64: values and gradients."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.distributions import DiagonalNormal, MixtureOf, MixtureOfNormals, composite, diagonal_normal

tfd = tfp.distributions


@pytest.fixture
def parameters(rng):
    return [tf.constant(a) for a in (rng.normal(size=(11, 5)), rng.uniform(-3, 2, size=(11, 5)))]


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("own_sample", [True, False])
def test_the_diagonal_normal_has_tfps_values_bit_by_bit(own_sample, traced, rng):
    """Its own sample, whose noise it knows, and any other z. Gradients are summed in another order at times."""
    mean, log_variance, z = (tf.constant(rng.normal(size=(500, 30)), tf.float32) for _ in range(3))
    weights = tf.constant(rng.normal(size=(2, 500)), tf.float32)

    def all_of(kind):
        with tf.GradientTape() as tape:
            tape.watch([mean, log_variance])
            normal = kind(mean, tf.exp(0.5 * log_variance))
            sample = normal.sample(seed=tf.constant([3, 7]))
            log_prob = normal.log_prob(sample if own_sample else z)
            loss = tf.reduce_sum(log_prob * weights[0]) + tf.reduce_sum(sample * weights[1][:, None])
        return sample, log_prob, normal.mean(), *tape.gradient(loss, [mean, log_variance])

    ours, tfps = (
        tf.function(lambda: all_of(kind), autograph=False)() if traced else all_of(kind)  # noqa: B023
        for kind in (DiagonalNormal, tfd.MultivariateNormalDiag)
    )
    for our, theirs in zip(ours[:3], tfps[:3], strict=True):
        np.testing.assert_array_equal(our, theirs)
    for our, theirs in zip(ours[3:], tfps[3:], strict=True):
        np.testing.assert_allclose(our, theirs, rtol=1e-4, atol=1e-5)


def test_the_diagonal_normal_takes_other_shapes_as_tfps_does(rng):
    one, many, more = (5,), (7, 5), (3, 7, 5)
    of_loc_and_z = [(one, many), (many, one), (many, more), (one, one), (more, many), ((4, 4, 5), (4, 5))]
    for shape, of_z, of_scale in [*((*s, s[0]) for s in of_loc_and_z), ((1, 5), many, many), (one, many, many)]:
        parameters = tf.constant(rng.normal(size=shape)), tf.constant(rng.uniform(0.1, 2, of_scale))
        ours, tfps = DiagonalNormal(*parameters), tfd.MultivariateNormalDiag(*parameters)
        z = rng.normal(size=of_z)
        np.testing.assert_allclose(ours.log_prob(z), tfps.log_prob(z), rtol=1e-12)
        assert ours.log_prob(z).shape == tfps.log_prob(z).shape
        for seed in ((1, 2), tf.constant([1, 2])):
            for number in ((), 4, tf.constant(4), np.array([4, 2]), [3]):
                np.testing.assert_array_equal(ours.sample(number, seed), tfps.sample(number, seed))
        np.testing.assert_array_equal(ours.entropy(), tfps.entropy())
        np.testing.assert_array_equal(ours.mean(), tfps.mean())


def reference_mixture(mean, log_variance):
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=tf.zeros(mean.shape[0], mean.dtype)),
        tfd.MultivariateNormalDiag(mean, tf.exp(log_variance / 2)),
    )


def value_and_gradients(make, z, mean, log_variance):
    with tf.GradientTape() as tape:
        tape.watch([z, mean, log_variance])
        log_prob = make(mean, log_variance).log_prob(z)
        loss = tf.reduce_sum(log_prob * tf.cast(tf.range(1, 1 + tf.size(log_prob)), z.dtype))
    return [log_prob, *tape.gradient(loss, [z, mean, log_variance])]


def test_mixture_log_prob_and_gradients_are_tfps(parameters, rng):
    z = tf.constant(rng.normal(size=(7, 5)) * 2)
    ours = value_and_gradients(MixtureOfNormals, z, *parameters)
    tfps = value_and_gradients(reference_mixture, z, *parameters)
    for a, b in zip(ours, tfps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_mixture_holds_in_float32_far_from_the_origin(rng):
    mean, log_variance, z = rng.normal(3, 0.5, (50, 20)), rng.uniform(-5, 0, (50, 20)), rng.normal(3, 0.5, (9, 20))
    exact = reference_mixture(tf.constant(mean), tf.constant(log_variance)).log_prob(tf.constant(z))
    cast = [tf.constant(a, tf.float32) for a in (mean, log_variance, z)]
    np.testing.assert_allclose(MixtureOfNormals(*cast[:2]).log_prob(cast[2]), exact, rtol=2e-5)


@pytest.mark.parametrize("log_variance", [-3.9, -4.1, -8.0, -12.0])
def test_mixture_keeps_its_digits_where_variances_are_small(log_variance, rng):
    """The two products of the exponent nearly cancel: float32 was off by 4.5 nats at −12."""
    mean = rng.normal(size=(30, 200)).astype(np.float32)
    log_variances = np.full((30, 200), log_variance, np.float32)
    z = (mean[:9] + np.exp(log_variance / 2) * rng.normal(size=(9, 200))).astype(np.float32)
    exact = reference_mixture(*(tf.constant(a, tf.float64) for a in (mean, log_variances))).log_prob(z)
    log_prob = tf.function(lambda z: MixtureOfNormals(mean, log_variances).log_prob(z))(z)
    np.testing.assert_allclose(log_prob, exact, atol=5e-3)


def test_mixture_never_builds_batch_by_components_by_latent(parameters):
    @tf.function
    def log_prob(z):
        return MixtureOfNormals(*parameters).log_prob(z)

    graph = log_prob.get_concrete_function(tf.TensorSpec([7, 5], tf.float64)).graph
    assert max(t.shape.rank or 0 for op in graph.get_operations() for t in op.outputs) <= 2


def test_mixture_samples_have_its_moments(parameters):
    mixture = MixtureOfNormals(*parameters)
    samples = mixture.sample(200_000, seed=(1, 2)).numpy()
    np.testing.assert_allclose(samples.mean(0), mixture.mean(), atol=0.03)
    np.testing.assert_allclose(samples.var(0), reference_mixture(*parameters).variance(), rtol=0.03)
    assert mixture.event_shape == (5,)
    assert mixture.batch_shape == ()
    assert mixture.log_prob(samples[:6].reshape(2, 3, 5)).shape == (2, 3)


def test_analytic_kl_is_the_closed_form(rng):
    mean, log_variance = rng.normal(size=(4, 5)), rng.uniform(-2, 1, size=(4, 5))
    zeros = tf.zeros(5, tf.float64)
    kl = tfd.kl_divergence(diagonal_normal(tf.constant(mean), tf.constant(log_variance)), diagonal_normal(zeros, zeros))
    expected = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(1)  # Kingma & Welling 2014, appendix B
    np.testing.assert_allclose(kl, expected, rtol=1e-12)


def test_over_a_diagonal_gaussian_the_composite_is_recvaes_in_float64(rng):
    z, base, own = rng.normal(size=(6, 5)) * 2, rng.normal(size=(2, 6, 5)), rng.normal(size=(2, 6, 5))

    def log_normal(mean, log_variance):
        return -0.5 * (np.log(2 * np.pi) + log_variance + (z - mean) ** 2 / np.exp(log_variance))

    parts = [log_normal(0.0, 0.0), log_normal(*own), log_normal(0.0, 10.0)]  # RecVAE's code: weights 3/20, 3/4, 1/10
    expected = np.log(sum(w * np.exp(p) for w, p in zip((0.15, 0.75, 0.1), parts, strict=True))).sum(1)
    zeros = tf.zeros([6, 5], tf.float64)
    own = tuple(map(tf.constant, own))
    found = composite(diagonal_normal(zeros, zeros), own, 0.75).log_prob(z)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    parts[0] = log_normal(*base)
    expected = np.log(sum(w * np.exp(p) for w, p in zip((0.3, 0.5, 0.2), parts, strict=True))).sum(1)
    found = composite(diagonal_normal(*map(tf.constant, base)), own, 0.5).log_prob(z)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_over_any_other_base_the_composite_is_a_mixture_of_whole_vectors(parameters, rng):
    z, own = rng.normal(size=(6, 5)), rng.normal(size=(2, 6, 5))
    base = MixtureOfNormals(*parameters)
    prior = composite(base, tuple(map(tf.constant, own)), 0.75)
    assert prior.batch_shape == (6,)
    assert prior.event_shape == (5,)

    def log_normal(mean, log_variance):
        return -0.5 * (np.log(2 * np.pi) + log_variance + (z - mean) ** 2 / np.exp(log_variance)).sum(-1)

    own_density, wide_density = np.exp(log_normal(*own)), np.exp(log_normal(0.0, 10.0))
    of_base = np.exp(reference_mixture(*parameters).log_prob(z))
    expected = np.log(0.15 * of_base + 0.75 * own_density + 0.1 * wide_density)
    np.testing.assert_allclose(prior.log_prob(z), expected, rtol=1e-10)
    without = MixtureOf([base, diagonal_normal(*map(tf.constant, own))], [1.0, 0.0])
    np.testing.assert_allclose(without.log_prob(z), np.log(of_base), rtol=1e-10)


def test_a_mixture_that_leaves_one_out_is_that_of_the_others(parameters, rng):
    mean, log_variance = parameters
    z = tf.constant(rng.normal(size=(11, 5)))
    mixture = MixtureOfNormals(mean, log_variance, left_out=tf.range(11))
    assert mixture.batch_shape == (11,)
    others = [np.delete(np.arange(11), k) for k in range(11)]
    expected = [
        reference_mixture(tf.gather(mean, o), tf.gather(log_variance, o)).log_prob(z[k]) for k, o in enumerate(others)
    ]
    np.testing.assert_allclose(mixture.log_prob(z), expected, rtol=1e-10)
    with pytest.raises(NotImplementedError, match="sample the whole one"):
        mixture.sample(3)
    whole = MixtureOfNormals(mean, log_variance, left_out=tf.fill([3], -1)).log_prob(z[:3])
    np.testing.assert_allclose(whole, MixtureOfNormals(mean, log_variance).log_prob(z[:3]), rtol=1e-12)
