"""Training and evaluation of one run of a sweep."""

import time

from trainers import job
from trainers.sweep.runs import FINISHED, of_results
from vae_cf_tf.data.split import Split
from vae_cf_tf.files import write_json
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import print_line
from vae_cf_tf.settings import Settings


def train_one(settings: Settings, workdir: Workdir, split: Split, keep: str) -> None:
    """Makes a run, or what is left of it, and marks it as finished.

    Args:
      settings: of the run.
      workdir: claimed for them and locked by this process.
      split: its data.
      keep: what stays of it: "results", "weights" or "all".
    """
    started = time.monotonic()
    job.trained(settings, workdir, split, print_line)
    if keep != "all":  # the checkpoints of a hundred runs fill a disk
        workdir.checkpoint.unlink(missing_ok=True)
    if keep == "results":
        workdir.best.unlink(missing_ok=True)
        workdir.item_item.unlink(missing_ok=True)
    done = {"settings": of_results(settings), "seconds": time.monotonic() - started}
    write_json(workdir.path / FINISHED, done)
