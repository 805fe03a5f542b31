"""What the report knows of a run: its files, its data, its model, and the lists and figures of every held-out user."""

import csv
import json
from typing import Any, NamedTuple

import numpy as np

from trainers.report import rankings
from trainers.report.names import DECIDES, OURS, PARTS
from vae_cf_tf import checkpoints, evaluation, trained
from vae_cf_tf.config import Config
from vae_cf_tf.data.split import HeldOut, Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.models import Autoencoder
from vae_cf_tf.workdir import Workdir


class Run(NamedTuple):
    """A finished run. A system is the model or one of the baselines; `OURS` comes first."""

    workdir: Workdir
    config: Config
    split: Split
    model: Autoencoder  # with the weights of the best epoch
    metrics: dict[str, Any]  # metrics.json
    history: dict[str, list[float]]  # history.csv by column
    users: dict[str, HeldOut]  # by part: the users with targets
    ranked: dict[str, rankings.Rankings]  # by system
    values: dict[str, dict[str, dict[str, np.ndarray]]]  # by system, part, metric: float [users]

    @property
    def systems(self) -> list[str]:
        return list(self.ranked)

    @property
    def rivals(self) -> list[str]:
        """The baseline that is best on validation, alone in a list; an empty list where there is no baseline."""
        baselines = self.systems[1:]
        return sorted(baselines, key=lambda name: self.values[name]["validation"][DECIDES].mean())[-1:]

    def title(self, item: int) -> str:
        return self.split.name_of(item)


def load(workdir: Workdir, split: Split) -> Run:
    """Reads a finished run and ranks its held-out users, unless their lists are kept from before.

    Raises:
      UserError: the folder is no run's, the run is not finished or is being continued, or a file is damaged.
    """
    config = workdir.config()
    if not workdir.metrics.exists():
        raise UserError(
            f"The run in {workdir.path} is not finished: it has no {workdir.metrics.name}. Resume it first."
        )
    model = trained.load(workdir, split)
    try:
        metrics = json.loads(workdir.metrics.read_text())
        with open(workdir.history, newline="") as f:
            rows = list(csv.DictReader(f))
        history = {name: [float(row[name]) for row in rows] for name in rows[0]}
        names = [name for name in metrics["baselines"] if rankings.baseline(name)]
        judged = (metrics["epochs"], metrics["best_epoch"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"A file of the run in {workdir.path} cannot be read ({error!r}). Restore a copy.") from error
    present = (len(rows), checkpoints.read_meta(workdir.best)["epoch"])
    if present != judged:
        raise UserError(
            f"The run in {workdir.path} is being continued: its figures are of {judged[0]} epochs (best: {judged[1]}), "
            f"its weights of {present[0]} (best: {present[1]}). Let its training finish first."
        )
    ranked = {OURS: rankings.of_model(workdir, model, split, config.eval_batch_size)}
    ranked |= rankings.of_baselines(workdir, names, split, config.eval_batch_size)
    users = {part: getattr(split, part).with_targets() for part in PARTS}
    values = {
        name: {part: evaluation.per_user(lists[part], users[part]) for part in PARTS} for name, lists in ranked.items()
    }
    return Run(workdir, config, split, model, metrics, history, users, ranked, values)
