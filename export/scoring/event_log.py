"""Histories from a log of events: a row an event, with a user and an item column, in a form that --data takes."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from export import card, catalogue
from export.scoring.history_files import KINDS, Row, Survey
from vae_cf_tf.data import formats
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import SplitSettings


def is_log(path: Path) -> bool:
    """Whether a file is a log of events: any suffix not in KINDS, or Parquet without a `history` or nested column."""
    if path.suffix != ".parquet":
        return path.suffix not in KINDS
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):  # it is told where the file is read
        return False
    return "history" not in schema.names and not any(pa.types.is_nested(field.type) for field in schema)


class EventLog:
    """The users of a log, in the order in which they appear, each with the items of its events.

    The log is held in memory: 8 bytes an event, and the ids.

    Args:
      path: of the log.
      options: the columns.
      threshold: the rating from which an event counts. A user with no such event has an empty history.
    """

    kind = "parquet"
    """Of the recommendations, unless told otherwise."""

    def __init__(self, path: Path, options: formats.ReaderOptions, threshold: float):
        self._path, self._options, self._threshold = path, options, threshold

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reads the log itself."""
        return EventLog, (self._path, self._options, self._threshold)

    @functools.cached_property
    def _log(self) -> Interactions:
        log = formats.read(str(self._path), self._options)
        if isinstance(log, Split):
            raise UserError(f"{self._path} is split data. Give a log of events as --input.")
        return log

    def rows(self) -> Iterator[Row]:
        """A row for each user; its id is text."""
        log = self._log
        counted = np.arange(len(log.users)) if log.ratings is None else np.flatnonzero(log.ratings >= self._threshold)
        users, items = log.users[counted], log.items[counted]
        items = items[np.argsort(users, kind="stable")]
        ends = np.bincount(users, minlength=len(log.user_ids)).cumsum()
        for user, start, end in zip(log.user_ids, np.concatenate([[0], ends[:-1]]), ends, strict=True):
            yield Row(user, log.item_ids[items[start:end]].tolist())

    def survey(self, known: frozenset[str]) -> Survey:
        """Reads the log; `known`: the catalogue."""
        counts = np.array([catalogue.count(row.history, known) for row in self.rows()], int).reshape(-1, 2)
        ids, unknown = map(int, counts.sum(axis=0))
        return Survey(len(counts), ids, unknown, (pa.string(),), binary_users=False)


def threshold_of(version: Path) -> float:
    """The rating from which an event counted when the model was trained."""
    return float((card.read(version)["config"] or {}).get("threshold", SplitSettings().threshold))
