"""Evaluation: what is chosen on validation users, and the figures of the model and of the baselines."""

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from trainers.train import TrainingLog
from vae_cf_tf import machine
from vae_cf_tf.data.split import PARTS, Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import density, latent, metrics, ranking, selection, similar
from vae_cf_tf.linear.base import Baseline, Skipped
from vae_cf_tf.linear.factors import ImplicitFactors
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.hybrid import HybridModel
from vae_cf_tf.registries import BASELINES, ITEM_ITEM
from vae_cf_tf.runs import checkpoints, loading
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import Say
from vae_cf_tf.settings import EvaluationSettings, Settings
from vae_cf_tf.version import VERSION

Figures = dict[str, Any]
"""What a file holds of a model: by part and metric, mean and standard error."""


class Evaluation(NamedTuple):
    """What `evaluate` returns."""

    model: Autoencoder | HybridModel  # as it is judged and exported
    per_user: dict[str, dict[str, np.ndarray]]  # by part and metric: float64 [users with targets]
    values: Figures  # what metrics.json holds
    rank: ranking.Ranker


def evaluate(
    network: Autoencoder,
    settings: Settings,
    workdir: Workdir,
    split: Split,
    log: TrainingLog,
    baselines: list[Figures],
    say: Say,
) -> Evaluation:
    """Puts the item–item model beside the network, where the settings have one, judges both together, and writes
    users.parquet and metrics.json.

    Args:
      network: with the weights of the best epoch.
      settings: of the run.
      workdir: of the run.
      split: its held-out users are judged.
      log: of the training.
      baselines: from `evaluate_baselines`.
      say: receives the lines that a person reads.
    """
    model, chosen, peak_rss_mb = network, {}, log.peak_rss_mb
    if settings.item_item.item_path != "none":
        model, fitting_peak = with_item_item(network, settings, workdir, split, say)
        chosen = {f"item_path_{name}": float(getattr(model, name).numpy()) for name in ("weight", "discount")}
        peak_rss_mb = max(peak_rss_mb, fitting_peak)
    model_id = loading.model_id(workdir, settings)
    before: Figures = {}
    with contextlib.suppress(UserError):
        before = workdir.read_metrics()
    if before.get("model_id") != model_id:
        before = {}
    rank = ranking.model_ranker(model)
    seconds = float(np.median([row["seconds"] for row in log.rows]))
    batch_size = settings.evaluation.eval_batch_size
    per_user = {part: ranking.evaluate(rank, getattr(split, part), batch_size) for part in PARTS}
    similar_items = similar.choose(model, split, settings.training.seed, batch_size)
    say(similar.summary_line(similar_items))
    elbo_of, elbo = density.density_of(network), {}
    if elbo_of:
        elbo = {part: elbo_of(getattr(split, part).with_targets().fold_in, batch_size) for part in PARTS}
    values = {part: metrics.summary(per_user[part]) for part in PARTS} | {
        "chosen_on_validation": ["best_epoch", *chosen],
        "note": "What was chosen on the validation users makes their figures a little too good; judge by test.",
        "best_epoch": log.best_epoch,
        **chosen,
        "epochs": len(log.rows),
        "finished": before.get("finished") or datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": before.get("versions") or {"vae_cf_tf": VERSION, "tensorflow": tf.__version__},
        "seconds_per_epoch": seconds,
        "users_per_second": split.train.shape[0] * settings.training.passes / seconds,
        "peak_rss_mb": peak_rss_mb,
        "baselines": baselines,
        "split": split.about,
        "similar_items": similar_items,
        "elbo": {part: metrics.summary(of_users) for part, of_users in elbo.items()},
        "latent": latent.diagnosis(network, split.train, split.validation.fold_in, batch_size),
        "data_fingerprint": split.fingerprint(),
        "model_id": model_id,
        "config": settings.flat(),
    }
    in_users_file = {part: per_user[part] | elbo.get(part, {}) for part in PARTS}
    workdir.write_users(in_users_file, {part: getattr(split, part).users_with_targets() for part in PARTS})
    workdir.write_metrics(values)
    return Evaluation(model, per_user, values, rank)


