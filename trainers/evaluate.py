"""Judging: what is chosen on validation users, and the figures of the model and of the baselines."""

import contextlib
import dataclasses
import datetime
import json
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import vae_cf_tf
from trainers.train import TrainingLog
from vae_cf_tf import checkpoints, evaluation, metrics, trained
from vae_cf_tf.baselines import Baseline
from vae_cf_tf.config import Config
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.item_path import DISCOUNTS, ItemPath, choose
from vae_cf_tf.models import Autoencoder
from vae_cf_tf.say import Say
from vae_cf_tf.workdir import PARTS, Workdir, write_json


class Judged(NamedTuple):
    """The figures of a run."""

    values: dict[str, Any]  # what metrics.json holds
    per_user: dict[str, dict[str, np.ndarray]]  # by part and metric: float64 [users with targets]
    rank: evaluation.Ranker


def evaluate(
    model: Autoencoder,
    config: Config,
    workdir: Workdir,
    split: Split,
    log: TrainingLog,
    compared: list[dict[str, Any]],
    say: Say,
) -> Judged:
    """Makes or reads the item path, where the configuration has one, judges the model, and writes metrics.json.

    Args:
      model: with the weights of the best epoch; receives the item path.
      config: settings.
      workdir: of the run.
      split: its held-out users are judged.
      log: of the training.
      compared: of `baselines`.
      say: receives the lines that a person reads.
    """
    chosen = _item_path(model, split, config, workdir, say) if config.item_path != "none" else {}
    rank = evaluation.model_ranker(model)
    per_user = {part: evaluation.evaluate(rank, getattr(split, part), config.eval_batch_size) for part in PARTS}
    seconds = float(np.median([row["seconds"] for row in log.rows]))
    values = {part: metrics.summary(per_user[part]) for part in PARTS} | {
        "chosen_on_validation": ["best_epoch", *chosen],
        "note": "What was chosen on the validation users makes their figures a little too good; judge by test.",
        "best_epoch": log.best_epoch,
        **chosen,
        "epochs": len(log.rows),
        "finished": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {"vae_cf_tf": vae_cf_tf.__version__, "tensorflow": tf.__version__},
        "seconds_per_epoch": seconds,
        "users_per_second": split.train.shape[0] * config.passes / seconds,
        "peak_rss_mb": log.peak_rss_mb,
        "baselines": compared,
        "data_fingerprint": split.fingerprint(),
        "model_id": trained.model_id(workdir, config),
        "config": dataclasses.asdict(config),
    }
    workdir.write_metrics(values)
    return Judged(values, per_user, rank)


def baselines(config: Config, workdir: Workdir, split: Split, say: Say) -> list[dict[str, Any]]:
    """Metrics of popularity and EASE on the same users, computed once for a workdir and its settings of EASE.

    Each has name, settings, label and the metrics of both parts. Of several λ of EASE, the best on validation is kept.
    """
    wanted = {"ease_l2": config.ease_l2_values, "ease_max_items": config.ease_max_items}
    wanted = json.loads(json.dumps(wanted))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a damaged file: they are computed again
        stored = json.loads(workdir.baselines.read_text(encoding="utf-8"))
        if stored["settings"] == wanted:
            _ = [(b["name"], b["settings"], b["label"], *(b[part]["ndcg@100"]["mean"] for part in PARTS))
                 for b in stored["baselines"]]  # fmt: skip
            return stored["baselines"]
    say("Baselines: popularity …")
    found = [_judged(Baseline("popularity"), config, split)]
    if len(split.item_ids) > config.ease_max_items:
        say(f"No EASE: the catalogue is larger than --ease_max_items={config.ease_max_items:,}.")
    else:
        tried = []
        for l2 in config.ease_l2_values:
            baseline = Baseline("ease", {"l2": l2})
            say(f"Baselines: {baseline.label} …")
            try:
                tried.append(_judged(baseline, config, split))
            except UserError as error:  # a λ too small for the data costs a line of the report, not the run
                say(f"Left out: {error}")
        found += sorted(tried, key=lambda b: -b["validation"]["ndcg@100"]["mean"])[:1]
    write_json(workdir.baselines, {"settings": wanted, "baselines": found})
    return found


def _judged(baseline: Baseline, config: Config, split: Split) -> dict[str, Any]:
    rank = evaluation.score_ranker(baseline.fit(split.train))  # its matrix goes when this function ends
    figures = {
        part: metrics.summary(evaluation.evaluate(rank, getattr(split, part), config.eval_batch_size)) for part in PARTS
    }
    return {"name": baseline.name, "settings": baseline.settings, "label": baseline.label, **figures}


def _item_path(model: Autoencoder, split: Split, config: Config, workdir: Workdir, say: Say) -> dict[str, float]:
    """Gives the model the workdir's item path, or a new one where that was made for other weights or settings.

    Returns what was chosen on validation users, by the names in metrics.json.
    """
    with contextlib.suppress(UserError):  # missing or damaged: it is made again
        if trained.path_belongs(checkpoints.read_meta(workdir.item_path), workdir, config):
            trained.attach_path(model, workdir)
            return _chosen(model.item_path)
    say("Item path …")
    path = ItemPath(len(split.item_ids), config.item_path_mb, name="item_path")
    path.fit(split.train, config.item_path_l2, config.item_path_max_items)

    def parts(histories: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return model.deep_log_probs(histories), path.sums(histories), path.shared(histories)

    discounts = DISCOUNTS if config.item_path_discount == "validation" else ()
    best, tried, at_edge = choose(parts, split.validation, config.eval_batch_size, discounts)
    path.weight.assign(best.weight)
    path.discount.assign(best.discount)
    say(
        f"Item path: weight {best.weight:.3g}, popularity discount {best.discount:g}; validation NDCG@100 "
        f"{tried[0].ndcg:.4f} without it, {best.ndcg:.4f} with it."
    )
    for name in at_edge:
        say(f"The best {name} is the largest that was tried: validation users may want a larger one.")
    meta = trained.path_meta(workdir, config) | {"tried": tried}
    checkpoints.save(workdir.item_path, checkpoints.model_variables(path), meta)
    model.item_path = path
    return _chosen(path)


def _chosen(path: ItemPath) -> dict[str, float]:
    return {"item_path_weight": float(path.weight.numpy()), "item_path_discount": float(path.discount.numpy())}
