"""The devices that share a training: one, several of this machine, or several machines.

A strategy of `tf.distribute` belongs to the process, and so does what is made here: `group` makes it once.
"""

import contextlib
import functools
import json
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from vae_cf_tf.errors import UserError
from vae_cf_tf.models import tree
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.settings import RunSettings
from vae_cf_tf.training import distributed
from vae_cf_tf.training.cluster import Cluster


class OneDevice:
    """One device, which does all by itself."""

    is_chief = True
    """Whether this process reads and writes the workdir."""
    is_distributed = False

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where variables are to be made and used."""
        return contextlib.nullcontext()

    def fit(self, model: Autoencoder, dataset: tf.data.Dataset, **arguments: Any) -> None:
        """Trains the model; `arguments` as those of `distributed.fit`."""
        model.fit(dataset, **arguments)

    def told(self, text: str) -> list[str]:
        """The text that each process gave here, the chief's first."""
        return [text]

    def copy_from_chief(self, variables: tree.Variables) -> None:
        """Gives the variables of every process the chief's values."""

    def losing_workers(self) -> contextlib.AbstractContextManager[None]:
        """Within, the end of another process is a UserError."""
        return contextlib.nullcontext()


class Devices(OneDevice):
    """Several devices of one process.

    Args:
      strategy: of `tf.distribute`.
    """

    is_distributed = True

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.strategy.scope()

    def fit(self, model: Autoencoder, dataset: tf.data.Dataset, **arguments: Any) -> None:
        distributed.fit(model, dataset, **arguments)


class Workers(Devices):
    """Several processes, each with its devices.

    Args:
      cluster: of all of them.
    """

    def __init__(self, cluster: Cluster):
        _allow_late_heartbeats(cluster)
        try:
            super().__init__(tf.distribute.MultiWorkerMirroredStrategy())
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"Cannot join the other workers as {cluster.own_address} ({reason}). Check TF_CONFIG."
            ) from error
        if threading.current_thread() is threading.main_thread():
            # TensorFlow's preemption handler catches SIGTERM, so the process would not end.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.cluster, self.is_chief = cluster, cluster.is_chief
        # Eagerly, `reduce` leaves a pool of threads, which can write an error when Python ends.
        self._reduce = tf.function(lambda values: self.strategy.reduce("SUM", values, axis=None), autograph=False)

    def told(self, text: str) -> list[str]:
        data, workers = np.frombuffer(text.encode(), np.uint8), len(self.cluster.addresses)
        lengths = np.zeros(workers)
        lengths[self.cluster.rank] = len(data)
        lengths = self._sum(lengths, _TEXT).astype(int)
        table = np.zeros((workers, int(lengths.max())), np.uint8)
        table[self.cluster.rank, : len(data)] = data
        table = self._sum(table, _TEXT)
        return [bytes(row[:length]).decode() for row, length in zip(table, lengths, strict=True)]

    def copy_from_chief(self, variables: tree.Variables) -> None:
        for variable in variables.values():
            value = self.strategy.experimental_local_results(variable.value)[0].numpy()
            variable.assign(self._sum(value if self.is_chief else np.zeros_like(value), _WEIGHTS))

    def _sum(self, array: np.ndarray, at_once: int) -> np.ndarray:
        """The sum over processes, sent `at_once` numbers at a time: TensorFlow traces an operation for each length."""
        parts = []
        for start in range(0, array.size, at_once):
            part = np.zeros(at_once)
            numbers = array.ravel()[start : start + at_once]
            part[: len(numbers)] = numbers
            parts.append(self._sum_of_part(part)[: len(numbers)])
        return np.concatenate(parts).astype(array.dtype).reshape(array.shape)

    def _sum_of_part(self, part: np.ndarray) -> np.ndarray:
        own = iter([part])  # of the first device of this process; the others have zeros
        values = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(next(own, np.zeros_like(part)))
        )
        return self._reduce(values).numpy()

    @contextlib.contextmanager
    def losing_workers(self) -> Iterator[None]:
        try:
            yield
        except _LOST as error:
            others = ", ".join(a for a in self.cluster.addresses if a != self.cluster.own_address)
            raise UserError(
                f"A worker has ended or cannot be reached; the others are {others}. Start the same command on all "
                "workers again: it goes on from the last checkpoint."
            ) from error


def _allow_late_heartbeats(cluster: Cluster) -> None:
    """Sets how long a worker may be silent. The strategy's own 10 s are too short for a machine with much other work:
    at a load of 29 on 2 cores a healthy worker was given up. TensorFlow has no public name for it."""
    counts = {job: sum(kind == job for kind in cluster.kinds) for job in ("chief", "worker")}
    jobs = [coordination_config_pb2.CoordinatedJob(name=job, num_tasks=n) for job, n in counts.items() if n]
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{cluster.kinds[0]}/replica:0/task:0",
        heartbeat_timeout_in_ms=_HEARTBEAT_MS,
        coordinated_jobs=jobs,
    )


_HEARTBEAT_MS = 40_000
_TEXT, _WEIGHTS = 1 << 12, 1 << 20
"""Numbers that are sent at once."""
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)
"""What TensorFlow raises where a collective operation misses a worker."""


def group(settings: RunSettings) -> OneDevice:
    """The devices of these settings. The first call in a process must come before TensorFlow's first operation, except
    with --distribute=none, or with --distribute=mirrored on GPUs.

    Raises:
      UserError: too few devices, TF_CONFIG is missing or malformed, or the other workers cannot be joined.
    """
    return _group(settings.distribute, settings.replicas)


@functools.cache
def _group(distribute: str, replicas: int) -> OneDevice:
    if distribute == "none":
        return OneDevice()
    if distribute == "multi_worker":
        return Workers(Cluster.from_environment())
    return Devices(tf.distribute.MirroredStrategy(_local_devices(replicas)))


def _local_devices(replicas: int) -> list[str]:
    """Names of the devices of --distribute=mirrored."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    kind, devices = ("GPU", replicas or gpus) if gpus else ("CPU", replicas)
    if devices < 2:
        what = "1 GPU" if gpus else "no GPU"
        raise UserError(
            f"--distribute=mirrored needs two devices, and this machine has {what}, --replicas={replicas}. Leave it "
            "out, or give --replicas=2 on a machine without GPUs to try it out."
        )
    if gpus and devices > gpus:
        raise UserError(f"--replicas={replicas} is more than the GPUs of this machine, {gpus}.")
    if not gpus:
        with contextlib.suppress(RuntimeError):  # TensorFlow has begun to compute
            parts = [tf.config.LogicalDeviceConfiguration()] * devices
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
        if len(tf.config.list_logical_devices("CPU")) < devices:
            raise UserError("The CPU cannot stand for several devices once TensorFlow has computed. Start Python anew.")
    return [f"{kind}:{i}" for i in range(devices)]


def agree(group: OneDevice, what: dict[str, Any]) -> dict[str, Any]:
    """Checks that all processes have the same values, by name; returns the chief's.

    Raises:
      UserError: one has other values.
    """
    told = [json.loads(text) for text in group.told(json.dumps(what))]
    for rank, theirs in enumerate(told):
        different = [name for name in told[0] if theirs[name] != told[0][name]]
        if different:
            values = (f"{n}={told[0][n]} at worker 0, {n}={theirs[n]} at worker {rank}" for n in different)
            raise UserError(f"Workers differ: {'; '.join(values)}. Give all workers the same command and data.")
    return told[0]
