"""Trains toy models on logical devices of the CPU: `python tests/distributed_steps.py REPLICAS NAME…`.

A process of its own, since TensorFlow divides the CPU before its first operation only, and since its collective
operations keep the first number of replicas. Prints the losses of 50 steps as JSON, by name, on one device and on
several, the loss after them with the averages of the weights, and whether all devices end with equal weights and
averages.
"""

import contextlib
import json
import sys

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

if __name__ == "__main__":
    REPLICAS = int(sys.argv[1])
    devices = [tf.config.LogicalDeviceConfiguration()] * REPLICAS
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)

from conftest import FLAGFILES, compiled, small

from vae_cf_tf.models import batches, replicas, tree
from vae_cf_tf.models.blocks import Linear
from vae_cf_tf.training import strategies
from vae_cf_tf.training.averaging import AverageWeights

STEPS = 50
CASES = {
    "baseline": ("baseline", {"beta_warmup": 2.0}),
    "evcf": ("evcf", {"beta_warmup": 2.0}),
    "vamp": ("vamp", {}),
    "wide": ("wide", {"softmax_samples": 20, "beta_warmup": 2.0}),
    "batch_vamp": ("evcf", {"prior": "batch_vamp", "layers": 1, "beta_warmup": 2.0}),
    "decay": ("multdae", {"weight_decay": 0.01}),
    "weighted": ("baseline", {"beta_scale": "item", "beta_warmup": 2.0}),
    "bfloat16": ("baseline", {"dtype_policy": "mixed_bfloat16", "prior": "batch_vamp", "beta_warmup": 2.0}),
}
"""By name: flagfile and other settings."""


class StepLosses(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))


def users() -> sp.csr_matrix:
    """57 users, so that a pass ends with 7 of them, whom 2 and 4 replicas share unequally."""
    rng = np.random.default_rng(0)
    return sp.csr_matrix((rng.random((57, 60)) < 0.15) * rng.integers(1, 4, (57, 60)), dtype=np.float32)


def reads_whole(strategy: tf.distribute.Strategy, layer: Linear) -> bool:
    """Whether a replica reads the whole kernel for some units."""
    run = tf.function(lambda x, units: strategy.run(layer.some_units, (x, units)))
    graph = run.get_concrete_function(tf.zeros([2, layer.input_dim]), tf.constant([3, 1])).graph
    reads = [op for op in graph.get_operations() if op.type == "ReadVariableOp"]
    return any(op.outputs[0].shape == layer.kernel.shape for op in reads)


def losses(name: str, group: strategies.OneDevice) -> dict:
    """Of the first steps: their losses; −log p(x|z) of all users with the averages after them, and with the weights;
    and whether all devices have the same weights and averages."""
    flagfile, more = CASES[name]
    settings, values = small(next(p for p in FLAGFILES if p.stem == flagfile), **more), users()
    train = values.sign() if name != "weighted" else values
    with group.scope():
        model, seen = compiled(settings, values.sign()), StepLosses()
        averages = AverageWeights(model, settings.training.average_weights)
        steps = batches.steps_per_pass(train, 10) * settings.training.passes
        stream = batches.shuffled(train, 10, settings.training.seed, weighted=name == "weighted")
        epochs = -(-STEPS // steps)
        callbacks = [averages, seen]
        group.fit(model, stream, epochs=epochs, initial_epoch=0, steps_per_epoch=steps, verbose=0, callbacks=callbacks)
        terms = tf.function(replicas.shared_out(model.terms), input_signature=[batches.HISTORIES])
        everyone = batches.ragged(values)
        of_weights = -float(np.mean(terms(everyone).log_likelihood))
        with averages.in_place():
            of_averages = -float(np.mean(terms(everyone).log_likelihood))
        found = {"losses": seen.losses[:STEPS], "nll": of_weights, "average_nll": of_averages, "equal": True}
        if group.is_distributed:
            variables = tree.variables(model) | averages.variables
            copies = [group.strategy.experimental_local_results(v.value) for v in variables.values()]
            found["reads_whole"] = reads_whole(group.strategy, model.decoder.output_layer)
            found["equal"] = all((a.numpy() == b.numpy()).all() for a, *others in copies for b in others)
        return found


if __name__ == "__main__":
    together = strategies.Devices(tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(REPLICAS)]))
    found = {}
    for name in sys.argv[2:]:
        with contextlib.redirect_stdout(sys.stderr):
            found[name] = {"one": losses(name, strategies.OneDevice()), "several": losses(name, together)}
    print(json.dumps(found))
