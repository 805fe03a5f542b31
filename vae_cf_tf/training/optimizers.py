"""Adam in one pass over each variable, and Kim & Suh's variant of it."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("vae_cf_tf")
class Adam(keras.optimizers.Adam):
    """Kingma & Ba 2015, with β1 .9, β2 .999, ε 1e-8 outside the bias correction as in the papers' code.

    Differs from `keras.optimizers.Adam` in that TensorFlow's fused kernel does the update: variable and moments are
    read and written once a step instead of once an operation; and in that the bias correction counts a variable's own
    updates, so that variables may take turns.

    Args:
      learning_rate: step size.
      epsilon: ε.
    """

    def __init__(self, learning_rate: float = 1e-3, epsilon: float = 1e-8, **kwargs):
        super().__init__(learning_rate=learning_rate, epsilon=epsilon, **kwargs)
        self._by_rows: list[int] = []

    def update_by_rows(self, variables: Sequence[keras.Variable]) -> None:
        """Names the variables whose gradients are tf.IndexedSlices; to be called before the first step.

        Only the rows that have a gradient are updated, with their moments, and each row's bias correction counts its
        own updates: a row's first one is as large as any other variable's, however late it comes.
        """
        self._by_rows = [id(variable) for variable in variables]

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._is_by_rows = [id(v) in self._by_rows for v in variables]
            shapes = [v.shape[:1] if by_rows else () for v, by_rows in zip(variables, self._is_by_rows, strict=True)]
            self._updates = [self.add_variable(shape, initializer="zeros", name="updates") for shape in shapes]

    def apply(self, grads, trainable_variables=None):
        """As `keras.optimizers.Optimizer.apply`, but the update of a variable waits for the gradient before its own.

        Variables come in the order of the forward pass, so most products of the backward pass that read a variable are
        done when it is updated. TensorFlow copies a variable that is still read. Gradients by rows do not wait: single
        rows are never copied with the rest.
        """
        waiting, before = [], []
        for gradient in grads:
            if isinstance(gradient, tf.Tensor):
                with tf.control_dependencies(before):
                    gradient = tf.identity(gradient)
                before = [gradient]
            waiting.append(gradient)
        super().apply(waiting, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        m, v, updates = self._momentums[index].value, self._velocities[index].value, self._updates[index].value
        if self._is_by_rows[index]:
            self._update_rows(gradient, variable, m, v, updates, learning_rate)
            return
        step = updates.assign_add(1.0)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=self.direction(tf.convert_to_tensor(gradient)),
        )

    def direction(self, gradient: tf.Tensor) -> tf.Tensor:
        """What stands for a tensor's gradient in the update."""
        return gradient

    def _update_rows(self, gradient, variable, m, v, updates, learning_rate):
        if isinstance(gradient, tf.IndexedSlices):
            rows, place = tf.unique(gradient.indices)  # a row that is met twice has two slices
            g = tf.cond(
                tf.size(rows) == tf.size(place),
                lambda: tf.convert_to_tensor(gradient.values),  # layers by rows gather each row once
                lambda: tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows)),
            )
        else:
            rows, g = tf.range(tf.shape(gradient)[0]), gradient
        g = self.direction(g)
        with tf.control_dependencies([g]):  # else all is gathered, and held, from the start of the step
            step = _rows(updates, rows) + 1.0
            m_rows = self.beta_1 * _rows(m, rows) + (1 - self.beta_1) * g
            v_rows = self.beta_2 * _rows(v, rows) + (1 - self.beta_2) * g**2
        rate = learning_rate * tf.sqrt(_bias_correction(self.beta_2, step)) / _bias_correction(self.beta_1, step)
        rate = tf.reshape(rate, [-1] + [1] * (len(variable.shape) - 1))
        with tf.control_dependencies([m_rows, v_rows]):
            old = _rows(variable, rows)
        values = old - rate * m_rows / (tf.sqrt(v_rows) + self.epsilon)
        # Not scatter_sub, which takes four times as long as scatter_update and a gather.
        for changed, by_row in ((updates, step), (m, m_rows), (v, v_rows), (variable, values)):
            changed.scatter_update(tf.IndexedSlices(by_row, rows))


def _rows(variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    """Rows of a variable, or of this device's copy of it, which `tf.gather` would read whole."""
    return tf.raw_ops.ResourceGather(resource=variable.handle, indices=rows, dtype=variable.dtype)


def _bias_correction(beta: float, step: tf.Tensor) -> tf.Tensor:
    """1 − βᵗ, more exact than a power."""
    return -tf.math.expm1(step * (math.log(beta) if beta else -math.inf))


@keras.saving.register_keras_serializable("vae_cf_tf")
class NormalizedAdam(Adam):
    """Adam on g / (‖g‖₂ + 1e-7), each gradient tensor by its own norm (Kim & Suh's code).

    Differs from `Adam` in that the size of the loss plays no part at all, only the gradients' directions.
    """

    def direction(self, gradient: tf.Tensor) -> tf.Tensor:
        norm = tf.sqrt(2 * tf.nn.l2_loss(gradient))
        return gradient / (norm + 1e-7)


OPTIMIZERS = {"adam": Adam, "normalized_adam": NormalizedAdam}
