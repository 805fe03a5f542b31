"""Settings by concern, with flat names for flags and files."""

from vae_cf_tf.settings.data import DataSettings, SplitSettings
from vae_cf_tf.settings.model import ItemItemSettings, ModelSettings
from vae_cf_tf.settings.run import EvaluationSettings, RunSettings
from vae_cf_tf.settings.settings import Settings
from vae_cf_tf.settings.training import TrainingSettings

__all__ = [
    "DataSettings",
    "EvaluationSettings",
    "ItemItemSettings",
    "ModelSettings",
    "RunSettings",
    "Settings",
    "SplitSettings",
    "TrainingSettings",
]
