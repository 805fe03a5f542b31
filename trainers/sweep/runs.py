"""The runs of a sweep: their folders, whether they are finished, and the data that they share."""

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from trainers.sweep.plans import OF_THE_DATA, Configuration, described
from vae_cf_tf.data import source
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.split import SPLIT_FILE
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import metrics
from vae_cf_tf.files import locked, read_json, written_aside
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings

FINISHED = "finished.json"  # written last: the settings, and what the run took
SHARED = (SPLIT_FILE, "source.json", "baselines.json")
"""Files that are the same in all runs of a sweep. Each run has a hard link to the sweep's own."""


@dataclasses.dataclass(frozen=True, eq=False)
class SweepRun:
    """A run to be made: a configuration with a seed."""

    point: Configuration
    settings: Settings

    @property
    def folder(self) -> Path:
        return Path(self.settings.run.workdir)

    @property
    def name(self) -> str:
        return f"{described(self.point.varied)}, seed={self.settings.training.seed}"

    def seconds(self) -> float | None:
        """How long the finished run took; None for one that is not finished."""
        try:
            done = read_json(self.folder / FINISHED)
            same = done["settings"] == of_results(self.settings) and Workdir(self.folder).users.exists()
            return float(done["seconds"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def progress(self) -> str:
        """How far it is, for people."""
        try:
            epochs = (self.folder / "history.csv").read_text().count("\n") - 1
        except OSError:
            return self.name
        return f"{self.name}: epoch {epochs} of at most {self.settings.training.epochs}"


def of_results(settings: Settings) -> dict[str, Any]:
    """The settings that a finished run is known by. Those of the data are compared once, for the whole sweep."""
    return {name: value for name, value in settings.figures_depend_on().items() if name not in OF_THE_DATA}


def all_runs(points: Sequence[Configuration], seeds: Sequence[int], sweep_dir: Path) -> list[SweepRun]:
    """Every configuration with the first seed, then with the next, so that early results cover the plan."""
    return [SweepRun(point, point.with_seed(sweep_dir, seed)) for seed in seeds for point in points]


def exclusive(sweep_dir: Path) -> AbstractContextManager[int]:
    """Holds the sweep's lock, which the processes of its runs inherit, so that no two write into one workdir."""
    busy = f"Another sweep is at work in {sweep_dir}. Wait for it, or give another --sweep_dir."
    return locked(sweep_dir, busy, waits=(1, 2, 4))  # a process whose sweep was killed needs a moment to notice


def prepare(base: Settings, given: frozenset[str], sweep_dir: Path, runs: Sequence[SweepRun], say: Say) -> None:
    """Reads and splits the data once for all runs, and checks that the folders are this sweep's.

    Raises:
      UserError: bad data, or folders of another sweep.
    """
    for run in runs:
        Workdir(run.folder).check_settings(run.settings)
    data = json.dumps({name: base[name] for name in OF_THE_DATA if name not in ("data", "dataset")}, indent=1) + "\n"
    of_data = sweep_dir / "data.json"
    files = Workdir(sweep_dir)  # which holds the data of all runs
    if files.source.exists() and (changed := source.difference(files.read_source(), base.data)):
        raise UserError(f"{sweep_dir} has a sweep on other data: {changed}. Give another --sweep_dir.")
    if of_data.exists() and of_data.read_text() != data:
        raise UserError(
            f"{sweep_dir} has a sweep on other data or another split ({of_data}). Give another --sweep_dir."
        )
    if not files.has_split():
        described_source = source.describe(base.data)
        split = load_split(base, say, given)
        metrics.check_catalogue(len(split.item_ids))
        with written_aside(of_data) as aside:
            aside.write_text(data)
        files.claim_data(split, described_source)


def share(sweep_dir: Path, folder: Path) -> None:
    """Gives a run the files that all runs share: hard links, or copies where the file system has none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        target = folder / name
        target.unlink(missing_ok=True)
        try:
            os.link(sweep_dir / name, target)
        except OSError:
            shutil.copyfile(sweep_dir / name, target)
