"""Training: from a split to the weights of the best epoch."""

import gc
import json
import sys
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from vae_cf_tf.data.split import Split
from vae_cf_tf.models import batches, tree
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.build import build, starts_from_users
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings
from vae_cf_tf.training import strategies, transfer, warm_start
from vae_cf_tf.training.averaging import AverageWeights
from vae_cf_tf.training.callbacks import (
    CheckpointAndEarlyStop,
    EarlyStop,
    StopOnNaN,
    Validate,
    everything,
    interruptible,
)
from vae_cf_tf.training.compiling import compile_for
from vae_cf_tf.training.initial_items import start_from_factors, starts_from_factors


class TrainingLog(NamedTuple):
    """How the training went, in this process and those before it."""

    rows: list[dict[str, float]]  # of history.csv
    best_epoch: int
    peak_rss_mb: float


def train(
    settings: Settings,
    workdir: Workdir,
    split: Split,
    say: Say,
    verbose: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> tuple[Autoencoder, TrainingLog]:
    """Trains the network from where the workdir's checkpoint stands; returns it with the weights of the best epoch.

    Args:
      settings: of the model, the training, the evaluation and the run.
      workdir: receives checkpoints and history.csv.
      split: its training users learn, its validation users decide which epoch is best.
      say: receives the lines that a person reads.
      verbose: 0 shows no progress, 1 a bar that redraws itself where the output can, 2 a line an epoch.
      callbacks: further ones, called when the run's own are done with an epoch.

    Raises:
      UserError: a damaged checkpoint, fewer --epochs than were needed for the best one, a loss that is NaN.
      KeyboardInterrupt: Ctrl-C; its text says where the same command resumes.
    """
    log = _learn(settings, workdir, split, say, verbose, callbacks)
    gc.collect()  # the model that learned, its optimizer and its callbacks refer to each other
    network = build(settings.model, len(split.item_ids), split.train, settings.training.seed)
    checkpoints.load(workdir.best, tree.variables(network))
    return network, log


def _learn(
    settings: Settings,
    workdir: Workdir,
    split: Split,
    say: Say,
    verbose: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> TrainingLog:
    """`train` up to the last epoch: writes the workdir's checkpoints, and returns how it went."""
    can_redraw = sys.stdout.isatty() or bool(sys.modules.get("ipykernel"))  # a terminal or a notebook
    group, model_settings, options = strategies.group(settings.run), settings.model, settings.training
    users = split.train.shape[0]
    if starts_from_users(model_settings) and model_settings.pseudo_inputs > users:
        say(
            f"Components of the prior: all {users:,} training users, fewer than "
            f"--pseudo_inputs={model_settings.pseudo_inputs}."
        )
    start = warm_start.recorded(workdir)
    epochs_before = start.epochs if start else 0
    with group.scope(), group.losing_workers():
        _ = group.told(str(epochs_before))
        model = _new_model(settings, split, epochs_before)
        averages = AverageWeights(model, options.average_weights)
        validate = Validate(split.validation, settings.evaluation.eval_batch_size, averages)
        checkpoint = CheckpointAndEarlyStop(
            workdir,
            validate,
            options.patience,
            _warmup_epochs(model),
            settings.run.checkpoint_seconds,
            averages,
            options.best_by,
        )
        checkpoint.restore(model, options.epochs, say)
        if start and not checkpoint.has_begun:
            _start_from(start, model, settings, split, say)
        elif not checkpoint.has_begun and starts_from_factors(options.initial_items, split.train):
            say("Item vectors start from factors of the log …")
            start_from_factors(model, split.train, options.seed)
        if not _goes_on(checkpoint, settings):
            say(f"Trained already: {checkpoint.epochs_done} epochs.")
        elif checkpoint.has_begun:
            say(f"Resuming {checkpoint.place}.")
        tensorboard = keras.callbacks.TensorBoard(workdir.tensorboard, write_graph=False)
        shown = verbose if verbose != 1 or can_redraw else 2
        _train_together(model, settings, split, averages, checkpoint, [tensorboard, checkpoint, *callbacks], shown)
        _release(everything(model, averages))
    return TrainingLog(checkpoint.rows, checkpoint.best_epoch, checkpoint.peak_rss_mb)


def follow(settings: Settings, split: Split) -> None:
    """The part of `train` of a worker that is not the chief: it computes its share of steps and validation, and writes
    nothing.

    Raises:
      UserError: as `train`.
    """
    group, options = strategies.group(settings.run), settings.training
    with group.scope(), group.losing_workers():
        model = _new_model(settings, split, epochs_before=int(group.told("")[0]))
        averages = AverageWeights(model, options.average_weights)
        validate = Validate(split.validation, settings.evaluation.eval_batch_size, averages)
        stop = EarlyStop(validate, options.patience, _warmup_epochs(model), averages, options.best_by)
        _train_together(model, settings, split, averages, stop, [stop], verbose=0)


def _new_model(settings: Settings, split: Split, epochs_before: int) -> Autoencoder:
    """The model with its initial weights, compiled."""
    options, train = settings.training, split.train
    model = build(settings.model, len(split.item_ids), train, options.seed)
    return compile_for(model, options, train, epochs_before)


def _warmup_epochs(model: Autoencoder) -> float:
    return model.step_options.annealing.warmup_epochs if model.settings.has_latent_variable else 0.0


def _goes_on(checkpoint: CheckpointAndEarlyStop, settings: Settings) -> bool:
    return not checkpoint.stopped and checkpoint.epochs_done < settings.training.epochs


def _train_together(
    model: Autoencoder,
    settings: Settings,
    split: Split,
    averages: AverageWeights,
    checkpoint: CheckpointAndEarlyStop,
    callbacks: list[keras.callbacks.Callback],
    verbose: int,
) -> None:
    """Trains from the chief's state to the end, in all processes alike.

    Args:
      model: of the chief, as it is to start; of others, with any weights.
      settings, split: of the run.
      averages: of the model.
      checkpoint: of the chief, restored.
      callbacks: what is called after validation: the checkpoint, and further ones of this process.
      verbose: of `keras.Model.fit`.
    """
    group, options = strategies.group(settings.run), settings.training
    # Where the chief read or computed weights, it sends them: other machines may round otherwise.
    is_given = bool(
        checkpoint.has_begun or options.warm_start or starts_from_factors(options.initial_items, split.train)
    )
    checkpoint.state, is_given = json.loads(group.told(json.dumps([checkpoint.state, is_given]))[0])
    if is_given:  # else the strategy has given all the same initial weights
        group.copy_from_chief(everything(model, averages))
    if not _goes_on(checkpoint, settings):
        return
    steps_per_pass = batches.steps_per_pass(split.train, options.batch_size)
    steps_per_epoch = steps_per_pass * options.passes

    def fit(epochs: int, steps_done: int, interrupt: keras.callbacks.Callback) -> None:
        """Trains from the checkpoint up to epoch `epochs`; `steps_done` steps of its first epoch are done already."""
        first = divmod(checkpoint.epochs_done * steps_per_epoch + steps_done, steps_per_pass)
        group.fit(
            model,
            batches.shuffled(split.weighted_train(), options.batch_size, options.seed, *first, split.has_weights),
            epochs=epochs,
            initial_epoch=checkpoint.epochs_done,
            steps_per_epoch=steps_per_epoch - steps_done,
            verbose=verbose,
            callbacks=[StopOnNaN(), averages, checkpoint.validate, *callbacks, interrupt],
        )

    with interruptible(checkpoint.where_it_resumes) as interrupt:
        if checkpoint.partial:  # the rest of an epoch has a number of steps of its own
            model.is_within_epoch = True
            fit(checkpoint.epochs_done + 1, checkpoint.partial["steps"], interrupt)
        if _goes_on(checkpoint, settings):
            fit(options.epochs, 0, interrupt)


def _release(variables: tree.Variables) -> None:
    """Frees the memory of variables that are no longer read, by assigning empty tensors to them.

    Garbage collection does not free it: TensorFlow keeps every `tf.custom_gradient`, and TFP the inputs of bijectors,
    and these keep the graph of the training step with all its variables. The memory does not return to the system, but
    TensorFlow uses it for the network that is built next.
    """
    for variable in variables.values():
        for part in tf.distribute.get_strategy().experimental_local_results(variable.value):
            tf.raw_ops.AssignVariableOp(resource=part.handle, value=tf.zeros([0], part.dtype))


def _start_from(start: warm_start.Start, model: Autoencoder, settings: Settings, split: Split, say: Say) -> None:
    """Gives the model the weights of --warm_start, and says what came of the catalogue."""
    earlier = Workdir(settings.training.warm_start)
    catalogues = transfer.start_from(model, earlier, start.weights, split.item_ids, split.train)
    stay, gone = len(catalogues.kept), catalogues.sizes[1] - len(catalogues.kept)
    say(f"Warm start from {earlier.path}: {stay:,} items stay, {len(catalogues.new):,} are new, {gone:,} are gone.")
    if not warm_start.same_held_out(settings, earlier.settings()):
        say(
            "That run may have learned from users who are held out here, so that their figures are too good: train "
            "both runs with --user_draws=hashed to avoid it."
        )
