"""Paths and file formats of one training run."""

import contextlib
import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vae_cf_tf import files
from vae_cf_tf.config import Config
from vae_cf_tf.data import source
from vae_cf_tf.data.split import SPLIT_FILE, Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside


class Workdir:
    """The folder of a run. docs of each file are in the README.

    Args:
      path: the folder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.source = self.path / "source.json"  # the files that the data was read from
        self.checkpoint = self.path / "checkpoint.npz"  # to resume from
        self.best = self.path / "best.npz"  # weights of the best epoch
        self.item_path = self.path / "item_path.npz"  # made beside the best epoch, where the configuration has one
        self.history = self.path / "history.csv"
        self.metrics = self.path / "metrics.json"
        self.baselines = self.path / "baselines.json"
        self.tensorboard = self.path / "tensorboard"

    def locked(self) -> contextlib.AbstractContextManager[int]:
        """Keeps other processes from training in this folder."""
        return files.locked(
            self.path, f"Another process is at work in {self.path}. Wait for it to end, or give another --workdir."
        )

    def check(self, config: Config) -> None:
        """Raises UserError where the folder holds a run of another configuration or of other data."""
        if not self.config_file.exists():
            return
        stored = self.config()
        names = stored.differences(config)
        if self.source.exists():  # the data is compared by its content: its files may have moved
            names = [name for name in names if name not in ("data", "dataset")]
            if changed := source.difference(self.read_source(), config, moved=stored.data != config.data):
                raise UserError(
                    f"{self.path} was trained on other data: {changed}. Give another --workdir for the data of today."
                )
        if names:
            lines = [f"  --{n}={getattr(stored, n)} there, --{n}={getattr(config, n)} here" for n in names]
            raise UserError(
                f"Give another --workdir, or the settings that {self.path} was made with. They differ in:\n"
                + "\n".join(lines)
            )

    def claim_data(self, split: Split, described: dict[str, Any]) -> None:
        """Keeps the data, and what it was read from; called when it is known to be good."""
        write_json(self.source, described)
        split.save(self.path)

    def claim(self, config: Config) -> None:
        """Makes the folder this configuration's."""
        with written_aside(self.config_file) as aside:
            aside.write_text(config.to_json(), encoding="utf-8")

    def read_source(self) -> dict[str, Any]:
        """What `source.describe` gave when the data was read.

        Raises:
          UserError: the file is damaged.
        """
        try:
            described = json.loads(self.source.read_text(encoding="utf-8"))
            _ = described["name"], described["content"], [file["name"] for file in described["files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.source} is damaged ({error}). Delete it to go on with the run's data.") from error
        return described

    def config(self) -> Config:
        """The run's configuration.

        Raises:
          UserError: the folder is no run's, or the file is damaged.
        """
        if not self.config_file.exists():
            raise UserError(
                f"{self.path} is not the workdir of a run: it has no {self.config_file.name}. Train one first."
            )
        try:
            return Config.from_json(self.config_file.read_text(encoding="utf-8"))
        except (ValueError, UserError) as error:
            raise UserError(f"{self.config_file} cannot be read ({error}). Give another --workdir.") from error

    def has_split(self) -> bool:
        return (self.path / SPLIT_FILE).exists()

    def split(self) -> Split:
        """The data that the run was trained and judged on."""
        return Split.load(self.path)

    def write_history(self, rows: Iterable[dict[str, Any]]) -> None:
        rows = list(rows)
        with written_aside(self.history) as aside, open(aside, "w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def read_history(self) -> dict[str, list[float]]:
        """history.csv by column.

        Raises:
          UserError: the file is missing or damaged.
        """
        try:
            with open(self.history, newline="", encoding="utf-8") as f:
                rows = list(csv.DictReader(f))
            return {name: [float(row[name]) for row in rows] for name in rows[0]}
        except (OSError, ValueError, IndexError, TypeError) as error:
            raise UserError(
                f"{self.history} cannot be read ({error!r}). Start trainers.main again with the same settings; it is "
                "written anew."
            ) from error

    def read_metrics(self) -> dict[str, Any]:
        """What metrics.json holds.

        Raises:
          UserError: the run is not finished, or the file is damaged.
        """
        try:
            values = json.loads(self.metrics.read_text(encoding="utf-8"))
            _ = [values[part]["ndcg@100"]["mean"] + values[part]["ndcg@100"]["stderr"] for part in PARTS]
            _ = int(values["best_epoch"]), int(values["epochs"]), values["config"], values["model_id"]
            _ = [baseline["label"] for baseline in values["baselines"]]
        except FileNotFoundError as error:
            raise UserError(
                f"The run in {self.path} is not finished: it has no {self.metrics.name}. Start trainers.main again "
                "with the same settings."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise UserError(
                f"{self.metrics} is damaged ({error}). Start trainers.main again with the same settings; it is written "
                "anew."
            ) from error
        return values

    def write_metrics(self, values: dict[str, Any]) -> None:
        write_json(self.metrics, values)


PARTS = ("test", "validation")
"""The held-out users: those for the result, and those on whom epochs and settings are chosen."""


def write_json(path: Path, values: Any) -> None:
    with written_aside(path) as aside:
        aside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def identity(*parts: str) -> str:
    """16 hexadecimal digits of several texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
