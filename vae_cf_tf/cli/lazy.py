"""Modules that are imported when they are first used, so that --help and a wrong flag cost no time."""

import importlib
from typing import Any

from vae_cf_tf.cli import quiet


class LazyModule:
    """Stands for a module that takes long to import. Its first attribute imports it.

    Args:
      name: of the module.
      tensorflow: whether it needs TensorFlow, which is then imported first, without its noise.
    """

    def __init__(self, name: str, tensorflow: bool = True):
        self._name, self._tensorflow = name, tensorflow

    def __getattr__(self, attribute: str) -> Any:
        if self._tensorflow:
            quiet.import_tensorflow()
        with quiet.without_garbage_collection():
            module = importlib.import_module(self._name)
        return getattr(module, attribute)
