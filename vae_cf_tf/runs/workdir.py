"""Paths and file formats of one training run."""

import contextlib
import csv
import datetime
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vae_cf_tf import files
from vae_cf_tf.data import source
from vae_cf_tf.data.shards import REFERENCE_FILE, ShardedSplit
from vae_cf_tf.data.split import PARTS, SPLIT_FILE, Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation.metrics import MAIN, METRICS
from vae_cf_tf.files import read_json, sha256, write_json, written_aside
from vae_cf_tf.registries import BASELINES
from vae_cf_tf.settings import EvaluationSettings, Settings
from vae_cf_tf.settings.settings import OldVersion, written

PerUser = dict[str, dict[str, np.ndarray]]
"""By part and metric: float64 [users with targets]."""


class Workdir:
    """The folder of a run. docs/training.md lists its files.

    Args:
      path: the folder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.settings_file = self.path / "config.json"
        self.source = self.path / "source.json"  # the files that the data was read from
        self.checkpoint = self.path / "checkpoint.npz"  # to resume from
        self.best = self.path / "best.npz"  # weights of the best epoch
        self.warm_start = self.path / "warm_start.json"  # which weights the run started from, where it was told some
        self.item_item = self.path / "item_path.npz"  # the item–item model beside it, where the settings have one
        self.history = self.path / "history.csv"
        self.metrics = self.path / "metrics.json"
        self.users = self.path / "users.parquet"  # the metrics of each held-out user
        self.baselines = self.path / "baselines.json"
        self.tensorboard = self.path / "tensorboard"

    def locked(self) -> contextlib.AbstractContextManager[int]:
        """Keeps other processes from training in this folder."""
        return files.locked(
            self.path, f"Another process is at work in {self.path}. Wait for it to end, or give another --workdir."
        )

    def check_settings(self, settings: Settings) -> None:
        """Raises UserError where the folder holds a run of other settings; the data is compared by `check_data`."""
        if not self.settings_file.exists():
            return
        stored = self.settings()
        names = [name for name in stored.differences(settings) if name not in _BY_CONTENT]
        if names:
            differing = (f"--{n}={written(stored[n])} there, --{n}={written(settings[n])} here" for n in names)
            raise UserError(
                f"{self.path} was trained with other settings: {'; '.join(differing)}. Give another --workdir, or the "
                "settings of that run."
            )

    def check_data(self, settings: Settings) -> None:
        """Raises UserError where the folder holds a run on other data, compared by content: files may have moved."""
        if not self.settings_file.exists():
            return
        stored = self.settings().data
        if self.source.exists():
            moved = stored.data != settings.data.data
            changed = source.difference(self.read_source(), settings.data, moved)
        else:
            before, now = (other.data or other.dataset or "the embedded data set" for other in (stored, settings.data))
            changed = f"the data was {before} and is {now}" if before != now else None
        if changed:
            raise UserError(
                f"{self.path} was trained on other data: {changed}. Give another --workdir for the data of today."
            )

    def claim_data(self, split: Split, described: dict[str, Any]) -> None:
        """Keeps the data, and what it was read from; called when it is known to be good."""
        write_json(self.source, described)
        split.save(self.path)

    def claim(self, settings: Settings) -> None:
        """Makes the folder that of a run of these settings."""
        write_json(self.settings_file, settings.to_dict())

    def read_source(self) -> dict[str, Any]:
        """What `source.describe` gave when the data was read.

        Raises:
          UserError: the file is damaged.
        """
        try:
            described = read_json(self.source)
            _ = described["name"], described["content"], [file["name"] for file in described["files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.source} is damaged ({error}). Delete it to go on with the run's data.") from error
        return described

    def settings(self) -> Settings:
        """The settings of the run.

        Raises:
          UserError: the folder is no run's, the file is damaged, or an earlier version of the package wrote it.
        """
        if not self.settings_file.exists():
            raise UserError(
                f"{self.path} is not the workdir of a run: it has no {self.settings_file.name}. Train one first."
            )
        try:
            return Settings.from_dict(read_json(self.settings_file))
        except OldVersion as error:
            raise UserError(
                f"The run in {self.path} was trained by vae_cf_tf 0.1, whose files this version does not read. Give "
                "another --workdir, or install that version."
            ) from error
        except (ValueError, UserError) as error:
            raise UserError(f"{self.settings_file} cannot be read ({error}). Give another --workdir.") from error

    def has_split(self) -> bool:
        return any((self.path / name).exists() for name in (SPLIT_FILE, REFERENCE_FILE))

    def split(self) -> Split:
        """The data that the run was trained and judged on."""
        kind = ShardedSplit if (self.path / REFERENCE_FILE).exists() else Split
        return kind.load(self.path)

    def write_history(self, rows: Iterable[dict[str, Any]]) -> None:
        rows = list(rows)
        with written_aside(self.history) as aside, open(aside, "w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def read_history(self) -> dict[str, list[float]]:
        """history.csv by column. Its checksum is compared if metrics.json covers all its epochs (the run is finished).

        Raises:
          UserError: the file is missing or damaged.
        """
        try:
            with open(self.history, newline="", encoding="utf-8") as f:
                rows = list(csv.DictReader(f))
            columns = {name: [float(row[name]) for row in rows] for name in rows[0]}
            _ = [columns[name] for name in _HISTORY_COLUMNS]
            if self.metrics.exists() and (values := self.read_metrics())["epochs"] >= len(rows):
                self._check(self.history, values)
            return columns
        except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
            raise UserError(
                f"{self.history} cannot be read ({error!r}). Start trainers.main again with the same settings; it is "
                "written anew."
            ) from error

    def _check(self, path: Path, metrics: Mapping[str, Any]) -> None:
        """Raises ValueError unless the file is the one that metrics.json was written with."""
        if sha256(path) != metrics["checksums"].get(path.name):
            raise ValueError(f"it is damaged, or not of the figures in {self.metrics.name}")

    def read_metrics(self) -> dict[str, Any]:
        """What metrics.json holds.

        Raises:
          UserError: the run is not finished, or the file is damaged.
        """
        try:
            values = read_json(self.metrics)
            for name, kind in _METRICS_FIELDS.items():
                if not isinstance(values[name], kind):
                    raise TypeError(f"{name} is {values[name]!r}")
            datetime.datetime.fromisoformat(values["finished"])
            for figures in (values, *values["baselines"]):
                check_figures(figures)
            for baseline in values["baselines"]:
                check_baseline(baseline)
            if "similar_items" in values:  # not in runs of version 0.1
                check_similar_items(values["similar_items"])
        except FileNotFoundError as error:
            raise UserError(
                f"The run in {self.path} is not finished: it has no {self.metrics.name}. Start trainers.main again "
                "with the same settings."
            ) from error
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{self.metrics} is damaged ({error}). Start trainers.main again with the same settings; it is written "
                "anew."
            ) from error
        return values

    def read_baselines(self, settings: EvaluationSettings) -> list[dict[str, Any]] | None:
        """The figures of baselines that were evaluated with these settings; None where they are to be made (again)."""
        try:
            stored = read_json(self.baselines)
            for baseline in stored["baselines"]:
                check_baseline(baseline)
            return stored["baselines"] if stored["settings"] == _of_baselines(settings) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_baselines(self, settings: EvaluationSettings, baselines: list[dict[str, Any]]) -> None:
        write_json(self.baselines, {"settings": _of_baselines(settings), "baselines": baselines})

    def write_metrics(self, values: dict[str, Any]) -> None:
        """Writes metrics.json, and into it the checksums of history.csv and users.parquet, which belong to it."""
        checksums = {path.name: sha256(path) for path in (self.history, self.users) if path.exists()}
        write_json(self.metrics, values | {"checksums": checksums})

    def write_users(self, per_user: PerUser, users: Mapping[str, np.ndarray]) -> None:
        """Writes users.parquet: a row for each held-out user with targets.

        Args:
          per_user: their metrics.
          users: by part, int [users with targets]: the row of each user in that part of the split.
        """
        columns = {"part": np.repeat(list(per_user), [len(users[part]) for part in per_user])}
        columns["user"] = np.concatenate([users[part] for part in per_user])
        for name in next(iter(per_user.values())):
            columns[name] = np.concatenate([values[name] for values in per_user.values()])
        with written_aside(self.users) as aside:
            pq.write_table(pa.table(columns), aside)

    def read_users(self) -> PerUser:
        """The metrics of each held-out user of a finished run, in the order of the split.

        Raises:
          UserError: the file is missing, damaged or not of the figures in metrics.json.
        """
        try:
            self._check(self.users, self.read_metrics())
            table = pq.read_table(self.users)
            names = [name for name in table.column_names if name not in ("part", "user")]
            parts = {part: table.filter(pc.equal(table["part"], part)) for part in PARTS}
            return {part: {name: rows[name].to_numpy() for name in names} for part, rows in parts.items()}
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise UserError(
                f"{self.users} cannot be read ({' '.join(str(error).split())[:160]}). Start trainers.main again with "
                "the same settings; it is written anew."
            ) from error


_BY_CONTENT = ("data", "dataset", "warm_start")
"""Settings whose files are compared by content, since files may have moved."""
_METRICS_FIELDS: dict[str, type | tuple[type, ...]] = {
    **{"best_epoch": int, "epochs": int, "seconds_per_epoch": (int, float), "users_per_second": (int, float)},
    **{
        "peak_rss_mb": (int, float),
        "config": dict,
        "versions": dict,
        "baselines": list,
        "split": dict,
        "checksums": dict,
    },
    **dict.fromkeys(("note", "finished", "data_fingerprint", "model_id"), str),
}
"""What metrics.json has beside the metrics of each part."""
_HISTORY_COLUMNS = ("epoch", "beta", "loss", "nll", "kl", "seconds", "val_nll", "val_kl", f"val_{MAIN}")


def _of_baselines(settings: EvaluationSettings) -> dict[str, Any]:
    """What the figures of the baselines depend on."""
    values = {name: value for name, value in vars(settings).items() if name != "eval_batch_size"}
    return values | {"names": list(BASELINES.names())}


def check_figures(figures: dict[str, Any]) -> None:
    """Raises KeyError or TypeError unless each part has mean and standard error of each metric."""
    for part in PARTS:
        for name in METRICS:
            _ = figures[part][name]["mean"] + figures[part][name]["stderr"] + 0.0


def check_baseline(baseline: dict[str, Any]) -> None:
    """Raises KeyError or TypeError for what is no baseline of metrics.json or baselines.json."""
    _ = baseline["name"] + baseline["label"], {**baseline["settings"]}
    check_figures(baseline)


def check_similar_items(chosen: dict[str, Any]) -> None:
    """Raises KeyError or TypeError for what is no choice of a similarity of items."""
    if not isinstance(chosen["source"], str):
        raise TypeError(f"the source of similar items is {chosen['source']!r}")
    for part in PARTS:
        _ = chosen["users"][part] + 0
        for figures in {**chosen[part]}.values():
            _ = [figure["mean"] + figure["stderr"] + 0.0 for figure in {**figures}.values()]


def identity(*parts: str) -> str:
    """16 hexadecimal digits of several texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
