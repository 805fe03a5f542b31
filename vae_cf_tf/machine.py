"""What this machine is and how fast it is, and how much memory the process takes."""

import contextlib
import os
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def description() -> dict[str, Any]:
    """The machine and the versions that its figures depend on."""
    name = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:
        name = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), name)
    return {"cpu": name, "cores": os.cpu_count(), "python": platform.python_version(), "tensorflow": tf.__version__}


def times(function: Callable[[], Any], repeats: int, warm: int = 3) -> np.ndarray:
    """Seconds of each of `repeats` calls, after `warm` that do not count; float64 [repeats]."""
    seconds = []
    for i in range(warm + repeats):
        start = time.perf_counter()
        function()
        if i >= warm:
            seconds.append(time.perf_counter() - start)
    return np.asarray(seconds)


def rss() -> int:
    """Resident memory of the process now, in bytes."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_rss() -> float:
    """Largest resident memory of the process so far, or since `reset_peak_rss`, in MiB."""
    # Not ru_maxrss where there is /proc: it begins with the peak of the process that started this one.
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
    total = tf.function(lambda: tf.reduce_sum(vector), autograph=False)
    return size / float(np.median(times(lambda: total().numpy(), repeats)))


def product_rate(size: int = 2000, repeats: int = 15) -> float:
    """Floating-point operations per second, median, of a [size, size] × [size, size] product of float32."""
    a, b = tf.random.uniform([size, size]), tf.random.uniform([size, size])
    product = tf.function(lambda: tf.matmul(a, b)[0, 0], autograph=False)
    return 2 * size**3 / float(np.median(times(lambda: product().numpy(), repeats)))
