"""The main job: data → split → training → evaluation → checkpoint → SavedModel, in one workdir."""

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from export.card import newest_version
from export.savedmodel import export_run
from trainers import summary
from trainers.callbacks import Keep, StopOnInterrupt, StopOnNaN, Validate
from vae_cf_tf import baselines, batches, checkpoints, evaluation, machine, metrics
from vae_cf_tf.config import Config
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.item_path import DISCOUNTS, ItemPath, choose
from vae_cf_tf.models import Autoencoder, build
from vae_cf_tf.workdir import Workdir

Say = Callable[[str], None]


def train_and_evaluate(config: Config, say: Say = print) -> dict[str, Any]:
    """Runs the main job in `config.workdir`, or what is left of it, and returns what metrics.json holds.

    Args:
      config: settings.
      say: receives the lines that a person reads.

    Raises:
      UserError: bad data, a workdir of another configuration, a damaged checkpoint, a loss that is NaN.
    """
    workdir = Workdir(config.workdir)
    workdir.check(config)
    split = _prepare(config, workdir, say)
    workdir.claim(config, split)
    compared = _baselines(config, workdir, split, say)  # while there is no model to share the memory with
    model = build(config, len(split.item_ids), split.train)
    keep = _fit(model, split, config, workdir, say)
    checkpoints.load(workdir.best, checkpoints.model_variables(model))
    made = config.item_path != "none" and _item_path(model, split, config, workdir, say)
    rank = evaluation.model_ranker(model)
    per_user = {part: evaluation.evaluate(rank, getattr(split, part), config.eval_batch_size) for part in PARTS}
    seconds = float(np.median([row["seconds"] for row in keep.rows]))
    values = {part: metrics.summary(per_user[part]) for part in PARTS} | {
        "best_epoch": keep.best_epoch,
        "epochs": keep.epochs_done,
        "seconds_per_epoch": seconds,
        "users_per_second": split.train.shape[0] * config.passes / seconds,
        "peak_rss_mb": machine.peak_rss(),
        "baselines": compared,
        "data_fingerprint": split.fingerprint(),
        "config": dataclasses.asdict(config),
    }
    workdir.write_metrics(values)
    export_dir = Path(config.export_dir or workdir.path / "export")
    exported = None if keep.trained or made else newest_version(export_dir)  # a finished run is exported once
    exported = exported or export_run(workdir, export_dir)
    say(summary.table(values))
    say(summary.examples(split, rank))
    say(f"Checkpoint: {workdir.best}\nSavedModel: {exported}")
    return values


PARTS = ("test", "validation")


def _prepare(config: Config, workdir: Workdir, say: Say) -> Split:
    """The workdir's split; at the first start, that of the data."""
    if workdir.has_split():
        split = workdir.split()
    else:
        split = load_split(config, say)
        metrics.check_catalogue(len(split.item_ids))
    say(
        f"{split.train.shape[0]:,} training users, {len(split.item_ids):,} items, {split.train.nnz:,} interactions; "
        f"{split.validation.fold_in.shape[0]:,} + {split.test.fold_in.shape[0]:,} users held out."
    )
    return split


def _baselines(config: Config, workdir: Workdir, split: Split, say: Say) -> dict[str, Any]:
    """Metrics of popularity and EASE on the same users, computed once a workdir."""
    with contextlib.suppress(FileNotFoundError, ValueError):  # of a damaged file: they are computed again
        return json.loads(workdir.baselines.read_text())
    ranked: dict[str, Callable[[sp.csr_matrix], baselines.Scores]] = {"popularity": baselines.popularity}
    if len(split.item_ids) > config.ease_max_items:
        say(f"Baselines: popularity; no EASE above --ease_max_items={config.ease_max_items:,} items …")
    else:
        say("Baselines: popularity, EASE …")
        ranked |= {f"EASE, λ {l2:g}": functools.partial(baselines.ease, l2=l2) for l2 in config.ease_l2_values}
    found: dict[str, Any] = {}
    for name, fitted in ranked.items():
        try:
            rank = evaluation.score_ranker(fitted(split.train))
        except UserError as error:  # a λ too small for the data costs a line of the report, not the run
            say(f"Left out: {error}")
            continue
        found[name] = {
            part: metrics.summary(evaluation.evaluate(rank, getattr(split, part), config.eval_batch_size))
            for part in PARTS
        }
    tried = [name for name in found if name != "popularity"]
    best = max(tried, key=lambda name: found[name]["validation"]["ndcg@100"]["mean"], default=None)
    found = {name: figures for name, figures in found.items() if name in ("popularity", best)}
    workdir.write_baselines(found)
    return found


def _item_path(model: Autoencoder, split: Split, config: Config, workdir: Workdir, say: Say) -> bool:
    """Gives the model of the best epoch the workdir's linear path, or a new one; returns whether it is new."""
    best_epoch = checkpoints.read_meta(workdir.best)["epoch"]
    path = ItemPath(len(split.item_ids), config.item_path_mb, name="item_path")
    variables = checkpoints.model_variables(path)
    with contextlib.suppress(UserError):  # missing or damaged: it is made again
        if checkpoints.load(workdir.item_path, variables)["epoch"] == best_epoch:
            model.item_path = path
            return False
    say("Item path …")
    path.fit(split.train, config.item_path_l2, config.item_path_max_items)

    def parts(histories: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return model.deep_log_probs(histories), path.sums(histories), path.shared(histories)

    discounts = DISCOUNTS if config.item_path_discount == "validation" else ()
    best, tried = choose(parts, split.validation, config.eval_batch_size, discounts)
    path.weight.assign(best.weight)
    path.discount.assign(best.discount)
    say(
        f"Item path: weight {best.weight:.3g}, popularity discount {best.discount:g}; validation NDCG@100 "
        f"{tried[0].ndcg:.4f} without it, {best.ndcg:.4f} with it."
    )
    checkpoints.save(workdir.item_path, variables, {"epoch": best_epoch, "tried": tried})
    model.item_path = path
    return True


def _fit(model: Autoencoder, split: Split, config: Config, workdir: Workdir, say: Say) -> Keep:
    """Trains the model from where the workdir's checkpoint stands."""
    steps_per_pass = batches.steps_per_pass(split.train, config.batch_size)
    model.compile_for(steps_per_pass)
    steps = steps_per_pass * config.passes
    warmup_epochs = config.beta_warmup if config.beta_unit == "epoch" else config.beta_warmup / steps
    validate = Validate(split, config.eval_batch_size)
    keep = Keep(workdir, validate, config.patience, warmup_epochs, config.checkpoint_seconds)
    keep.restore(model, config.epochs)
    if keep.stopped or keep.epochs_done >= config.epochs:
        say(f"Trained already: {keep.epochs_done} epochs.")
        return keep
    if keep.epochs_done:
        say(f"Resuming after epoch {keep.epochs_done}.")
    model.fit(
        batches.shuffled(split.train, config.batch_size, config.seed, keep.epochs_done * config.passes),
        epochs=config.epochs,
        initial_epoch=keep.epochs_done,
        steps_per_epoch=steps,
        verbose=1 if sys.stdout.isatty() else 2,  # a bar that redraws itself, or a line an epoch
        callbacks=[
            StopOnNaN(),
            validate,
            keras.callbacks.TensorBoard(workdir.tensorboard, write_graph=False),
            keep,
            StopOnInterrupt(),
        ],
    )
    return keep
