"""The files of a log, as an engine reads them: which files, which columns, and how text is separated."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vae_cf_tf.data import formats, titles
from vae_cf_tf.data.formats.columns import Columns, columns_of
from vae_cf_tf.data.formats.delimited import Delimited, open_table, with_kinds
from vae_cf_tf.data.formats.parquet import Parquet, columns_in
from vae_cf_tf.data.formats.prepared import PreparedSet
from vae_cf_tf.data.formats.presplit import PreSplit
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.load import read_log, reader_options
from vae_cf_tf.data.split import Split
from vae_cf_tf.data.text import is_gzip, user_errors
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings


@dataclass(frozen=True)
class LogFiles:
    """A log of Parquet files, or of text files with a header line.

    Args:
      paths: files, or a URL that the engine knows.
      columns: which columns are what; None where only the engine can tell (`with_names`).
      separator: of text files, one character; "" for Parquet.
      quoted: whether a field of a text file may be in double quotes.
      folder: where the files lie, None for a URL: titles are looked for there.
      titles: item id → title where they were read with the log.
      times_are_seconds: whether the times are known to be seconds since 1970.
    """

    paths: list[str]
    columns: Columns | None
    separator: str = ""
    quoted: bool = False
    folder: Path | None = None
    titles: dict[str, str] = field(default_factory=dict)
    times_are_seconds: bool = False

    @property
    def is_text(self) -> bool:
        return bool(self.separator)

    def roles(self) -> dict[str, int]:
        """The index of each column that is read, by its name in the view `source`."""
        assert self.columns is not None
        names = {"user": "user_id", "item": "item_id"}
        return {names.get(role, role): index for role, index in self.columns.roles.items()}

    def titles_of(self, item_ids: list[str], settings: Settings, say: Say) -> dict[str, str]:
        """Item id → title, from --item_titles or the data set's own file."""
        if settings.data.item_titles:
            return titles.read_matching(Path(settings.data.item_titles), item_ids)
        if self.folder and (found := titles.beside(self.folder, item_ids, say)):
            return found
        return {item: self.titles[item] for item in item_ids if item in self.titles}


def files_of(path: str) -> list[Path]:
    """The files of the log. Raises UserError for a path of no known format, or of data that is split already."""
    format, found, _ = formats.locate(Path(path))
    if isinstance(format, PreSplit | PreparedSet):
        raise UserError(f"{path} is split already. Train on it with --data={path}.")
    return found


def is_url(path: str) -> bool:
    return "://" in path


def describe(settings: Settings, work: Path, say: Say) -> LogFiles:
    """Finds the log that the settings name.

    The engine reads Parquet, and text with a header. Data in other forms, downloaded data (--dataset) and the embedded
    data set are read into memory by their own readers and written to a Parquet file in `work`.

    Raises: UserError for data that is missing, of no known form or split already.
    """
    path, needs_times = settings.data.data, settings.split.needs_times
    if is_url(path):
        separator = {".csv": ",", ".tsv": "\t"}.get(Path(path.removesuffix(".gz")).suffix, "")
        if separator:
            raise UserError(f"{path}: of a URL, Parquet is read; CSV is read from a folder of this machine")
        return LogFiles([path], None)
    if not path or settings.data.dataset:
        return _kept(read_log(settings, say), work)
    format, files, folder = formats.locate(Path(path))
    options = reader_options(settings)
    if isinstance(format, Parquet):
        with user_errors(files[0]):
            schema = pq.read_schema(files[0])
        columns = columns_in(files[0], schema, options)
        log = LogFiles([str(file) for file in files], columns, folder=folder)
    elif isinstance(format, Delimited):
        table, columns = open_table(files[0], options)
        columns = with_kinds(table, columns, options)
        named_as_is = all(is_gzip(file) == (file.suffix == ".gz") for file in files)
        if table.before or len(table.separator) > 1 or not named_as_is:
            return _kept(read_log(settings, say), work)
        log = LogFiles([str(file) for file in files], columns, table.separator, table.quoted, folder)
    else:
        return _kept(read_log(settings, say), work)
    columns = columns if needs_times else replace(columns, time=None)
    more = f" and {len(files) - 1:,} more files" if len(files) > 1 else ""
    say(f"Reading {files[0]}{more}: {columns.told(options.threshold)}")
    return replace(log, columns=columns)


def with_names(log: LogFiles, names: list[str], settings: Settings) -> LogFiles:
    """The log with its `columns` found among these names, which the engine read. Raises UserError as `columns_of`."""
    columns = columns_of(log.paths[0], names, reader_options(settings))
    return replace(log, columns=columns if settings.split.needs_times else replace(columns, time=None))


def _kept(log: Interactions | Split, work: Path) -> LogFiles:
    """The log as a Parquet file in `work`."""
    if isinstance(log, Split):
        raise UserError("the data is split already; train on it with trainers.main")
    ids = {"user_id": (log.user_ids, log.users), "item_id": (log.item_ids, log.items)}
    table: dict[str, Any] = {
        name: pa.array(texts, pa.string()).take(pa.array(codes)) for name, (texts, codes) in ids.items()
    }
    numbers = {"rating": log.ratings, "weight": log.weights, "time": log.times}
    table |= {name: values for name, values in numbers.items() if values is not None}
    names = list(table)
    file = work / "log.parquet"
    pq.write_table(pa.table(table), file, compression="zstd")
    places = {name: names.index(name) if name in names else None for name in numbers}
    columns = Columns(names, 0, 1, places["rating"], time=places["time"], weight=places["weight"])
    return LogFiles([str(file)], columns, titles=log.titles, times_are_seconds=True)
