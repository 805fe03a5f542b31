"""The figures of a finished run, read without TensorFlow, so that a wrong --workdir is told at once."""

from typing import Any, NamedTuple

from vae_cf_tf.errors import UserError
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import Settings


class Finished(NamedTuple):
    """What the files of a finished run say of it."""

    settings: Settings
    metrics: dict[str, Any]  # metrics.json
    history: dict[str, list[float]]  # history.csv by column


def finished_run(workdir: Workdir) -> Finished:
    """Reads the figures of a run and checks that they are of its weights.

    Raises:
      UserError: the folder is no run's, an earlier version of the package wrote it, the run is not finished or is being
        continued, or a file is damaged.
    """
    settings, metrics = workdir.settings(), workdir.read_metrics()
    history = workdir.read_history()
    best = checkpoints.read_meta(workdir.best)["epoch"]
    if len(history["epoch"]) != metrics["epochs"] or best != metrics["best_epoch"]:
        raise UserError(
            f"The run in {workdir.path} is being continued: metrics.json is of {metrics['epochs']} epochs (best: "
            f"{metrics['best_epoch']}), history.csv of {len(history['epoch'])} (best in best.npz: {best}). Let it "
            "finish first, or start trainers.main again with the same settings."
        )
    return Finished(settings, metrics, history)
