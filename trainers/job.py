"""The main job: baselines → training → evaluation → SavedModel, in one workdir."""

from pathlib import Path
from typing import Any

from export import card
from export.savedmodel import check_place, export_model, facts_of_run
from trainers import evaluate, summary
from trainers.train import train
from vae_cf_tf.config import Config
from vae_cf_tf.data.split import Split
from vae_cf_tf.say import Say
from vae_cf_tf.workdir import Workdir


def run(config: Config, workdir: Workdir, split: Split, say: Say) -> dict[str, Any]:
    """Does the main job, or what is left of it, and returns what metrics.json holds.

    Args:
      config: settings.
      workdir: claimed for them and locked by this process.
      split: its data.
      say: receives the lines that a person reads.

    Raises:
      UserError: a damaged checkpoint, a loss that is NaN, a place from which no SavedModel can be read.
      KeyboardInterrupt: Ctrl-C.
    """
    export_dir = Path(config.export_dir or workdir.path / "export")
    check_place(export_dir)
    compared = evaluate.baselines(config, workdir, split, say)  # while there is no model to share the memory with
    model, log = train(config, workdir, split, say)
    judged = evaluate.evaluate(model, config, workdir, split, log, compared, say)
    version = card.version_of(export_dir, judged.values["model_id"])  # a finished run is exported once
    if version is None:
        facts = facts_of_run(workdir, config, split.fingerprint())
        version = export_model(model, split.item_ids, split.titles, facts, export_dir)
    say(summary.table(judged.values))
    say(summary.examples(split, judged.rank))
    say(f"Checkpoint: {workdir.best}\nSavedModel: {version}")
    return judged.values
