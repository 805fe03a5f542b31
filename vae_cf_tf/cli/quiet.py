"""Importing TensorFlow without its start-up noise, which C++ writes to stderr before any log level applies."""

import os
import sys
import warnings

from absl import logging


def import_tensorflow() -> None:
    """Imports TensorFlow with stderr closed to it; to be called before anything else imports it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    warnings.filterwarnings("ignore", message=".*shuffle=True.*will be ignored")
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow as tf

        tf.constant(0)  # the first operation writes the rest
        # TF32 keeps 10 bits of a product's factors: a GPU would train and check an export by other numbers than a CPU.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        logging.set_verbosity(logging.WARNING)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
