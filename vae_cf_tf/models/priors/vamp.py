"""The VampPrior."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models import replicas
from vae_cf_tf.models.distributions import MixtureOfNormals
from vae_cf_tf.models.encoders import Encoder
from vae_cf_tf.models.histories import keep_mask
from vae_cf_tf.models.item_axes import ItemAxis
from vae_cf_tf.models.priors.base import Prior, PriorContext, PriorParts, PseudoInputs, unowned
from vae_cf_tf.settings import ModelSettings

tfd = tfp.distributions


class VampPrior(Prior):
    """p(z) = 1/K Σ_k q(z|u_k), u_k = clip(w_k, 0, 1): a mixture of the encoder's own posteriors at K learned
    pseudo-inputs (Tomczak & Welling 2018, equation 9; Kim & Suh 2019).

    As in Kim & Suh's code, pseudo-inputs pass through the encoder's input dropout in training, and are not
    L2-normalised.

    Args:
      encoder: gives mean and log-variance for rows, float [K, num_items].
      pseudo_inputs: K.
      num_items: width of a pseudo-input.
      start: float [K, num_items] to start from; None: N(.05, .01²).
    """

    title = "Vamp"

    def __init__(self, encoder: Encoder, pseudo_inputs: int, num_items: int, start: np.ndarray | None = None, **kwargs):
        super().__init__(**kwargs)
        self._encode = unowned(encoder)
        initializer = keras.initializers.RandomNormal(0.05, 0.01) if start is None else lambda shape, dtype: start
        self.pseudo_inputs = self.add_weight(
            shape=(pseudo_inputs, num_items), initializer=initializer, name="pseudo_inputs"
        )
        self.built = True

    @classmethod
    def needs_users(cls, settings: ModelSettings) -> bool:
        return settings.pseudo_init != "normal"

    @classmethod
    def from_settings(cls, settings: ModelSettings, parts: PriorParts) -> "VampPrior":
        start = None
        if cls.needs_users(settings) and parts.users is not None:
            start = parts.users.toarray().astype(np.float32)
            if settings.pseudo_init == "unit_users":
                start /= np.maximum(np.linalg.norm(start, axis=1, keepdims=True), 1)
            else:
                noise = np.random.default_rng([parts.seed, 2]).normal(0, 0.01, start.shape)
                start = (start + noise).astype(np.float32)
        return cls(parts.encoder, parts.components, parts.num_items, start, name="prior")

    def item_axes(self) -> list[ItemAxis]:
        return [ItemAxis(self.pseudo_inputs, 1, self.pseudo_inputs.shape[1])]

    def distribution(self, context: PriorContext = PriorContext()) -> tfd.Distribution:  # noqa: B008
        w = tf.convert_to_tensor(self.pseudo_inputs)
        if not context.rate:
            return MixtureOfNormals(
                *replicas.current().by_rows(lambda w: self._encode(tf.clip_by_value(w, 0.0, 1.0)), w)
            )
        kept = keep_mask(tf.shape(w), context.rate, context.seed)
        scale = tf.constant(1 / (1 - context.rate), w.dtype)
        return MixtureOfNormals(
            *replicas.current().by_rows(lambda w, kept: self._encode(_clipped_and_dropped(w, kept, scale)), w, kept)
        )

    def pseudo_inputs_of(self, components: np.ndarray) -> PseudoInputs:
        return PseudoInputs(np.clip(tf.gather(self.pseudo_inputs, components).numpy(), 0, 1), learned=True)


@tf.custom_gradient
def _clipped_and_dropped(w: tf.Tensor, kept: tf.Tensor, scale: tf.Tensor):
    """clip(w, 0, 1) where `kept`, times `scale`. XLA makes one pass of it, and one of its gradient.

    At [1000, 20,108] these took 8 and 10 ms on 2 cores, 19 and 33 operation by operation. XLA has no part in matrix
    products here: its own are slow on the CPU.
    """
    return _forward(w, kept, scale), lambda upstream: (_backward(upstream, w, kept, scale), None, None)


@tf.function(jit_compile=True, autograph=False)
def _forward(w: tf.Tensor, kept: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    return tf.where(kept, tf.clip_by_value(w, 0.0, 1.0) * scale, 0.0)


@tf.function(jit_compile=True, autograph=False)
def _backward(upstream: tf.Tensor, w: tf.Tensor, kept: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    return tf.where(kept & (w >= 0) & (w <= 1), upstream * scale, 0.0)
