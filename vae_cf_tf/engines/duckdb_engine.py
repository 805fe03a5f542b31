"""DuckDB: one process, out of core."""

import contextlib
import re
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import duckdb

from vae_cf_tf.data.prepared import shard_name
from vae_cf_tf.data.progress import Pace
from vae_cf_tf.data.text import one_line
from vae_cf_tf.engines.base import Engine, EngineOptions, kind_of
from vae_cf_tf.engines.log import LogFiles, is_url
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import move
from vae_cf_tf.say import Say

_MACROS = (
    "btrim(x, characters) AS trim(x, characters)",
    "regexp_like(x, pattern) AS regexp_matches(x, pattern)",
    "decode_utf8(x) AS decode(x)",
    "unix_micros(x) AS epoch_us(x)",
)
"""Spark's names of functions that DuckDB has by others."""
_KINDS = (
    (re.compile("VARCHAR|ENUM.*|UUID"), "text"),
    (re.compile("BLOB"), "bytes"),
    (re.compile("U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?"), "integer"),
    (re.compile("FLOAT|DOUBLE|DECIMAL.*"), "number"),
    (re.compile("BOOLEAN"), "boolean"),
    (re.compile("TIMESTAMP.*|DATE"), "time"),
)


class DuckDB(Engine):
    """DuckDB in this process; its tables are Parquet files, what does not fit in memory spills to the work folder."""

    name = "duckdb"
    timestamp = "TIMESTAMPTZ"

    def __init__(self, options: EngineOptions):
        config = {"temp_directory": str(options.work / "spilled"), "preserve_insertion_order": "false"}
        if options.memory:
            config["memory_limit"] = options.memory
        self._thread = futures.ThreadPoolExecutor(1)
        with _user_errors():
            self._connection = duckdb.connect(config=config)
        self._ask("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        for macro in _MACROS:
            self._ask(f"CREATE MACRO {macro}")

    @property
    def version(self) -> str:
        return f"duckdb {duckdb.__version__}"

    def names(self, log: LogFiles) -> list[str]:
        return [name for name, _ in self._described(_parquet(log))]

    def open_log(self, log: LogFiles) -> dict[str, str]:
        assert log.columns is not None
        names = list(log.columns.names)
        if log.is_text:
            names = [f"c{i}" for i in range(len(names))]
            types = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
            quote = "quote = '\"', escape = '\"'" if log.quoted else "quote = '', escape = ''"
            source = (
                f"read_csv({_list(log.paths)}, delim = {self.text(log.separator)}, header = false, skip = 1, {quote}, "
                f"auto_detect = false, columns = {{{types}}})"
            )
        else:
            source = _parquet(log)
        columns = {role: _quoted(names[index]) for role, index in log.roles().items()}
        self.define(
            "source", f"SELECT {', '.join(f'{name} AS {role}' for role, name in columns.items())} FROM {source}"
        )
        return {name: kind_of(log, name, type_, _KINDS) for name, type_ in self._described("source")}

    def write(self, sql: str, folder: Path, order: str = "") -> None:
        folder.mkdir()
        ordered = f"SELECT * FROM ({sql}) AS t ORDER BY {order}" if order else sql
        self._copy(ordered, folder / "part-0.parquet")

    def view(self, name: str, folder: Path) -> None:
        self.define(name, f"SELECT * FROM read_parquet({self.text(f'{folder}/*.parquet')})")

    def define(self, name: str, sql: str) -> None:
        self._ask(f"CREATE OR REPLACE VIEW {name} AS {sql}")

    def rows(self, sql: str) -> list[dict[str, Any]]:
        names, rows = self._ask(sql)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def column(self, sql: str) -> list[Any]:
        return [row[0] for row in self._ask(sql)[1]]

    def write_shards(self, sql: Callable[[str], str], users: int, size: int, folder: Path, say: Say) -> None:
        pace = Pace(say)
        for number, start in enumerate(range(0, users, size)):
            path = folder / shard_name(number)
            if not path.exists():
                aside = path.with_suffix(".tmp")
                rows = sql(f"place >= {start} AND place < {start + size}")
                self._copy(f"SELECT * EXCLUDE (place) FROM ({rows}) AS s ORDER BY s.place", aside)
                move(aside, path)
            pace.told(f"{folder.name}: {min(start + size, users):,} of {users:,} users written …")

    def text(self, value: str) -> str:
        return "'" + value.replace("'", "''") + "'"

    def listed(self, value: str, order: str) -> str:
        return f"coalesce(list({value} ORDER BY {order}) FILTER (WHERE {value} IS NOT NULL), [])"

    def close(self) -> None:
        self._connection.close()
        self._thread.shutdown()

    def _copy(self, sql: str, path: Path) -> None:
        self._ask(f"COPY ({sql}) TO {self.text(str(path))} (FORMAT parquet, COMPRESSION zstd)")

    def _described(self, table: str) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self._ask(f"DESCRIBE SELECT * FROM {table}")[1]]

    def _ask(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Runs SQL; returns column names and rows. Uses a second thread: in the main one, DuckDB would miss Ctrl-C."""

        def ask() -> tuple[list[str], list[tuple[Any, ...]]]:
            result = self._connection.execute(sql)
            return [column[0] for column in result.description or ()], result.fetchall()

        asked = self._thread.submit(ask)
        try:
            with _user_errors():
                return asked.result()
        except KeyboardInterrupt:
            self._connection.interrupt()
            futures.wait([asked])
            raise


@contextlib.contextmanager
def _user_errors() -> Iterator[None]:
    """Turns what DuckDB says of data or the machine into one line."""
    try:
        yield
    except (duckdb.ParserException, duckdb.BinderException):
        raise  # a bug
    except duckdb.OutOfMemoryException as error:
        raise UserError(f"DuckDB needs more memory ({one_line(error)}); give more with --memory") from error
    except duckdb.Error as error:
        text = one_line(error)
        if "No space left" in text or "max_temp_directory_size" in text:
            raise UserError(f"The disk is full ({text}); free some space and start the command again") from error
        raise UserError(f"DuckDB cannot read the data: {text}") from error


def _parquet(log: LogFiles) -> str:
    paths = log.paths
    if is_url(paths[0]) and not paths[0].endswith((".parquet", ".pq")):
        paths = [f"{paths[0].rstrip('/')}/**/*.parquet"]
    return f"read_parquet({_list(paths)}, hive_partitioning = false)"


def _list(paths: list[str]) -> str:
    return "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
