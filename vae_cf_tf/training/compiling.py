"""From the settings of the training to a compiled model."""

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from vae_cf_tf.linear.base import item_counts
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.batches import steps_per_pass
from vae_cf_tf.models.schedules import KLAnnealing
from vae_cf_tf.settings import TrainingSettings
from vae_cf_tf.training.optimizers import OPTIMIZERS


def compile_for(
    model: Autoencoder, settings: TrainingSettings, train: sp.csr_matrix, epochs_before: int = 0
) -> Autoencoder:
    """Compiles the model for training with these settings on these users; returns it.

    Args:
      model: a built model.
      settings: of the training.
      train: [users, num_items].
      epochs_before: as `KLAnnealing`.

    Examples:
      >>> from vae_cf_tf.models.build import build
      >>> from vae_cf_tf.settings import ModelSettings
      >>> network = ModelSettings(prior="standard", hidden_dim=4, latent_dim=2)
      >>> model = compile_for(build(network, 5), TrainingSettings(batch_size=2), sp.eye(8, 5, format="csr"))
      >>> model.step_options.steps_per_pass
      4
    """
    steps = steps_per_pass(train, settings.batch_size)
    annealing = KLAnnealing(
        settings.beta_cap, settings.beta_warmup, settings.beta_unit, steps * settings.passes, epochs_before
    )
    samples, inclusion = model.settings.softmax_samples, None
    if samples:
        inclusion = tf.constant(log_inclusion(train, settings.batch_size, samples))
    model.compile(
        OPTIMIZERS[settings.optimizer](settings.learning_rate),
        annealing,
        input_dropout=settings.input_dropout,
        beta_scale=settings.beta_scale,
        weight_decay=settings.weight_decay,
        encoder_passes=settings.encoder_passes,
        steps_per_pass=steps,
        turns=settings.turns,
        kl=settings.kl,
        dtype_policy=settings.dtype_policy,
        seed=settings.seed,
        log_inclusion=inclusion,
    )
    return model


def log_inclusion(train: sp.csr_matrix, batch_size: int, samples: int) -> np.ndarray:
    """log probability that an item is among a step's candidates, float32 [items]. The candidates are the items of the
    batch's histories, and `samples` draws from the catalogue."""
    users, items = train.shape
    counts = item_counts(train)
    absent = counts * np.log1p(-min(batch_size / users, 1 - 1e-9)) + samples * np.log1p(-1 / items)  # log probability
    return np.log(-np.expm1(absent)).astype(np.float32)
