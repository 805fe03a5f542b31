"""Importing TensorFlow without its start-up noise, which C++ writes to stderr before any log level applies."""

import contextlib
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging

from vae_cf_tf.files import stderr_in


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For imports: they make millions of objects that stay, and Python would look through them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def import_tensorflow(first_operation: Callable[[], Any] | None = None) -> Any:
    """Imports TensorFlow with stderr closed to it; to be called before anything else imports it.

    Args:
      first_operation: what TensorFlow does first, such as joining other workers; its result is returned.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    warnings.filterwarnings("ignore", message=".*shuffle=True.*will be ignored")
    with stderr_in(os.devnull), without_garbage_collection():
        import tensorflow as tf

        # The first operation writes the rest.
        result = tf.constant(0) if first_operation is None else first_operation()
        # TF32 keeps 10 bits of a product's factors: a GPU would train and check an export by other numbers than a CPU.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        logging.set_verbosity(logging.WARNING)
        return result
