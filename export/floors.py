"""The least that a request can take here: its bytes at the measured bandwidth, its products at the GEMM rate."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def times(function: Callable[[], Any], repeats: int, warm: int = 3) -> np.ndarray:
    """Seconds of each of `repeats` calls, after `warm` that do not count; float64 [repeats]."""
    seconds = []
    for i in range(warm + repeats):
        start = time.perf_counter()
        function()
        if i >= warm:
            seconds.append(time.perf_counter() - start)
    return np.asarray(seconds)


def bandwidth(size: int, repeats: int = 30) -> float:
    """Bytes per second, median, of reading `size` bytes of float32 once, on all cores: tf.reduce_sum of a vector."""
    vector = tf.random.uniform([size // 4])
    total = tf.function(lambda: tf.reduce_sum(vector))
    return size / float(np.median(times(lambda: total().numpy(), repeats)))


def gemm_rate(n: int = 2000, repeats: int = 10) -> float:
    """Floating-point operations per second, median, of an n × n × n float32 product."""
    a, b = tf.random.uniform([n, n]), tf.random.uniform([n, n])
    product = tf.function(lambda: tf.reduce_max(tf.matmul(a, b)))
    return 2 * n**3 / float(np.median(times(lambda: product().numpy(), repeats)))


def work(shapes: dict[str, tuple[int, ...]], items: int, batch: int, length: int) -> tuple[int, int]:
    """Weights that a request of `batch` histories of `length` items must read once, and its multiply-adds.

    Args:
      shapes: of the kernels that prediction reads; one of `items` rows is the first layer's, of which only the rows of
        the histories' items count (all distinct, at most the catalogue).
    """
    read = operations = 0
    for shape in shapes.values():
        rows, units = shape
        if rows == items:
            read += min(batch * length, items) * units
            operations += batch * length * units
        else:
            read += rows * units
            operations += batch * rows * units
    return read, operations
