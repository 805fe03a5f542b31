"""Importing this module imports what the commands import, TensorFlow too, and runs no operation of it.

A fork of a process in which TensorFlow has run an operation hangs. One of a process that has only imported it works,
and is ready 4 s earlier than a fresh process. The modules of the commands themselves are not imported: `runpy` warns
of modules that it runs and that are there already.
"""

import importlib

from vae_cf_tf.cli import quiet

HEAVY = (
    *("trainers.job", "trainers.claim", "trainers.memory_check", "trainers.report.write", "trainers.sweep.scheduling"),
    *("vae_cf_tf.engines.prepare", "export.judging", "export.savedmodel", "export.scoring.score_file"),
)

quiet.import_tensorflow(lambda: [importlib.import_module(name) for name in HEAVY])

from tensorflow.python.eager import context  # noqa: E402

assert context.context()._context_handle is None, "TensorFlow has started: a fork of this process would hang"
