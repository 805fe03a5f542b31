"""Parquet files."""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from vae_cf_tf.data.events import BadEvent, EventLog
from vae_cf_tf.data.formats.base import Format, ReaderOptions, parts_in
from vae_cf_tf.data.formats.columns import Columns, columns_of, read_with_times
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.progress import Progress
from vae_cf_tf.data.text import number_fault, user_errors
from vae_cf_tf.data.times import is_time
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say

_ROWS = 1 << 20  # read at a time


class Parquet(Format):
    """A Parquet file: ids are text, bytes or whole numbers, ratings are numbers."""

    accepts = "ratings or interactions as .parquet, or any .parquet files of the same columns"

    def sniff(self, path: Path) -> bool:
        with user_errors(path), open(path, "rb") as f:
            return f.read(4) == b"PAR1" or path.suffix in (".parquet", ".pq")

    def in_folder(self, folder: Path) -> list[Path]:
        return [path for path in parts_in(folder) if path.suffix in (".parquet", ".pq")]

    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Interactions:
        columns = _columns(files[0], options)
        for path in files[1:]:
            _check_same(path, files[0], columns)
        more = f" and {len(files) - 1:,} more files" if len(files) > 1 else ""
        say(f"Reading {files[0]}{more}: {columns.told(options.threshold)}")
        return read_with_times(lambda columns: _read(files, columns, say), columns, options, say)


def _read(files: Sequence[Path], columns: Columns, say: Say) -> Interactions:
    """Reads the columns of the parts of one table. Raises UserError that names the first row that is wrong."""
    ids = [columns.names[columns.user], columns.names[columns.item]]
    needed = list(dict.fromkeys(columns.names[i] for i in columns.roles.values()))
    log, rows, starts = EventLog(columns.ids), 0, []
    progress = Progress(say)
    try:
        for path in files:
            starts.append(rows)
            with user_errors(path), pa.parquet.ParquetFile(path, read_dictionary=ids) as file:
                for batch in progress.passed(file.iter_batches(batch_size=_ROWS, columns=needed)):
                    _add(log, batch, columns, rows)
                    rows += len(batch)
        return log.interactions()
    except BadEvent as e:
        part = bisect.bisect_right(starts, e.row) - 1
        raise UserError(f"{files[part]}, row {e.row - starts[part] + 1}: {e}; correct or drop the row") from e


def read_batches(batches: Iterable[pa.RecordBatch], columns: Columns) -> Interactions:
    """The log in Arrow batches that have these columns.

    Raises: as `EventLog` does.
    """
    log, rows = EventLog(columns.ids), 0
    for batch in batches:
        _add(log, batch, columns, rows)
        rows += len(batch)
    return log.interactions()


def _add(log: EventLog, batch: pa.RecordBatch, columns: Columns, rows: int) -> None:
    """Adds a batch to the log; `rows` were read before it."""
    found = {role: batch.column(columns.names[i]) for role, i in columns.roles.items()}
    ratings, weights = (_numbers(found[role], rows, role) if role in found else None for role in ("rating", "weight"))
    log.add(found["user"], found["item"], ratings, found.get("time"), weights)


def _check_same(path: Path, first: Path, columns: Columns) -> None:
    """Raises UserError where a part lacks a column of the first part, or has another type of column there."""
    with user_errors(path):
        schema = pa.parquet.read_schema(path)
    for role, index in columns.roles.items():
        name = columns.names[index]
        if name not in schema.names:
            raise UserError(f"{path} has no column {name}, the {role} column of {first}; take it out of the folder")
        kind = schema.field(name).type
        if not pa.types.is_null(kind) and not {"rating": _is_rating, "weight": _is_rating, "time": is_time}.get(
            role, _is_id
        )(kind):
            raise UserError(f"{path}: column {name} is of type {kind}, which is no {role} column")


def _columns(path: Path, options: ReaderOptions) -> Columns:
    """The columns. Raises UserError for a file that is no Parquet, and for a column that is missing or of no use."""
    with user_errors(path), open(path, "rb") as f:
        if f.read(4) != b"PAR1":
            raise UserError(f"{path} is not a Parquet file; name it .csv or .tsv if it is text")
    with user_errors(path):
        schema = pa.parquet.read_schema(path)
    return columns_in(path, schema, options)


def columns_in(path: Path | str, schema: pa.Schema, options: ReaderOptions) -> Columns:
    """The columns of a table, which messages call `path`. Raises UserError for one that is missing or of no use."""
    columns = columns_of(path, schema.names, options)
    for index in (columns.user, columns.item):
        if not _is_id(schema.field(index).type):
            raise UserError(
                f"{path}: column {schema.names[index]} is of type {schema.field(index).type}; ids are text or integers"
            )
    for what, place in (("ratings", columns.rating), ("weights", columns.weight)):
        if place is not None and not _is_rating(schema.field(place).type):
            kind = schema.field(place).type
            raise UserError(f"{path}: column {schema.names[place]} is of type {kind}; {what} are numbers")
    if columns.time is not None:
        kind = schema.field(columns.time).type
        is_asked = options.asks_for_times
        if not is_time(kind) and is_asked:
            raise UserError(f"{path}: column {schema.names[columns.time]} is of type {kind}, which holds no times")
        if not is_time(kind) or (_is_text(kind) and not is_asked):
            return replace(columns, time=None)
    return columns


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_id(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return _is_text(kind) or is_bytes or _is_number(kind)


def _is_rating(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is_number(kind) or _is_text(kind) or pa.types.is_boolean(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _numbers(array: pa.Array, rows: int, role: str) -> pa.Array:
    """Ratings or weights as numbers, text too. Raises BadEvent for the first that is none; `rows` were read before."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not _is_text(array.type):
        return array
    texts = array.to_pylist()
    for row, text in enumerate(texts):
        if wrong := number_fault(text or "", role):
            raise BadEvent(rows + row, wrong)
    return pc.utf8_trim(array.cast(pa.string()), " \t").cast(pa.float32())
