"""What happens around the steps of `fit`: validation, the run's files, early stopping, and the watch for NaN."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vae_cf_tf import machine
from vae_cf_tf.data.split import HeldOut
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import density, ranking
from vae_cf_tf.evaluation.metrics import MAIN
from vae_cf_tf.models import batches, replicas, tree
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.training.averaging import AverageWeights


class StopOnNaN(keras.callbacks.Callback):
    """Ends the run at the first step whose loss is NaN or infinite, with an error that names the step."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            step = int(self.model.optimizer.iterations.numpy())
            raise UserError(
                f"Training diverged at step {step}: the loss is {loss} and cannot recover. The workdir keeps the last "
                "good epoch; lower --learning_rate or --beta_cap and give another --workdir."
            )


class StopOnInterrupt(keras.callbacks.Callback):
    """Ends training on Ctrl-C between two steps. Made by `interruptible`.

    Python's own handler raises KeyboardInterrupt at any place, even in a destructor, where Python ignores it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested = False

    def request(self, number: int, frame: Any) -> None:
        """The handler of SIGINT; a second Ctrl-C ends the process at once."""
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.requested:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible(where_it_resumes: Callable[[], str]) -> Iterator[StopOnInterrupt]:
    """Within, Ctrl-C ends training between two steps, with a KeyboardInterrupt whose text is `where_it_resumes()`."""
    callback, before = StopOnInterrupt(), signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()  # others receive no signals
    if is_main:
        signal.signal(signal.SIGINT, callback.request)
    try:
        yield callback
        if callback.requested:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise KeyboardInterrupt(where_it_resumes()) from None
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)


class Validate(keras.callbacks.Callback):
    """Evaluates the validation users after each epoch.

    `figures` has four parts: the ranking metrics; the mean −log p(x|z) and KL at the posterior mean, without β and
    item weights, as Kim & Suh's code logs them; the ELBO from one draw of z, if the model has one (see `density_of`);
    and the seconds that the training part took. The main metric is added to Keras' logs.

    Args:
      held_out: the validation users.
      batch_size: users at a time.
      averages: whose averages are evaluated in place of the weights, if it keeps any.
    """

    def __init__(self, held_out: HeldOut, batch_size: int, averages: AverageWeights | None = None):
        super().__init__()
        self.averages = averages
        self.held_out, self.batch_size = held_out, batch_size
        self.rank: ranking.Ranker
        self.terms: Callable
        self.density: density.Density | None = None
        self.started = self.ended = 0.0
        self.figures: dict[str, float] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.rank = ranking.model_ranker(self.model)
        self.terms = batches.traced(replicas.shared_out(self.model.terms))
        self.density = density.density_of(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        with _in_place(self.averages):
            self._evaluate()
        self.figures["seconds"] = self.ended - self.started
        logs[f"val_{MAIN}"] = self.figures[f"val_{MAIN}"]

    def _evaluate(self) -> None:
        figures = ranking.evaluate(self.rank, self.held_out, self.batch_size)
        self.figures = {f"val_{name}": float(np.mean(values)) for name, values in figures.items()}
        users = ranking.users_at_once(self.batch_size, self.held_out.fold_in.shape[1])
        terms = [self.terms(batch) for _, batch in batches.in_order(self.held_out.fold_in, users)]
        self.figures["val_nll"] = -float(np.mean(np.concatenate([t.log_likelihood for t in terms])))
        self.figures["val_kl"] = float(np.mean(np.concatenate([t.kl for t in terms])))
        if self.density:
            elbo = self.density(self.held_out.fold_in, self.batch_size, 1)[density.NAME]
            self.figures[f"val_{density.NAME}"] = float(np.mean(elbo))


class CheckpointAndEarlyStop(keras.callbacks.Callback):
    """Saves the best epoch's weights and a checkpoint to resume from, writes history.csv, and stops training early.

    Stopping follows Kim & Suh's code: after more than `patience` epochs without a better validation figure. Epochs of
    β's warm-up do not count.

    Args:
      workdir: where to write.
      validate: has the epoch's figures; comes before this callback.
      patience: see above.
      warmup_epochs: length of β's warm-up.
      seconds: least time between two checkpoints; within an epoch it is `WITHIN_EPOCH_SECONDS`, if that is more.
      averages: whose averages are the best epoch's weights, if it keeps any; a checkpoint holds both.
      best_by: the figure of the validation users that decides: NDCG@100, or their ELBO.
    """

    def __init__(
        self,
        workdir: Workdir,
        validate: Validate,
        patience: int,
        warmup_epochs: float,
        seconds: float,
        averages: AverageWeights | None = None,
        best_by: str = MAIN,
    ):
        super().__init__()
        self.averages, self.best_by = averages, best_by
        self.workdir, self.validate = workdir, validate
        self.patience, self.warmup_epochs, self.seconds = patience, warmup_epochs, seconds
        self.rows: list[dict[str, Any]] = []
        self.best, self.best_epoch, self.waited, self.stopped = -math.inf, 0, 0, False
        self.peak_rss_mb = 0.0  # of all processes that trained
        self.partial: dict[str, Any] | None = None  # within an epoch: steps, seconds, and what the model tracks
        self.steps = 0  # done in this epoch
        self.written = time.monotonic()
        self.place = ""

    def restore(self, model: Autoencoder, epochs: int, say: Callable[[str], None]) -> None:
        """Loads the workdir's checkpoint, if there is one, to train up to `epochs` epochs in all.

        The best epoch may be later than the checkpoint, if the process was killed after it wrote the first of the two
        files. Training then repeats the best epoch.

        Raises:
          UserError: the checkpoint is damaged, or the best epoch is beyond `epochs`.
        """
        checkpoint, best = self.workdir.checkpoint, self.workdir.best
        if best.exists() and (epoch := checkpoints.read_meta(best)["epoch"]) > epochs:
            raise UserError(
                f"The best epoch of the run in {self.workdir.path} is {epoch}, and --epochs={epochs} would train it "
                f"again from the start. Give --epochs={epoch} or more, or another --workdir."
            )
        if not checkpoint.exists():
            if best.exists():
                say(f"{checkpoint} is missing: training starts from the first epoch.")
            return
        if not best.exists() and checkpoints.read_meta(checkpoint)["best_epoch"]:
            say(f"{best} is missing: training starts from the first epoch.")
            return
        self.state = checkpoints.load(checkpoint, everything(model, self.averages))
        self.place = checkpoints.place(self.state)
        if self.rows:
            self._write_history()

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the variables."""
        return {name: getattr(self, name) for name in (*_STATE, "partial")}

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        for name in _STATE:
            setattr(self, name, values[name])
        self.partial = values.get("partial")

    @property
    def epochs_done(self) -> int:
        return len(self.rows)

    def where_it_resumes(self) -> str:
        """What to tell a person who interrupts the training."""
        if self.place:
            return f"The same command goes on {self.place}."
        return "No checkpoint was written yet: the same command starts from the first epoch."

    @property
    def has_begun(self) -> bool:
        """Whether any step was done before the present process."""
        return bool(self.rows or self.partial)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps = 0
        if self.partial:
            self.steps = self.partial["steps"]
            self.validate.started -= self.partial["seconds"]
            for name, values in self.partial["tracked"].items():
                for variable, value in zip(self.model.trackers[name].variables, values, strict=True):
                    variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += 1
        is_last = batch + 1 == self.params["steps"]
        if not is_last and time.monotonic() - self.written >= max(self.seconds, WITHIN_EPOCH_SECONDS):
            trackers = self.model.trackers.items()
            self.partial = {
                "steps": self.steps,
                "seconds": self.validate.ended - self.validate.started,
                "tracked": {name: [_total(v) for v in tracker.variables] for name, tracker in trackers},
            }
            self._write()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.partial = None
        train = {name: float(logs[name]) for name in ("beta", "loss", "nll", "kl")}
        self.rows.append({"epoch": epoch + 1} | train | self.validate.figures)
        self.peak_rss_mb = max(self.peak_rss_mb, machine.peak_rss())
        value = self.validate.figures[f"val_{self.best_by}"]
        if value > self.best:
            self.best, self.best_epoch, self.waited = value, epoch + 1, 0
            self._write_best()
        elif epoch + 1 >= self.warmup_epochs:
            self.waited += 1
        else:
            self.waited = 0
        self.stopped = self.waited > self.patience
        self.model.stop_training = self.stopped
        self._write_history()
        if self.stopped or time.monotonic() - self.written >= self.seconds:
            self._write()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._write()

    def _write_best(self) -> None:
        with _in_place(self.averages):
            checkpoints.save(self.workdir.best, tree.variables(self.model), {"epoch": self.best_epoch})

    def _write_history(self) -> None:
        self.workdir.write_history(self.rows)

    def _write(self) -> None:
        checkpoints.save(self.workdir.checkpoint, everything(self.model, self.averages), self.state)
        self.written, self.place = time.monotonic(), checkpoints.place(self.state)


