"""The time of training steps with and without exchange between replicas, and the bytes that cross the wire."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf.models import batches
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.build import build
from vae_cf_tf.settings import Settings
from vae_cf_tf.training import distributed, strategies
from vae_cf_tf.training.compiling import compile_for

_WARM = 3


def measured(settings: Settings, train: sp.csr_matrix, steps: int) -> dict[str, Any]:
    """Figures of `steps` training steps of each kind, after three that do not count.

    `wire_bytes` is what the loopback interface received in a step, all workers of this machine together; 0 where there
    is no /proc/net/dev. It is of use only where all workers run on one machine and nothing else uses that interface.

    Args:
      settings: of the model, the training and the run.
      train: [users, items].
      steps: of either kind.
    """
    group = strategies.group(settings.run)
    with group.scope():
        model = compile_for(
            build(settings.model, train.shape[1], train, settings.training.seed), settings.training, train
        )
        real, wire = _timed(model, train, settings, steps)
        found = {
            "batch_size": settings.training.batch_size,
            "step_ms": _summary(real),
            "parameters_bytes": 4 * sum(int(np.prod(v.shape)) for v in model.trainable_variables),
            "wire_bytes": wire,
        }
        if group.is_distributed:
            with _without_exchange():
                apart, _ = _timed(model, train, settings, steps)
            found |= {"apart_ms": _summary(apart), "share_that_waits": 1 - float(np.median(apart) / np.median(real))}
    return found


def _timed(model: Autoencoder, train: sp.csr_matrix, settings: Settings, steps: int) -> tuple[np.ndarray, float]:
    """Seconds of each step, and bytes that loopback received in a step."""
    is_distributed = strategies.group(settings.run).is_distributed
    step = (
        distributed.Steps(model, weighted=False) if is_distributed else tf.function(model.train_step, autograph=False)
    )
    seconds, received = [], 0
    stream = iter(batches.shuffled(train, settings.training.batch_size, settings.training.seed))
    for number in range(_WARM + steps):
        batch = next(stream)
        if number == _WARM:
            received = loopback()
        started = time.perf_counter()
        _ = float(step(batch)["loss"])
        if number >= _WARM:
            seconds.append(time.perf_counter() - started)
    return np.array(seconds), (loopback() - received) / steps


@contextlib.contextmanager
def _without_exchange() -> Iterator[None]:
    """Steps traced within do not exchange numbers: each replica takes its own in place of the sum over replicas."""
    before = tf.distribute.ReplicaContext.all_reduce
    tf.distribute.ReplicaContext.all_reduce = lambda self, op, value, options=None: value
    try:
        yield
    finally:
        tf.distribute.ReplicaContext.all_reduce = before


def loopback() -> int:
    """Bytes that the interface lo has received."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/net/dev").read_text().splitlines()
        return int(next(line for line in lines if line.strip().startswith("lo:")).split(":")[1].split()[0])
    return 0


def _summary(seconds: np.ndarray) -> dict[str, float]:
    return {"median": 1e3 * float(np.median(seconds)), "min": 1e3 * float(seconds.min())}
