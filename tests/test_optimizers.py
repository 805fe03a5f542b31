"""The optimisers against Kim & Suh's formulas, written out in float64."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_cf_tf.training import optimizers
from vae_cf_tf.training.optimizers import OPTIMIZERS


def published(gradients, start, learning_rate, normalize):
    """The update loop of the published AdamNormGrad (and of Adam, without its first line)."""
    x, m, v = start.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        g = g / (np.linalg.norm(g) + 1e-7) if normalize else g
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = learning_rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        x = x - step * m / (np.sqrt(v) + 1e-8)
    return x


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_are_the_published_ones(name, rng):
    start, gradients = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(6, 3, 4)) * 50
    variables = [keras.Variable(start), keras.Variable(start[0])]
    optimizer = OPTIMIZERS[name](0.01)

    @tf.function
    def step(g):
        optimizer.apply([g, g[0]], variables)

    optimizer.build(variables)
    for g in gradients:
        step(tf.constant(g, tf.float32))
    normalize = name == "normalized_adam"
    np.testing.assert_allclose(variables[0], published(gradients, start, 0.01, normalize), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(
        variables[1], published(gradients[:, 0], start[0], 0.01, normalize), rtol=2e-5, atol=1e-6
    )
    assert int(optimizer.iterations.numpy()) == 6


def test_variables_that_take_turns_count_their_own_updates(rng):
    start, gradients = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(6, 3, 4))
    variables = [keras.Variable(start), keras.Variable(start)]
    optimizer = OPTIMIZERS["adam"](0.01)
    optimizer.build(variables)
    for turn, g in zip([0, 0, 0, 1, 0, 1], gradients, strict=True):
        optimizer.apply([tf.constant(g, tf.float32)], [variables[turn]])
    for turn, variable in zip([[0, 1, 2, 4], [3, 5]], variables, strict=True):
        np.testing.assert_allclose(variable, published(gradients[turn], start, 0.01, False), rtol=2e-5, atol=1e-6)
    assert int(optimizer.iterations.numpy()) == 6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_with_a_gradient_are_updated_as_if_they_were_alone(name, rng):
    start, gradients = rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=(5, 3, 4))
    variable = keras.Variable(start)
    optimizer = OPTIMIZERS[name](0.01)
    optimizer.update_by_rows([variable])
    optimizer.build([variable])

    @tf.function
    def step(g):
        twice = tf.concat([g / 2, g / 2], axis=0)  # a row met twice counts twice
        optimizer.apply([tf.IndexedSlices(twice, tf.constant([7, 2, 4, 7, 2, 4]), (9, 4))], [variable])

    for g in gradients:
        step(tf.constant(g, tf.float32))
    expected = start.copy()
    expected[[7, 2, 4]] = published(gradients, start[[7, 2, 4]], 0.01, name == "normalized_adam")
    np.testing.assert_allclose(variable, expected, rtol=2e-5, atol=1e-6)
    others = [0, 1, 3, 5, 6, 8]
    np.testing.assert_array_equal(variable.numpy()[others], start[others])


def test_a_row_that_comes_late_begins_with_a_step_of_the_learning_rate(rng):
    """With the correction of the variable's own count, its first step was 3.2 times as long."""
    variable = keras.Variable(np.zeros((3, 4), np.float32))
    bias = keras.Variable(np.zeros(3, np.float32))
    optimizer = OPTIMIZERS["adam"](0.01)
    optimizer.update_by_rows([variable, bias])
    optimizer.build([variable, bias])
    g = tf.constant(rng.normal(size=(1, 4)), tf.float32)
    for row in [0] * 50 + [1]:
        slices = tf.IndexedSlices(g, tf.constant([row]), (3, 4)), tf.IndexedSlices(g[:, 0], tf.constant([row]), (3,))
        optimizer.apply(list(slices), [variable, bias])
    np.testing.assert_allclose(np.abs(variable.numpy()[1]), 0.01, rtol=1e-4)
    np.testing.assert_allclose(np.abs(bias.numpy()[1]), 0.01, rtol=1e-4)
    np.testing.assert_array_equal(variable.numpy()[2], 0)


