"""What the report knows of a run: its files, its data, its model, and the lists and figures of every held-out user."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from trainers.report import rankings
from trainers.report.finished import Finished
from trainers.report.names import DECIDES, OURS
from vae_cf_tf.data.split import PARTS, HeldOut, Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import ranking
from vae_cf_tf.evaluation.selection import Candidate
from vae_cf_tf.linear.base import Baseline
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.build import model_title
from vae_cf_tf.models.hybrid import HybridModel
from vae_cf_tf.registries import BASELINES
from vae_cf_tf.runs import checkpoints, loading
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import Settings


class Run(NamedTuple):
    """A finished run. A system is the model or one of the baselines; `OURS` comes first."""

    workdir: Workdir
    settings: Settings
    split: Split
    model: Autoencoder | HybridModel  # as it recommends
    network: Autoencoder  # its network, with the weights of the best epoch
    tried: list[Candidate]  # with the item–item model; [] where there is none
    metrics: dict[str, Any]  # metrics.json
    history: dict[str, list[float]]  # history.csv by column
    baselines: dict[str, Baseline]  # by name
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

    @property
    def name(self) -> str:
        """The model as the papers call it."""
        return model_title(self.settings.model)

    def title(self, item: int) -> str:
        return self.split.name_of(item)


def load(workdir: Workdir, finished: Finished, split: Split) -> Run:
    """Reads the model of a finished run and ranks its held-out users, unless their lists are kept from before.

    Args:
      workdir: of the run.
      finished: its figures.
      split: its data.

    Raises:
      UserError: the figures are of other weights, or a file is missing or damaged.
    """
    settings, metrics, history = finished
    model, model_id, _ = loading.load(workdir, split)
    if model_id != metrics["model_id"]:
        raise UserError(
            f"The figures of the run in {workdir.path} are of other weights than those it has now. Start trainers.main "
            "again with the same settings; it judges them."
        )
    if not sp.issparse(split.train):
        raise UserError("The report needs all training users in memory, and this run has --train_from=shards.")
    network, tried = model, []
    if isinstance(model, HybridModel):
        network, tried = model.network, [Candidate(*row) for row in checkpoints.read_meta(workdir.item_item)["tried"]]
    baselines = {b["name"]: BASELINES[b["name"]](**b["settings"]) for b in metrics["baselines"]}
    batch_size = settings.evaluation.eval_batch_size
    ranked = {OURS: rankings.of_model(workdir, model, model_id, split, batch_size)}
    ranked |= rankings.of_baselines(workdir, baselines, split, batch_size)
    users = {part: getattr(split, part).with_targets() for part in PARTS}
    values = {
        name: {part: ranking.per_user(lists[part], users[part]) for part in PARTS} for name, lists in ranked.items()
    }
    return Run(workdir, settings, split, model, network, tried, metrics, history, baselines, users, ranked, values)
