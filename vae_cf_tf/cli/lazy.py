"""Modules that are imported when they are first used, so that --help and a wrong flag cost no time."""

import importlib
from typing import Any

from vae_cf_tf.cli import quiet


class LazyModule:
    """Stands for a module that needs TensorFlow. Its first attribute imports both, without TensorFlow's noise.

    Args:
      name: of the module.
    """

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        quiet.import_tensorflow()
        return getattr(importlib.import_module(self._name), attribute)
