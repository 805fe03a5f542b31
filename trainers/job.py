"""The main job: baselines → training → evaluation → SavedModel, in one workdir."""

from pathlib import Path
from typing import Any

from export import card, versions
from export.savedmodel import TOP_K, WEIGHTS, export_model, facts_of_run
from trainers import summary
from trainers.evaluate import Evaluation, evaluate, evaluate_baselines
from trainers.train import train
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings
from vae_cf_tf.training import strategies


def run(settings: Settings, workdir: Workdir, split: Split, say: Say) -> dict[str, Any]:
    """Does the main job, or what is left of it, and returns what metrics.json holds.

    Args:
      settings: of the run.
      workdir: claimed for them and locked by this process.
      split: its data.
      say: receives the lines that a person reads.

    Raises:
      UserError: a damaged checkpoint, a loss that is NaN, a place from which no SavedModel can be read.
      KeyboardInterrupt: Ctrl-C.
    """
    export_dir = Path(settings.run.export_dir or workdir.path / "export")
    versions.check_place(export_dir)
    evaluation = trained(settings, workdir, split, say)
    values = evaluation.values
    facts = facts_of_run(settings, split, values["model_id"], values["best_epoch"], values)
    # A finished run is exported once.
    version = card.version_of(export_dir, values["model_id"], WEIGHTS, min(TOP_K, len(split.item_ids)))
    if version is None:
        version = export_model(evaluation.model, split.item_ids, split.titles, facts, export_dir)
    else:
        versions.remove_left(export_dir)
    say(summary.table(values))
    say(summary.examples(split, evaluation.rank))
    say(f"Checkpoint: {workdir.best}\nSavedModel: {version}")
    return values


def trained(settings: Settings, workdir: Workdir, split: Split, say: Say, verbose: int = 1) -> Evaluation:
    """Does the main job but for the export: baselines, training, evaluation. Arguments and errors as `run`.

    Args:
      verbose: of `trainers.train.train`.
    """
    if not strategies.group(settings.run).is_chief:
        raise UserError("--distribute=multi_worker is for trainers.main. Train one run in one process here.")
    agree(settings, split)
    # Baselines come first, while no model shares the memory.
    baselines = evaluate_baselines(settings.evaluation, workdir, split, say)
    network, log = train(settings, workdir, split, say, verbose)
    return evaluate(network, settings, workdir, split, log, baselines, say)


def agree(settings: Settings, split: Split) -> None:
    """Raises UserError unless all workers have the same settings and data."""
    workers = strategies.group(settings.run)
    with workers.losing_workers():
        about = {f"--{name}": value for name, value in settings.figures_depend_on().items() if name not in _MAY_DIFFER}
        about["--eval_batch_size"] = settings.evaluation.eval_batch_size
        strategies.agree(workers, about | {"the data's fingerprint": split.fingerprint()})


_MAY_DIFFER = ("data", "item_titles", "warm_start")
"""Paths, which may be others on other machines; the data are compared by content."""
BESIDE = ("split", "test", "validation", "best_epoch", "epochs", "baselines", "data_fingerprint")
"""What metrics.json has of the run split by time."""


def add_time_split(
    settings: Settings, workdir: Workdir, values: dict[str, Any], split: Split, say: Say
) -> dict[str, Any]:
    """Makes the run of --also_time_split, or what is left of it, and adds its figures to metrics.json as `time_split`.

    Args:
      settings: of the run that it stands beside.
      workdir: of that run.
      values: what its metrics.json holds.
      split: from `claim.prepared_time_split`.
      say: receives the lines that a person reads.

    Raises:
      UserError: as `run`.
      KeyboardInterrupt: Ctrl-C.
    """
    inner = settings.of_time_split()
    beside = Workdir(inner.run.workdir)
    with beside.locked():
        say("The same settings, split by time:")
        theirs = trained(inner, beside, split, say).values
        say(summary.table(theirs))
    values = values | {"time_split": {name: theirs[name] for name in BESIDE}}
    workdir.write_metrics(values)
    return values
