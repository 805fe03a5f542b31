"""Registers the classes of this package with Keras: import it before `keras.models.load_model`."""

from vae_cf_tf.models import hybrid
from vae_cf_tf.registries import LATENT
from vae_cf_tf.training import optimizers

CLASSES = (*(LATENT[name] for name in LATENT.names()), hybrid.HybridModel, *optimizers.OPTIMIZERS.values())
"""The models and optimisers that a file may hold. Their layers come with them."""
