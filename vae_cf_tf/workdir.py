"""The folder of a run: what is where, and whose it is."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vae_cf_tf.config import Config
from vae_cf_tf.data.split import SPLIT_FILE, Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside


class Workdir:
    """Names and formats of a run's files; `docs` of each are in the README.

    Args:
      path: the folder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.checkpoint = self.path / "checkpoint.npz"  # to resume from
        self.best = self.path / "best.npz"  # weights of the best epoch
        self.item_path = self.path / "item_path.npz"  # made beside the best epoch, where the configuration has one
        self.history = self.path / "history.csv"
        self.metrics = self.path / "metrics.json"
        self.baselines = self.path / "baselines.json"
        self.tensorboard = self.path / "tensorboard"

    def check(self, config: Config) -> None:
        """Raises where the folder holds a run of another configuration."""
        if not self.config_file.exists():
            return
        stored = self.config()
        if names := stored.differences(config):
            changes = "; ".join(f"{n} is {getattr(stored, n)!r} there and {getattr(config, n)!r} here" for n in names)
            raise UserError(
                f"The workdir {self.path} belongs to another configuration: {changes}. "
                "Give another --workdir, or the settings it was made with."
            )

    def claim(self, config: Config, split: Split) -> None:
        """Makes the folder this configuration's, with its data; called when both are known to be good."""
        self.path.mkdir(parents=True, exist_ok=True)
        with written_aside(self.config_file) as aside:
            aside.write_text(config.to_json())
        if not self.has_split():
            split.save(self.path)

    def config(self) -> Config:
        """The run's configuration."""
        if not self.config_file.exists():
            raise UserError(
                f"{self.path} is not the workdir of a run: it has no {self.config_file.name}. Train one first."
            )
        try:
            return Config.from_json(self.config_file.read_text())
        except ValueError as error:
            raise UserError(f"{self.config_file} cannot be read ({error}). Give another --workdir.") from error

    def has_split(self) -> bool:
        return (self.path / SPLIT_FILE).exists()

    def split(self) -> Split:
        """The data that the run was trained and judged on."""
        return Split.load(self.path)

    def write_history(self, rows: Iterable[dict[str, Any]]) -> None:
        rows = list(rows)
        with written_aside(self.history) as aside, open(aside, "w", newline="") as f:
            writer = csv.DictWriter(f, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def write_metrics(self, values: dict[str, Any]) -> None:
        _write_json(self.metrics, values)

    def write_baselines(self, values: dict[str, Any]) -> None:
        _write_json(self.baselines, values)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with written_aside(path) as aside:
        aside.write_text(json.dumps(values, indent=1) + "\n")
