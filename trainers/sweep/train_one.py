"""Training and evaluation of one run of a sweep, and the figures of each held-out user."""

import time

import numpy as np

from trainers.evaluate import evaluate, evaluate_baselines
from trainers.sweep.runs import FINISHED, PER_USER, of_results
from trainers.train import train
from vae_cf_tf.data.split import Split
from vae_cf_tf.files import written_aside
from vae_cf_tf.runs.workdir import Workdir, write_json
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
    baselines = evaluate_baselines(settings.evaluation, workdir, split, print_line)
    network, log = train(settings, workdir, split, print_line)
    evaluation = evaluate(network, settings, workdir, split, log, baselines, print_line)
    values = {f"{part}/{name}": v for part, figures in evaluation.per_user.items() for name, v in figures.items()}
    with written_aside(workdir.path / PER_USER) as aside, open(aside, "wb") as f:
        np.savez(f, allow_pickle=False, **values)
    if keep != "all":  # the checkpoints of a hundred runs fill a disk
        workdir.checkpoint.unlink(missing_ok=True)
    if keep == "results":
        workdir.best.unlink(missing_ok=True)
        workdir.item_item.unlink(missing_ok=True)
    done = {"settings": of_results(settings), "seconds": time.monotonic() - started}
    write_json(workdir.path / FINISHED, done)
