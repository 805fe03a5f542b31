import numpy as np
import pytest
import tensorflow as tf

from vae_cf_tf.models import histories as hist
from vae_cf_tf.models.blocks import DenseStack, GatedBlock, GaussianHeads, Linear, Stack, TanhBlock, products_in


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def x(rng):
    return rng.normal(size=(4, 7)).astype(np.float32)


def test_blocks_compute_their_formulas(x):
    tanh, gated = TanhBlock(7, 3), GatedBlock(7, 3)
    w, b = (v.numpy() for v in (tanh.linear.kernel, tanh.linear.bias))
    np.testing.assert_allclose(tanh(x), np.tanh(x @ w + b), rtol=1e-5)
    w, b, v, c = (v.numpy() for v in (gated.linear.kernel, gated.linear.bias, gated.gate.kernel, gated.gate.bias))
    np.testing.assert_allclose(gated(x), (x @ w + b) * sigmoid(x @ v + c), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("joined", [False, True], ids=["x", "x and z"])
def test_dense_and_sparse_first_layers_are_equal_gradients_too(joined, rng):
    histories = tf.ragged.constant([[0, 5, 6], [], [3], [1, 2, 3, 4]], dtype=tf.int32, row_splits_dtype=tf.int32)
    bags = hist.unit_norm(histories, 0.5, tf.constant([3, 4]))
    z = tf.constant(rng.normal(size=(4, 2)).astype(np.float32))
    layer = Linear(9 if joined else 7, 3, items=7)
    results = []
    for x in (bags, hist.dense_rows(bags, 7)):
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = layer((x, z) if joined else x)
            loss = tf.reduce_sum(y**3)
        gradients = tape.gradient(loss, [layer.kernel.value, layer.bias.value] + [z] * joined)
        results.append([y.numpy()] + [tf.convert_to_tensor(g).numpy() for g in gradients])
    for sparse, dense in zip(*results, strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-6)


def test_bfloat16_products_round_their_factors_and_hold_within_the_context_only(x):
    layer = Linear(7, 3)

    def with_gradient():
        with tf.GradientTape() as tape:
            y = layer(tf.constant(x))
        return y, tape.gradient(y, layer.kernel.value)

    exact = with_gradient()
    with products_in(tf.bfloat16):
        rounded = with_gradient()
    for a, b in zip(rounded, exact, strict=True):
        assert a.dtype == tf.float32
        np.testing.assert_allclose(a, b, rtol=0.03, atol=0.03)
        assert np.any(a.numpy() != b.numpy())
    np.testing.assert_array_equal(with_gradient()[0], exact[0])


def test_he_and_glorot_have_the_published_scales():
    he, glorot = Linear(500, 400, "he"), Linear(500, 200, "glorot", fan_out=400)
    assert abs(he.kernel.numpy().std() - (2 / 500) ** 0.5) < 1e-3
    assert 0.9 / 500**0.5 < np.abs(he.bias.numpy()).max() <= 1 / 500**0.5
    bound = (6 / 900) ** 0.5
    assert 0.99 * bound < np.abs(glorot.kernel.numpy()).max() <= bound
    assert np.abs(glorot.bias.numpy()).max() <= 0.002


def test_unknown_initializer_is_named():
    with pytest.raises(ValueError, match="Received: `initializer` = 'ones'"):
        Linear(2, 2, "ones")


def test_heads_clip_the_log_variance(x):
    heads = GaussianHeads(7, 3)
    heads.log_variance.bias.assign([-50.0, 0.0, 50.0])
    mean, log_variance = heads(x)
    assert mean.shape == log_variance.shape == (4, 3)
    assert np.all(log_variance.numpy()[:, 0] == -12)
    assert np.all(log_variance.numpy()[:, 2] == 4)


def test_a_stack_without_units_is_the_identity(x):
    stack = Stack(7, [], "tanh")
    assert stack.output_dim == 7
    np.testing.assert_array_equal(stack(x), x)


def test_a_dense_stack_adds_all_earlier_blocks_and_normalises(x):
    stack = DenseStack(x.shape[1], [7, 7, 7], "gated", "glorot")
    stack.norms[1].gamma.assign(np.linspace(0.5, 2, 7))
    stack.norms[2].beta.assign(np.linspace(-1, 1, 7))

    def after(block, norm, h, skipped):
        linear, gate = (
            h @ part.kernel.numpy().astype(np.float64) + part.bias.numpy() for part in (block.linear, block.gate)
        )
        h = (linear + skipped) * sigmoid(gate)
        h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 0.1)
        return h * norm.gamma.numpy() + norm.beta.numpy()

    h = total = after(stack.blocks[0], stack.norms[0], np.asarray(x, np.float64), 0)
    for block, norm in zip(stack.blocks[1:], stack.norms[1:], strict=True):
        h = after(block, norm, h, total)
        total = total + h
    np.testing.assert_allclose(stack(x), h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stack.after_first(stack.first(x)), h, rtol=1e-4, atol=1e-5)
