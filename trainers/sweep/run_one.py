"""One run of a sweep, or its baselines, in a process of its own.

Its flags are those of trainers.main. Its standard input is a pipe from the sweep that started it. Nothing is written
there; when the pipe closes, because the sweep has ended, this process ends too.
"""

import os
import sys
import threading
from typing import TYPE_CHECKING

from absl import flags

from trainers.claim import prepared_split
from trainers.setting_flags import define_flags as define_settings
from trainers.setting_flags import settings_from_flags
from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import print_line

if TYPE_CHECKING:
    from trainers import evaluate
    from trainers.sweep import train_one
else:
    evaluate, train_one = LazyModule("trainers.evaluate"), LazyModule("trainers.sweep.train_one")

TASKS, KEEPS = ("run", "baselines"), ("results", "weights", "all")


def define_flags() -> None:
    define_settings()
    flags.DEFINE_enum("task", "run", TASKS, "What is done.")
    flags.DEFINE_enum("keep", "weights", KEEPS, "What stays of a finished run.")


def main(argv: list[str]) -> None:
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    settings = settings_from_flags()
    workdir = Workdir(settings.run.workdir)
    if flags.FLAGS.task == "baselines":  # the sweep holds this folder's lock
        evaluate.evaluate_baselines(settings.evaluation, workdir, workdir.split(), print_line)
        return
    with workdir.locked():
        split = prepared_split(settings, workdir, frozenset(), print_line)
        train_one.train_one(settings, workdir, split, flags.FLAGS.keep)


def _end_with_the_sweep() -> None:
    while os.read(0, 4096):
        pass
    os._exit(3)


def run() -> int:
    return commands.run(main, define_flags)


if __name__ == "__main__":
    sys.exit(run())