def with_item_item(
    network: Autoencoder, settings: Settings, workdir: Workdir, split: Split, say: Say
) -> tuple[HybridModel, float]:
    """Adds the item–item model: the workdir's, if it was made for these weights and settings, else a new one.

    Returns:
      The hybrid model, and the peak memory in MiB of the process that fitted the item–item model.
    """
    model = loading.hybrid(network, settings)
    variables = loading.item_item_variables(model)
    with contextlib.suppress(UserError):  # missing or damaged: it is made again
        if loading.item_item_belongs(checkpoints.read_meta(workdir.item_item), workdir, settings):
            return model, float(checkpoints.load(workdir.item_item, variables)["peak_rss_mb"])

    layer = model.item_item
    if layer.rank:
        say(f"Item–item model: {layer.rank} factors …")
        layer.assign_factors(ImplicitFactors(layer.rank, seed=settings.training.seed).fit(split.train))

    def parts(histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        factors = [layer.by_factors(histories)] if layer.rank else []
        return network(histories), layer.by_rows(histories), layer.popularity(histories), *factors

    discounts = selection.DISCOUNTS if settings.item_item.item_path_discount == "validation" else ()
    names = settings.item_item.candidates
    choices: dict[str, selection.Choice] = {}
    for name in names:
        say(f"Item–item model: {name} …")
        layer.fit(ITEM_ITEM[name].from_settings(settings.item_item), split.train)
        choices[name] = selection.choose(parts, split.validation, settings.evaluation.eval_batch_size, discounts)
        chosen = max(choices, key=lambda tried: choices[tried].best.ndcg)
        if chosen == name != names[-1]:  # another one follows, in its place
            weights = layer.get_weights()
    if chosen != names[-1]:
        layer.set_weights(weights)
    best, tried, at_edge = choices[chosen]
    model.weight.assign(best.weight)
    model.discount.assign(best.discount)
    if layer.rank:
        layer.share.assign(best.share)
    of_factors = f", low-rank part × {best.share:.3g}" if best.share else ""
    say(
        f"Item–item model: {chosen}, weight {best.weight:.3g}{of_factors}, popularity discount {best.discount:g}; "
        f"validation NDCG@100 {tried[0].ndcg:.4f} without it, {best.ndcg:.4f} with it."
    )
    for value in at_edge:
        say(f"The best {value} is the largest that was tried: validation users may want a larger one.")
    peak = machine.peak_rss()
    meta = loading.item_item_meta(workdir, settings) | {"model": chosen, "tried": tried, "peak_rss_mb": peak}
    checkpoints.save(workdir.item_item, variables, meta)
    return model, peak


def evaluate_baselines(settings: EvaluationSettings, workdir: Workdir, split: Split, say: Say) -> list[Figures]:
    """Metrics of the registered baselines on the same users, computed once for a workdir and these settings.

    Each has name, settings, label and the metrics of both parts. Of a baseline with several candidates, such as EASE
    with several λ, the best on validation users is kept.
    """
    if (stored := workdir.read_baselines(settings)) is not None:
        return stored
    best = [_best_candidate(name, settings, split, say) for name in BASELINES.names()]
    baselines = [figures for figures in best if figures]
    workdir.write_baselines(settings, baselines)
    return baselines


def fitted_candidates(
    name: str, settings: EvaluationSettings, split: Split, say: Say
) -> Iterator[tuple[Baseline, ranking.Ranker]]:
    """Fits a baseline with each of its candidate settings, one after the other; `say` is told what is left out.

    A ranker holds the baseline's matrix: whoever is done with it deletes it before asking for the next.
    """
    if not BASELINES[name].out_of_core and not sp.issparse(split.train):
        say(f"Baselines: {name} is left out: it needs all training users in memory (--train_from=memory).")
        return
    try:
        candidates: list[Baseline] = BASELINES[name].candidates(settings, len(split.item_ids))
    except Skipped as reason:
        say(str(reason))
        return
    for baseline in candidates:
        say(f"Baselines: {baseline.label} …")
        try:
            rank = ranking.score_ranker(baseline.fit(split.train))
        except UserError as error:  # such as a λ too small for the data: the other candidates are still judged
            say(f"Left out: {error}")
            continue
        yield baseline, rank
        del rank


def _best_candidate(name: str, settings: EvaluationSettings, split: Split, say: Say) -> Figures | None:
    best: Figures | None = None
    for baseline, rank in fitted_candidates(name, settings, split, say):
        figures = _judged(rank, split, "validation", settings)
        if best is None or figures[metrics.MAIN]["mean"] > best["validation"][metrics.MAIN]["mean"]:
            about = {"name": name, "settings": baseline.settings, "label": baseline.label}
            best = about | {"test": _judged(rank, split, "test", settings), "validation": figures}
        del rank  # and with it the baseline's matrix
    return best


def _judged(rank: ranking.Ranker, split: Split, part: str, settings: EvaluationSettings) -> Figures:
    return metrics.summary(ranking.evaluate(rank, getattr(split, part), settings.eval_batch_size))
