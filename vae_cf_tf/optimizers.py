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
        index = self._get_variable_index(variable)
        step = tf.convert_to_tensor(self._updates[index]) + 1
        self._updates[index].assign(step)
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
            grad=tf.convert_to_tensor(gradient),
        )


class NormalizedAdam(Adam):
    """Adam on g / (‖g‖₂ + 1e-7), each gradient tensor by its own norm (Kim & Suh's code).

    Differs from `Adam` in that the size of the loss plays no part at all, only the gradients' directions.
    """

    def update_step(self, gradient, variable, learning_rate):
        gradient = tf.convert_to_tensor(gradient)
        norm = tf.sqrt(2 * tf.nn.l2_loss(gradient))
        super().update_step(gradient / (norm + 1e-7), variable, learning_rate)


OPTIMIZERS = {"adam": Adam, "normalized_adam": NormalizedAdam}
