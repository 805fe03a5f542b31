"""One run of a sweep, in a process of its own: training and evaluation, and each held-out user's figures.

Its flags are those of trainers.main. It lives as long as the sweep that started it: standard input is a pipe from there
that only closes.
"""

import os
import sys
import threading
import time

import numpy as np
from absl import flags

from trainers.main import config_from_flags, define_flags
from trainers.prepare import prepared_split
from vae_cf_tf import commands, quiet
from vae_cf_tf.files import written_aside
from vae_cf_tf.say import print_line
from vae_cf_tf.workdir import Workdir, write_json

PER_USER = "per_user.npz"  # "part/metric": float64 [users with targets]
FINISHED = "finished.json"  # written last: the settings, and what the run took
KEEPS = ("results", "weights", "all")


def main(argv: list[str]) -> None:
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    started = time.monotonic()
    config = config_from_flags()
    workdir = Workdir(config.workdir)
    with workdir.locked():
        split = prepared_split(config, workdir, frozenset(), print_line)
        quiet.import_tensorflow()
        from trainers import evaluate
        from trainers.train import train

        compared = evaluate.baselines(config, workdir, split, print_line)
        model, log = train(config, workdir, split, print_line)
        judged = evaluate.evaluate(model, config, workdir, split, log, compared, print_line)
        values = {f"{part}/{name}": v for part, figures in judged.per_user.items() for name, v in figures.items()}
        with written_aside(workdir.path / PER_USER) as aside, open(aside, "wb") as f:
            np.savez(f, **values)
        _tidy(workdir, flags.FLAGS.keep)
        done = {"settings": config.figures_depend_on(), "seconds": time.monotonic() - started}
        write_json(workdir.path / FINISHED, done)


def _tidy(workdir: Workdir, keep: str) -> None:
    """Removes what a finished run no longer needs: a hundred runs' checkpoints fill a disk."""
    if keep != "all":
        workdir.checkpoint.unlink(missing_ok=True)
    if keep == "results":
        workdir.best.unlink(missing_ok=True)
        workdir.item_path.unlink(missing_ok=True)


def _end_with_the_sweep() -> None:
    while os.read(0, 4096):
        pass
    os._exit(3)


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_enum("keep", "weights", KEEPS, "What stays of a finished run.")
    sys.exit(commands.run(main))