def test_a_dense_gradient_of_a_variable_by_rows_updates_all_of_them(rng):
    start, gradients = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(4, 3, 4))
    variable = keras.Variable(start)
    optimizer = OPTIMIZERS["adam"](0.01)
    optimizer.update_by_rows([variable])
    optimizer.build([variable])
    for g in gradients:
        optimizer.apply([tf.constant(g, tf.float32)], [variable])
    np.testing.assert_allclose(variable, published(gradients, start, 0.01, False), rtol=2e-5, atol=1e-6)


def test_gradients_may_come_from_outside_the_function_that_applies_them(rng):
    """As in the benchmark, whose parts of a step are functions of their own."""
    g = tf.constant(rng.normal(size=(2, 4)), tf.float32)
    slices = tf.IndexedSlices(g, tf.constant([2, 0]), tf.constant([3, 4]))

    def updated(wrap):
        variables = [keras.Variable(np.zeros((3, 4), np.float32)) for _ in range(3)]
        optimizer = OPTIMIZERS["adam"](0.01)
        optimizer.update_by_rows(variables[:2])
        optimizer.build(variables)
        wrap(lambda: optimizer.apply([slices, slices, tf.concat([g, g[:1]], axis=0)], variables))()
        return variables

    np.testing.assert_allclose(updated(tf.function), updated(lambda apply: apply), rtol=1e-6)


def test_an_update_waits_for_the_gradient_before_it_and_none_is_left_out(rng):
    variables = [keras.Variable(np.zeros(4, np.float32)) for _ in range(3)]
    optimizer = OPTIMIZERS["adam"](0.01)
    optimizer.build(variables)

    @tf.function
    def step(first, last):
        optimizer.apply([first, None, last], variables)

    g = tf.constant(rng.normal(size=4), tf.float32)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        graph = step.get_concrete_function(g, g).graph
    waits = {
        op.inputs[0].name: [c.outputs[0].name for c in op.control_inputs]
        for op in graph.get_operations()
        if op.control_inputs and op.type == "Identity"
    }
    assert waits == {"last:0": ["first:0"]}
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([g, None, g], variables)
    assert [bool(np.any(v.numpy())) for v in variables] == [True, False, True]


def test_a_first_beta_of_zero_is_no_moment_at_all_for_rows_too(rng):
    g = tf.constant(rng.normal(size=(3, 4)), tf.float32)
    variables = [keras.Variable(np.zeros((3, 4), np.float32)) for _ in range(2)]
    optimizer = OPTIMIZERS["adam"](0.01, beta_1=0.0)
    optimizer.update_by_rows(variables[:1])
    optimizer.build(variables)
    optimizer.apply([tf.IndexedSlices(g, tf.range(3), tf.constant([3, 4])), g], variables)
    np.testing.assert_allclose(*variables, rtol=1e-4)
    assert np.all(variables[0].numpy() != 0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_large_gradient_is_in_memory_at_a_time(name, rng):
    width = math.isqrt(optimizers._LARGE)
    kernels = [keras.Variable(rng.normal(0, width**-0.5, (width, width)).astype(np.float32)) for _ in range(6)]
    layers = [(kernel, keras.Variable(tf.zeros([width]))) for kernel in kernels]
    optimizer, variables = OPTIMIZERS[name](0.01), [variable for layer in layers for variable in layer]
    optimizer.build(variables)

    @tf.function
    def step(h):
        with tf.GradientTape() as tape:
            for kernel, bias in layers:
                h = tf.tanh(h @ kernel.value + bias.value)
            loss = tf.reduce_sum(h)
        optimizer.apply(tape.gradient(loss, variables), variables)

    x = tf.constant(rng.normal(size=(2, width)), tf.float32)
    step(x)
    try:
        tf.config.experimental.reset_memory_stats("CPU:0")
    except (ValueError, RuntimeError) as error:
        pytest.skip(f"TensorFlow does not count the memory of this device: {error}")
    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    step(x)
    peak = tf.config.experimental.get_memory_info("CPU:0")["peak"] - before
    assert peak < 1.9 * kernels[0].value.numpy().nbytes
