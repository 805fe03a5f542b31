"""Seconds until a model has a given quality: `python -m trainers.benchmark --time_to=.42,.43,.44`."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from trainers import evaluate, train
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import ranking
from vae_cf_tf.evaluation.metrics import MAIN
from vae_cf_tf.models import tree
from vae_cf_tf.models.build import build, model_title
from vae_cf_tf.registries import BASELINES
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import Say, silent
from vae_cf_tf.settings import Settings


class Point(NamedTuple):
    """What a model has after so many seconds."""

    seconds: float
    ndcg: float  # mean NDCG@100 of the test users


class Course(NamedTuple):
    """A model and what it has by and by."""

    name: str
    points: list[Point]

    def seconds_to(self, ndcg: float) -> float | None:
        """Fewest seconds of a point of at least this NDCG@100; None where there is none."""
        return min((point.seconds for point in self.points if point.ndcg >= ndcg), default=None)


def targets_in(text: str) -> list[float]:
    """The numbers of --time_to. Raises UserError for anything else."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < 1 for value in values):
        raise UserError(f"--time_to takes values of NDCG@100 between 0 and 1, such as .42,.43. Received: {text!r}.")
    return sorted(values)


def courses(variants: Sequence[tuple[str, Settings]], split: Split, targets: Sequence[float], say: Say) -> list[Course]:
    """Fits the registered baselines and trains the models one after the other, on the same data and machine.

    The seconds of a point are those of building, tracing, training and validation up to its epoch, and those of fitting
    the item–item model and choosing its weight after that epoch. They leave out the item–item models of earlier epochs,
    the ranking of test users, the start of the process, reading and export.

    Args:
      variants: names and settings. The training of each ends when the largest target is met, or as its settings say.
      split: the data.
      targets: values of NDCG@100.
      say: receives a line for each model and epoch.
    """
    settings = variants[0][1]
    found = [_of_baseline(name, settings, split, say) for name in BASELINES.names()]
    return [c for c in found if c] + [_of_model(name, s, split, max(targets), say) for name, s in variants]


def table(found: Sequence[Course], targets: Sequence[float]) -> str:
    """A Markdown table: a row a model, seconds to each target, and the best figure with its time."""
    head = ["model", *(f"s to {target:g}" for target in targets), "best", "after s"]
    rows = [head, ["---"] * len(head)]
    for course in found:
        reached = [course.seconds_to(target) for target in targets]
        best = max(course.points, key=lambda point: point.ndcg)
        seconds = ["–" if value is None else f"{value:.1f}" for value in reached]
        name = course.name.replace("|", r"\|")  # a cell ends there
        rows.append([name, *seconds, f"{best.ndcg:.4f}", f"{best.seconds:.1f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _of_baseline(name: str, settings: Settings, split: Split, say: Say) -> Course | None:
    """A baseline's one point: when the best of its candidates is known."""
    started, best = time.perf_counter(), None
    for baseline, rank in evaluate.fitted_candidates(name, settings.evaluation, split, say):
        value = _ndcg(rank, split, "validation", settings)
        if best is None or value > best[0]:
            best = value, baseline.label, rank
        del rank
    if best is None:
        return None
    seconds, (_, label, rank) = time.perf_counter() - started, best
    point = Point(seconds, _ndcg(rank, split, "test", settings))
    say(f"{label}: {point.seconds:.1f} s, {MAIN} {point.ndcg:.4f}")
    return Course(label, [point])


def _of_model(name: str, settings: Settings, split: Split, target: float, say: Say) -> Course:
    with tempfile.TemporaryDirectory(prefix="time_to_") as folder:
        keras.utils.clear_session()  # what a model before this one held
        workdir = Workdir(Path(folder))
        settings = settings.replaced(workdir=folder, checkpoint_seconds=1e9)
        judge = _Judge(settings, workdir, split, target, lambda line: say(f"{name}: {line}"))
        train.train(settings, workdir, split, silent, verbose=0, callbacks=[judge])
    return Course(f"{name}: {model_title(settings.model)}", judge.points)


class _Judge(keras.callbacks.Callback):
    """After each epoch that is the best so far on validation, judges the model that the run would export if it ended
    here."""

    def __init__(self, settings: Settings, workdir: Workdir, split: Split, target: float, say: Say):
        super().__init__()
        self.settings, self.workdir, self.split, self.target, self.say = settings, workdir, split, target, say
        self.network = build(settings.model, len(split.item_ids), split.train, settings.training.seed)
        self.points: list[Point] = []
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        stopped = time.perf_counter()
        if checkpoints.read_meta(self.workdir.best)["epoch"] == epoch + 1:
            checkpoints.load(self.workdir.best, tree.variables(self.network))
            begun, model = time.perf_counter(), self.network
            if self.settings.item_item.item_path != "none":
                model, _ = evaluate.with_item_item(self.network, self.settings, self.workdir, self.split, silent)
            seconds = stopped - self.started + time.perf_counter() - begun
            rank = ranking.model_ranker(model)
            self.points.append(Point(seconds, _ndcg(rank, self.split, "test", self.settings)))
            self.say(f"epoch {epoch + 1}, {seconds:.1f} s, {MAIN} {self.points[-1].ndcg:.4f}")
            self.model.stop_training |= self.points[-1].ndcg >= self.target
        self.started += time.perf_counter() - stopped


def _ndcg(rank: ranking.Ranker, split: Split, part: str, settings: Settings) -> float:
    figures = ranking.evaluate(rank, getattr(split, part), settings.evaluation.eval_batch_size)
    return float(np.mean(figures[MAIN]))
