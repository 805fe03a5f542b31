"""What happens around the steps of `fit`: validation, the run's files, early stopping, and the watch for NaN."""

import math
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vae_cf_tf import batches, checkpoints, evaluation
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.models import Autoencoder
from vae_cf_tf.workdir import Workdir

STOP_METRIC = "ndcg@100"


class StopOnNaN(keras.callbacks.Callback):
    """Ends the run at the first step whose loss is NaN or infinite, with an error that names the step."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            step = int(self.model.optimizer.iterations.numpy())
            raise UserError(
                f"Training diverged at step {step}: the loss is {loss} and cannot recover. The workdir keeps the last "
                "good epoch; lower --learning_rate or --beta_cap and give another --workdir."
            )


class StopOnInterrupt(keras.callbacks.Callback):
    """Ends training on Ctrl-C between two steps; a second Ctrl-C ends it at once.

    Raised wherever it strikes, KeyboardInterrupt may fall into a destructor's frame, where Python drops it.
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.requested, self.before = False, signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread():  # others receive no signals
            signal.signal(signal.SIGINT, self._request)

    def _request(self, number: int, frame: Any) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.requested:
            raise KeyboardInterrupt

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.before)
        if self.requested:
            raise KeyboardInterrupt


class Validate(keras.callbacks.Callback):
    """Judges each epoch: `figures` has the ranking metrics of the validation users, their mean −log p(x|z) and KL at
    the posterior mean, unweighted, as Kim & Suh's code logs them, and the training part's seconds; the logs, which a
    person reads, get the metric that decides.
    """

    def __init__(self, split: Split, batch_size: int):
        super().__init__()
        self.held_out, self.batch_size = split.validation, batch_size
        self.rank: evaluation.Ranker | None = None
        self.terms: Callable | None = None
        self.started = self.ended = 0.0
        self.figures: dict[str, float] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.rank = evaluation.model_ranker(self.model)
        self.terms = tf.function(self.model.terms, input_signature=[batches.HISTORIES])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = evaluation.evaluate(self.rank, self.held_out, self.batch_size)
        self.figures = {f"val_{name}": float(np.mean(values)) for name, values in figures.items()}
        users = evaluation.users_at_once(self.batch_size, self.held_out.fold_in.shape[1])
        terms = [self.terms(batch) for _, batch in batches.in_order(self.held_out.fold_in, users)]
        self.figures["val_nll"] = -float(np.mean(np.concatenate([t.log_likelihood for t in terms])))
        self.figures["val_kl"] = float(np.mean(np.concatenate([t.kl for t in terms])))
        self.figures["seconds"] = self.ended - self.started
        logs[f"val_{STOP_METRIC}"] = self.figures[f"val_{STOP_METRIC}"]


class Keep(keras.callbacks.Callback):
    """Keeps the best epoch and the means to resume, writes history.csv, and stops as published.

    Stopping follows Kim & Suh's code: after more than `patience` epochs without a better validation NDCG@100, epochs of
    the warm-up not counted.

    Args:
      workdir: where to write.
      validate: has the epoch's figures; comes before this callback.
      patience: see above.
      warmup_epochs: length of the warm-up in epochs.
      seconds: least time between two checkpoints; the last epoch always has one.
    """

    def __init__(self, workdir: Workdir, validate: Validate, patience: int, warmup_epochs: float, seconds: float):
        super().__init__()
        self.workdir, self.validate = workdir, validate
        self.patience, self.warmup_epochs, self.seconds = patience, warmup_epochs, seconds
        self.rows: list[dict[str, Any]] = []
        self.best, self.best_epoch, self.waited, self.stopped = -math.inf, 0, 0, False
        self.written = time.monotonic()
        self.trained = False  # by this process

    def restore(self, model: Autoencoder, epochs: int) -> None:
        """Takes up the workdir's checkpoint, if there is one, to train up to `epochs` epochs in all.

        The best epoch may be ahead of the checkpoint, if the process was killed between the two files. Training then
        comes by it again; but if it would not, or if the best weights are gone, there is nothing to take up.
        """
        if not self.workdir.checkpoint.exists() or not self.workdir.best.exists():
            return
        if checkpoints.read_meta(self.workdir.best)["epoch"] > epochs:
            return
        meta = checkpoints.load(self.workdir.checkpoint, _everything(model))
        self.rows, self.best, self.best_epoch, self.waited, self.stopped = (
            meta[name] for name in ("rows", "best", "best_epoch", "waited", "stopped")
        )
        self.workdir.write_history(self.rows)

    @property
    def epochs_done(self) -> int:
        return len(self.rows)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        train = {name: float(logs[name]) for name in ("beta", "loss", "nll", "kl")}
        self.rows.append({"epoch": epoch + 1} | train | self.validate.figures)
        value = logs[f"val_{STOP_METRIC}"]
        if value > self.best:
            self.best, self.best_epoch, self.waited = value, epoch + 1, 0
            checkpoints.save(self.workdir.best, checkpoints.model_variables(self.model), {"epoch": epoch + 1})
        elif epoch + 1 >= self.warmup_epochs:
            self.waited += 1
        else:
            self.waited = 0
        self.stopped = self.waited > self.patience
        self.model.stop_training = self.stopped
        self.workdir.write_history(self.rows)
        if self.stopped or time.monotonic() - self.written >= self.seconds:
            self._write()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.trained = True
        self._write()

    def _write(self) -> None:
        meta = {name: getattr(self, name) for name in ("rows", "best", "best_epoch", "waited", "stopped")}
        checkpoints.save(self.workdir.checkpoint, _everything(self.model), meta)
        self.written = time.monotonic()


def _everything(model: Autoencoder) -> checkpoints.Variables:
    return checkpoints.model_variables(model) | checkpoints.optimizer_variables(model.optimizer)
