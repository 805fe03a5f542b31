"""How fast this machine does what benchmarks compare with, passes over memory and matrix products; and how much memory
the process took.
"""

import contextlib
import resource
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


def peak_rss(since_reset: bool = False) -> float:
    """Largest resident memory of the process so far, or since `reset_peak_rss`, in MiB."""
    if since_reset:
        with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as f:
            line = next(line for line in f if line.startswith("VmHWM:"))
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak_rss() -> None:
    """Begins a new measurement of `peak_rss`, where the system lets it: Linux does."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def bandwidth(size: int = 1 << 28, repeats: int = 30) -> float:
    """Bytes per second, median, of reading `size` bytes of float32 once, on all cores: tf.reduce_sum of a vector."""
    vector = tf.random.uniform([size // 4])
    total = tf.function(lambda: tf.reduce_sum(vector))
    return size / float(np.median(times(lambda: total().numpy(), repeats)))


def product_rate(
    m: int = 2000,
    k: int = 2000,
    n: int = 2000,
    dtype: tf.DType = tf.float32,
    repeats: int = 15,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> float:
    """Floating-point operations per second, median, of an [m, k] × [k, n] product of `dtype`.

    A transposed factor lies in memory as [k, m] or [n, k], as the factors of gradients do.
    """
    a = tf.cast(tf.random.uniform([k, m] if transpose_a else [m, k]), dtype)
    b = tf.cast(tf.random.uniform([n, k] if transpose_b else [k, n]), dtype)
    product = tf.function(lambda: tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)[0, 0])
    return 2 * m * k * n / float(np.median(times(lambda: product().numpy(), repeats)))
