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
        self._last_large: tf.Operation | None = None  # the update before, in the step that is being traced

    def update_by_rows(self, variables: Sequence[keras.Variable]) -> None:
        """Names the variables whose gradients are tf.IndexedSlices. Call it before `build`.

        Only the rows that have a gradient are updated, with their moments. Each row's bias correction counts the row's
        own updates, so its first update is as large as that of any other variable, in whatever step it comes.
        """
        self._by_rows = [id(variable) for variable in variables]

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._is_by_rows = [id(v) in self._by_rows for v in variables]
            shapes = [v.shape[:1] if by_rows else () for v, by_rows in zip(variables, self._is_by_rows, strict=True)]
            self._updates = [self.add_variable(shape, initializer="zeros", name="updates") for shape in shapes]

    def apply(self, grads, trainable_variables=None):
        """As `keras.optimizers.Optimizer.apply`, but in an order that takes little memory.

        TensorFlow computes each gradient as soon as it can, and so holds all of them at once. Here the last variable of
        the forward pass is updated first, and a large gradient is computed only after the previous update of a large
        variable. Within a distribution strategy gradients are reduced together, so there they do not wait.

        TensorFlow copies a variable that is updated while it is still read. So its update also waits for the nearest
        small gradient before its own in forward order: then the products of the backward pass that read the variable
        are done. Gradients by rows do not wait: an update of single rows never copies the variable.
        """
        waiting, before = [], []
        for gradient in grads:
            is_dense = isinstance(gradient, tf.Tensor)
            with tf.control_dependencies(before if is_dense else []):
                waiting.append(tf.identity(gradient) if is_dense else gradient)
            if is_dense and not _is_large(gradient):
                before = [gradient]
        self._last_large = None
        if trainable_variables is None or not self.built:
            super().apply(waiting, trainable_variables)
        else:
            super().apply(waiting[::-1], list(trainable_variables)[::-1])

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """As Keras' method, but without a strategy it returns its argument: Keras' would hold all gradients until the
        last one is computed."""
        return super()._all_reduce_sum_gradients(grads_and_vars) if tf.distribute.has_strategy() else grads_and_vars

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        m, v, updates = self._momentums[index].value, self._velocities[index].value, self._updates[index].value
        if self._is_by_rows[index]:
            self._update_rows(gradient, variable, m, v, updates, learning_rate)
            return
        is_large = _is_large(gradient) and not tf.distribute.has_strategy()
        if is_large and self._last_large is not None:
            for operation in _makers(gradient):
                operation._add_control_input(self._last_large)
        step = updates.assign_add(1.0)
        update = tf.raw_ops.ResourceApplyAdam(
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
        if is_large:
            self._last_large = update

    def direction(self, gradient: tf.Tensor) -> tf.Tensor:
        """The tensor that the update uses as the gradient, of the same shape. A subclass may replace it."""
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


_LARGE = 2**22


def _is_large(tensor: tf.Tensor) -> bool:
    """Whether it has 16 MiB or more. Smaller ones may be computed together, which keeps all cores busy."""
    return (tensor.shape.num_elements() or 0) >= _LARGE


def _makers(tensor: tf.Tensor) -> list[tf.Operation]:
    """The operations at which the computation of a large tensor can wait: its own operation or, if it has large inputs
    that nothing else reads, the operations of these, found in the same way."""
    alone = [
        t for t in tensor.op.inputs if _is_large(t) and t.op.inputs and len(t.consumers()) == len(t.op.outputs) == 1
    ]
    return [maker for part in alone for maker in _makers(part)] or [tensor.op]


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
