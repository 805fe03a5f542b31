"""One run of a sweep, in a process of its own: the main job, then each held-out user's figures.

Its flags are those of trainers.main. It lives as long as the sweep that started it: standard input is a pipe from there
that only closes.
"""

import json
import os
import shutil
import sys
import threading
import time

import numpy as np
from absl import flags

from trainers.main import config_from_flags, define_flags
from vae_cf_tf import commands, quiet
from vae_cf_tf.files import written_aside
from vae_cf_tf.workdir import Workdir

PER_USER = "per_user.npz"  # "part/metric": float64 [users with targets]
FINISHED = "finished.json"  # written last: the settings, and what the run took
KEEPS = ("results", "weights", "all")


def main(argv: list[str]) -> None:
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    started = time.monotonic()
    config = config_from_flags()
    quiet.import_tensorflow()
    from trainers.train import train_and_evaluate
    from vae_cf_tf import evaluation, trained

    train_and_evaluate(config)
    workdir = Workdir(config.workdir)
    split = workdir.split()
    rank = evaluation.model_ranker(trained.load(workdir, split))
    values = {
        f"{part}/{name}": found
        for part in ("test", "validation")
        for name, found in evaluation.evaluate(rank, getattr(split, part), config.eval_batch_size).items()
    }
    with written_aside(workdir.path / PER_USER) as aside, open(aside, "wb") as f:
        np.savez(f, **values)
    _tidy(workdir, flags.FLAGS.keep)
    with written_aside(workdir.path / FINISHED) as aside:
        done = {"settings": config.figures_depend_on(), "seconds": time.monotonic() - started}
        aside.write_text(json.dumps(done, indent=1) + "\n")


def _tidy(workdir: Workdir, keep: str) -> None:
    """Removes what a finished run no longer needs: a hundred runs' checkpoints fill a disk."""
    if keep != "all":
        workdir.checkpoint.unlink(missing_ok=True)
        shutil.rmtree(workdir.path / "export", ignore_errors=True)
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
