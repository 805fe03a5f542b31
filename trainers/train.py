"""Training: from a split to the weights of the best epoch."""

import sys
from typing import NamedTuple

import keras

from trainers.callbacks import CheckpointAndEarlyStop, StopOnNaN, Validate, interruptible
from vae_cf_tf import batches, checkpoints, models
from vae_cf_tf.config import Config
from vae_cf_tf.data.split import Split
from vae_cf_tf.models import Autoencoder
from vae_cf_tf.say import Say
from vae_cf_tf.workdir import Workdir


class TrainingLog(NamedTuple):
    """How the training went, in this process and those before it."""

    rows: list[dict[str, float]]  # of history.csv
    best_epoch: int
    peak_rss_mb: float


def train(config: Config, workdir: Workdir, split: Split, say: Say) -> tuple[Autoencoder, TrainingLog]:
    """Trains the model from where the workdir's checkpoint stands; returns it with the weights of the best epoch.

    Args:
      config: settings.
      workdir: receives checkpoints and history.csv.
      split: its training users learn, its validation users decide which epoch is best.
      say: receives the lines that a person reads.

    Raises:
      UserError: a damaged checkpoint, fewer --epochs than were needed for the best one, a loss that is NaN.
      KeyboardInterrupt: Ctrl-C; its text says where the same command goes on.
    """
    users = split.train.shape[0]
    if config.latent != "none" and models.starts_from_users(config) and config.pseudo_inputs > users:
        say(
            f"Components of the prior: all {users:,} training users, fewer than --pseudo_inputs={config.pseudo_inputs}."
        )
    model = models.build(config, len(split.item_ids), split.train)
    steps_per_pass = batches.steps_per_pass(split.train, config.batch_size)
    model.compile_for(steps_per_pass)
    validate = Validate(split, config.eval_batch_size)
    keep = CheckpointAndEarlyStop(workdir, validate, config, steps_per_pass * config.passes)
    keep.restore(model, config.epochs, say)
    if keep.stopped or keep.epochs_done >= config.epochs:
        say(f"Trained already: {keep.epochs_done} epochs.")
    else:
        if keep.epochs_done:
            say(f"Resuming after epoch {keep.epochs_done}.")
        with interruptible(keep) as interrupt:
            model.fit(
                batches.shuffled(split.train, config.batch_size, config.seed, keep.epochs_done * config.passes),
                epochs=config.epochs,
                initial_epoch=keep.epochs_done,
                steps_per_epoch=steps_per_pass * config.passes,
                verbose=1 if sys.stdout.isatty() else 2,  # a bar that redraws itself, or a line an epoch
                callbacks=[
                    StopOnNaN(),
                    validate,
                    keras.callbacks.TensorBoard(workdir.tensorboard, write_graph=False),
                    keep,
                    interrupt,
                ],
            )
    checkpoints.load(workdir.best, checkpoints.model_variables(model))
    return model, TrainingLog(keep.rows, keep.best_epoch, keep.peak_rss_mb)
