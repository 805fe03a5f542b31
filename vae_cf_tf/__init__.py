"""Variational autoencoders for collaborative filtering, with flexible priors and gating, in TensorFlow and Keras 3.

The public names are imported when they are first used, so that `import vae_cf_tf` is quick and needs no TensorFlow.

Examples:
  >>> import vae_cf_tf
  >>> vae_cf_tf.Settings.of(latent="flat", prior="standard", prior_own=0.0).model.latent
  'flat'
"""

import importlib
from typing import TYPE_CHECKING, Any

from vae_cf_tf import version

if TYPE_CHECKING:
    from vae_cf_tf.data.formats import read as load
    from vae_cf_tf.data.interactions import Interactions
    from vae_cf_tf.data.split import Split, split
    from vae_cf_tf.errors import UserError
    from vae_cf_tf.models.batches import ragged
    from vae_cf_tf.models.build import build
    from vae_cf_tf.recommender.recommender import Recommender
    from vae_cf_tf.settings import ModelSettings, Settings, SplitSettings, TrainingSettings
    from vae_cf_tf.training.compiling import compile_for

__version__ = version.VERSION
__all__ = [
    "Interactions",
    "ModelSettings",
    "Recommender",
    "Settings",
    "Split",
    "SplitSettings",
    "TrainingSettings",
    "UserError",
    "build",
    "compile_for",
    "load",
    "ragged",
    "split",
]

_PLACES = {
    "Interactions": "vae_cf_tf.data.interactions:Interactions",
    "ModelSettings": "vae_cf_tf.settings:ModelSettings",
    "Recommender": "vae_cf_tf.recommender.recommender:Recommender",
    "Settings": "vae_cf_tf.settings:Settings",
    "Split": "vae_cf_tf.data.split:Split",
    "SplitSettings": "vae_cf_tf.settings:SplitSettings",
    "TrainingSettings": "vae_cf_tf.settings:TrainingSettings",
    "UserError": "vae_cf_tf.errors:UserError",
    "build": "vae_cf_tf.models.build:build",
    "compile_for": "vae_cf_tf.training.compiling:compile_for",
    "load": "vae_cf_tf.data.formats:read",
    "ragged": "vae_cf_tf.models.batches:ragged",
    "split": "vae_cf_tf.data.split:split",
}
"""Module and name of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