_STATE = ("rows", "best", "best_epoch", "waited", "stopped", "peak_rss_mb")
"""The names of `CheckpointAndEarlyStop.state`."""


WITHIN_EPOCH_SECONDS = 600.0
"""Least time from one checkpoint to another within an epoch. A checkpoint of a large model takes seconds."""


class EarlyStop(CheckpointAndEarlyStop):
    """Stops training with the chief, in a worker that writes nothing. Arguments as `CheckpointAndEarlyStop`."""

    def __init__(
        self,
        validate: Validate,
        patience: int,
        warmup_epochs: float,
        averages: AverageWeights | None = None,
        best_by: str = MAIN,
    ):
        super().__init__(Workdir("/nowhere"), validate, patience, warmup_epochs, math.inf, averages, best_by)

    def _write_best(self) -> None:
        pass

    def _write_history(self) -> None:
        pass

    def _write(self) -> None:
        pass


def everything(model: Autoencoder, averages: AverageWeights | None) -> tree.Variables:
    """All variables that a run needs to go on."""
    of_averages = averages.variables if averages else {}
    return tree.variables(model) | checkpoints.optimizer_variables(model.optimizer) | of_averages


def _total(variable: keras.Variable) -> float:
    """The value of a metric's variable. With several replicas, each holds an equal part. The parts of this process are
    read and scaled up: reading the variable itself needs all workers, and only the chief writes checkpoints."""
    strategy = tf.distribute.get_strategy()
    parts = strategy.experimental_local_results(variable.value)
    return sum(float(part.numpy()) for part in parts) * strategy.num_replicas_in_sync / len(parts)


def _in_place(averages: AverageWeights | None) -> contextlib.AbstractContextManager[None]:
    return averages.in_place() if averages else contextlib.nullcontext()
