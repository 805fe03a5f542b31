"""What an engine has to do for the protocol, and the registry of engines."""

import abc
import contextlib
import importlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vae_cf_tf.engines.log import LogFiles
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say

ENGINES = {
    "duckdb": ("vae_cf_tf.engines.duckdb_engine:DuckDB", "pip install 'vae_cf_tf[duckdb]'"),
    "spark": ("vae_cf_tf.engines.spark_engine:Spark", "pip install 'vae_cf_tf[spark]', and Java 17 or newer"),
}
"""By name: the class, and what installs what it needs."""
Kinds = tuple[tuple[re.Pattern[str], str], ...]
"""An engine's names of types, and the kind of each."""


class EngineOptions(NamedTuple):
    """What an engine may use.

    Args:
      work: an existing folder for its temporary files.
      memory: such as "4GB"; "" leaves the engine's own default.
      master: Spark's master URL; other engines do not read it.
    """

    work: Path
    memory: str = ""
    master: str = "local[*]"


class Engine(abc.ABC):
    """Runs SQL out of core. A context manager: leaving it ends the engine.

    The protocol is written in SQL that both engines read: Spark's names of functions, which DuckDB has as macros. What
    cannot be written in one way is a method here.
    """

    name: str

    @property
    @abc.abstractmethod
    def version(self) -> str:
        """Of the engine, such as "duckdb 2.0.0"."""

    @abc.abstractmethod
    def names(self, log: LogFiles) -> list[str]:
        """The names of the columns of Parquet files."""

    @abc.abstractmethod
    def open_log(self, log: LogFiles) -> dict[str, str]:
        """Makes the view `source` with the columns user_id, item_id and those of rating, weight and time that the log
        has; returns the kind of each: text, bytes, integer, number, boolean or time."""

    @abc.abstractmethod
    def write(self, sql: str, folder: Path, order: str = "") -> None:
        """Writes the rows of a query as Parquet files into a new folder.

        Args:
          order: columns by which the rows are read later in ranges. An engine may ignore it.
        """

    @abc.abstractmethod
    def view(self, name: str, folder: Path) -> None:
        """Makes a view of the Parquet files in a folder that `write` wrote."""

    @abc.abstractmethod
    def define(self, name: str, sql: str) -> None:
        """Makes a view of a query."""

    @abc.abstractmethod
    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a small result."""

    @abc.abstractmethod
    def column(self, sql: str) -> list[Any]:
        """The values of a result of one column, which fits in memory."""

    @abc.abstractmethod
    def write_shards(self, sql: Callable[[str], str], users: int, size: int, folder: Path, say: Say) -> None:
        """Writes part-00000.parquet, … of `size` users each into `folder`, which exists and may hold some of them.

        Args:
          sql: gives the query for users that meet a condition on `place`; its first column is `place`, the number of
            the user from 0, which is not written.
          users: number of users in all shards.
          size: users in a shard.
          folder: each shard that it already holds is complete and is not written again.
          say: is told of the progress.
        """

    @abc.abstractmethod
    def text(self, value: str) -> str:
        """The SQL literal of a text."""

    @abc.abstractmethod
    def listed(self, value: str, order: str) -> str:
        """The aggregate that lists the values that are not null, in ascending order of `order`; `[]` for none."""

    timestamp: str
    """The type of a moment in time, to which text with or without a zone is cast; without one it is UTC."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the engine."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def kind_of(log: LogFiles, column: str, type_: str, kinds: Kinds) -> str:
    """The kind of a column of this type, as `Engine.open_log` returns it. Raises UserError where there is none."""
    kind = next((kind for pattern, kind in kinds if pattern.fullmatch(type_)), None)
    if kind is None:
        raise UserError(f"{log.paths[0]}: the column that is the {column} is of type {type_}; give text or numbers")
    return kind


def start(name: str, options: EngineOptions) -> Engine:
    """Starts an engine. Raises UserError where what it needs is not installed."""
    place, remedy = ENGINES[name]
    module, _, class_name = place.partition(":")
    try:
        with _ctrl_c_waits():
            found = getattr(importlib.import_module(module), class_name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vae_cf_tf":
            raise
        raise UserError(f"--engine={name} needs {error.name}, which is not installed: {remedy}") from error
    return found(options)


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C takes effect when the body is done. In the import of DuckDB, which is C++, it would abort the process."""
    if threading.current_thread() is not threading.main_thread():  # no other thread is interrupted
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)
