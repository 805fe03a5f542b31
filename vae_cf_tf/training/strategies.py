"""The devices that share a training: one, several of this machine, or several machines.

A strategy of `tf.distribute` belongs to the process, and so does what is made here: `group` makes it once.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

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
        super().__init__(tf.distribute.MultiWorkerMirroredStrategy())
        self.cluster, self.is_chief = cluster, cluster.is_chief

    def told(self, text: str) -> list[str]:
        data, workers = np.frombuffer(text.encode(), np.uint8), len(self.cluster.addresses)
        lengths = np.zeros(workers, np.float32)
        lengths[self.cluster.rank] = len(data)
        lengths = self._sum(lengths).astype(int)
        table = np.zeros((workers, max(lengths)), np.float32)
        table[self.cluster.rank, : len(data)] = data
        table = self._sum(table).astype(np.uint8)
        return [bytes(row[:length]).decode() for row, length in zip(table, lengths, strict=True)]

    def copy_from_chief(self, variables: tree.Variables) -> None:
        for variable in variables.values():
            value = self.strategy.experimental_local_results(variable.value)[0].numpy()
            variable.assign(self._sum(value if self.is_chief else np.zeros_like(value)))

    def _sum(self, array: np.ndarray) -> np.ndarray:
        """The sum over processes."""
        own = iter([array])  # of the first device of this process; the others have zeros
        values = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(next(own, np.zeros_like(array)))
        )
        return self.strategy.reduce("SUM", values, axis=None).numpy()

    @contextlib.contextmanager
    def losing_workers(self) -> Iterator[None]:
        try:
            yield
        except _LOST as error:
            others = ", ".join(a for i, a in enumerate(self.cluster.addresses) if i != self.cluster.rank)
            raise UserError(
                f"A worker has ended or cannot be reached; the others are {others}. Start the same command on all workers "
                "again: it goes on from the last checkpoint."
            ) from error


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
    """The devices of these settings. At the first call of a process it must come before TensorFlow's first operation,
    but for --distribute=none and for GPUs.

    Raises:
      UserError: too few devices, or TF_CONFIG is missing or malformed.
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
            f"--distribute=mirrored needs two devices, and this machine has {what}, --replicas={replicas}. Leave it out, "
            "or give --replicas=2 on a machine without GPUs to try it out."
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
