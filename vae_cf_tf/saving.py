"""Makes Keras know the classes of this package: import it before `keras.models.load_model` reads a .keras file."""

from vae_cf_tf.models import hybrid
from vae_cf_tf.registries import LATENT
from vae_cf_tf.training import optimizers

CLASSES = (*(LATENT[name] for name in LATENT.names()), hybrid.HybridModel, *optimizers.OPTIMIZERS.values())
"""The models and optimisers that a file may hold. Their layers come with them."""
