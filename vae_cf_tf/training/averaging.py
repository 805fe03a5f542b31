"""The average of the weights over the steps of training."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from vae_cf_tf.models import tree
from vae_cf_tf.models.base import Autoencoder

EVERY, EVERY_BY_ROWS = 5, 50
"""Steps from one update to the next. An update reads and writes all weights, as Adam does: at every step it would take
about a seventh of the default's time on MovieLens 1M. The second number is for a sampled softmax, whose steps touch few
rows of their kernels."""


class AverageWeights(keras.callbacks.Callback):
    """Keeps an exponential moving average of the weights that learn: a ← d·a + (1 − d)·w (Polyak & Juditsky 1992; in
    this form Tarvainen & Valpola 2017).

    At a constant learning rate the weights keep moving around an optimum, and their average is nearer to it. So the run
    needs no learning-rate schedule, which must know the last epoch. The n-th update, from 0, has
    d = min(decay^every, n/(n + 9)), with `every` steps between updates: the first one copies the weights, and early
    ones forget the first steps.

    Args:
      model: a built model.
      decay: decay of one step, from 0 to 1; 0: no average is kept.
    """

    def __init__(self, model: Autoencoder, decay: float):
        super().__init__()
        self._network, self.decay = model, decay
        self.every = EVERY_BY_ROWS if model.settings.softmax_samples else EVERY
        self._weights = {n: v for n, v in tree.variables(model).items() if v.trainable} if decay else {}
        self.variables = {
            f"average/{name}": keras.Variable(v, trainable=False, name=v.name) for name, v in self._weights.items()
        }
        """The averages by name, for a checkpoint."""
        self._update = tf.function(self._updated, input_signature=[tf.TensorSpec([])], autograph=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.decay:
            step = int(self._network.optimizer.iterations.numpy())
            if step % self.every == 0:
                self._update(float(step // self.every - 1))

    def _updated(self, updates: tf.Tensor) -> None:
        share = 1 - tf.minimum(self.decay**self.every, updates / (updates + 9))
        for average, weight in self._pairs():
            average.assign_add(share * (weight.value - average.value))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model's weights are the averages, and its prior is refreshed with them.

        Use it between two epochs. On exit the weights are restored, but the prior is not: the next epoch refreshes it.
        """
        if not self.decay:
            yield
            return
        self._exchange()
        try:
            self._network.refresh()
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for average, weight in self._pairs():
            value = weight.numpy()
            weight.assign(average.value)
            average.assign(value)

    def _pairs(self) -> Iterator[tuple[keras.Variable, keras.Variable]]:
        return zip(self.variables.values(), self._weights.values(), strict=True)
