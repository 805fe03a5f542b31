"""Adam in one pass over each variable, and Kim & Suh's variant of it."""

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):
    """Kingma & Ba 2015, with β1 .9, β2 .999, ε 1e-8 outside the bias correction as in the papers' code.

    Differs from `keras.optimizers.Adam` in that TensorFlow's fused kernel does the update: variable and moments are
    read and written once a step instead of once an operation; and in that the bias correction counts a variable's own
    updates, so that variables may take turns.
    """

    def __init__(self, learning_rate: float = 1e-3, epsilon: float = 1e-8, **kwargs):
        super().__init__(learning_rate=learning_rate, epsilon=epsilon, **kwargs)

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._updates = [self.add_variable((), initializer="zeros", name="updates") for _ in variables]

    def update_step(self, gradient, variable, learning_rate):
        """A gradient of some rows, tf.IndexedSlices, updates those rows and their moments and reads no others."""
        index = self._get_variable_index(variable)
        step = tf.convert_to_tensor(self._updates[index]) + 1
        self._updates[index].assign(step)
        if isinstance(gradient, tf.IndexedSlices):
            m, v = self._momentums[index].value, self._velocities[index].value
            rows, place = tf.unique(gradient.indices)  # a row that is met twice has two slices
            slices = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))
            self._update_rows(rows, self.direction(slices), variable, m, v, step, learning_rate)
            return
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
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

    def _update_rows(self, rows, g, variable, m, v, step, learning_rate):
        m_rows = self.beta_1 * tf.gather(m, rows) + (1 - self.beta_1) * g
        v_rows = self.beta_2 * tf.gather(v, rows) + (1 - self.beta_2) * g**2
        m.scatter_update(tf.IndexedSlices(m_rows, rows))
        v.scatter_update(tf.IndexedSlices(v_rows, rows))
        rate = learning_rate * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        variable.scatter_sub(tf.IndexedSlices(rate * m_rows / (tf.sqrt(v_rows) + self.epsilon), rows))


class NormalizedAdam(Adam):
    """Adam on g / (‖g‖₂ + 1e-7), each gradient tensor by its own norm (Kim & Suh's code).

    Differs from `Adam` in that the size of the loss plays no part at all, only the gradients' directions.
    """

    def direction(self, gradient: tf.Tensor) -> tf.Tensor:
        norm = tf.sqrt(2 * tf.nn.l2_loss(gradient))
        return gradient / (norm + 1e-7)


OPTIMIZERS = {"adam": Adam, "normalized_adam": NormalizedAdam}
