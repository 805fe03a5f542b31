"""The training loop on several devices, by `tf.distribute`."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.batches import HISTORIES

WEIGHTS = tf.TensorSpec([None], tf.float32)


class Steps:
    """The training steps of a model whose variables were made in the scope of the present strategy.

    The loss is a mean over the global batch: each replica adds up its users' terms and divides them by the global
    number of users, and gradients are summed over replicas.

    Args:
      model: compiled.
      weighted: whether batches are pairs of histories and weights.
    """

    def __init__(self, model: Autoencoder, weighted: bool):
        self.model, self._strategy = model, tf.distribute.get_strategy()
        signature = [HISTORIES, WEIGHTS] if weighted else [HISTORIES]
        self._by_turn = {
            turn: tf.function(self._traced(turn), input_signature=signature, autograph=False) for turn in (True, False)
        }
        self.done = int(model.optimizer.iterations.numpy())

    def _traced(self, is_first_turn: bool) -> Any:
        def step(histories: tf.RaggedTensor, weights: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
            beta = self.model.step_options.annealing(tf.convert_to_tensor(self.model.optimizer.iterations))

            @tf.autograph.experimental.do_not_convert
            def on_replica(histories: tf.RaggedTensor, weights: tf.Tensor | None) -> tf.Tensor:
                return tf.stack(self.model.replica_step(histories, weights, is_first_turn))

            parts = self._strategy.run(on_replica, args=(histories, weights))
            return self.model.tracked(beta, *tf.unstack(self._strategy.reduce("SUM", parts, axis=None)))

        return step

    def __call__(self, batch: Any) -> dict[str, tf.Tensor]:
        """Does a step on a global batch; returns what `train_step` does."""
        step = self._by_turn[bool(self.model.is_first_turn(self.done))]
        logs = step(*(batch if isinstance(batch, tuple) else [batch]))
        self.done += 1
        return logs


def fit(
    model: Autoencoder,
    dataset: tf.data.Dataset,
    epochs: int,
    initial_epoch: int,
    steps_per_epoch: int,
    verbose: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """As `Autoencoder.fit`, in the scope of a strategy. `keras.Model.fit` does not hold there: with several workers it
    cannot reduce scalar logs (keras#20585), and it would cut batches by its own rules.

    Args:
      model: made and compiled in the scope.
      dataset: endless; global batches, histories or pairs of these and weights.
      epochs, initial_epoch, steps_per_epoch, verbose, callbacks: as `keras.Model.fit`.
    """
    around = keras.callbacks.CallbackList(
        model.with_refresh(callbacks),
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=steps_per_epoch,
    )
    steps, batches = Steps(model, isinstance(dataset.element_spec, tuple)), iter(dataset)
    logs: dict[str, float] = {}
    model.stop_training = False
    around.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        model.reset_metrics()
        around.on_epoch_begin(epoch)
        for number in range(steps_per_epoch):
            around.on_train_batch_begin(number)
            logs = {name: float(value) for name, value in steps(next(batches)).items()}
            around.on_train_batch_end(number, logs)
        around.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    around.on_train_end(logs)
