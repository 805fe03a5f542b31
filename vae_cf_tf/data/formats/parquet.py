"""Parquet files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from vae_cf_tf.data.events import BadEvent, EventLog
from vae_cf_tf.data.formats.base import Format, ReaderOptions
from vae_cf_tf.data.formats.columns import Columns, columns_of
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.text import number_fault, user_errors
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say

_ROWS = 1 << 20  # read at a time


class Parquet(Format):
    """A Parquet file: ids are text, bytes or whole numbers, ratings are numbers."""

    accepts = "ratings or interactions as .parquet"

    def sniff(self, path: Path) -> bool:
        with user_errors(path), open(path, "rb") as f:
            return f.read(4) == b"PAR1" or path.suffix in (".parquet", ".pq")

    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Interactions:
        [path] = files
        columns = _columns(path, options)
        say(f"Reading {path}: {columns.told(options.threshold)}")
        ids = [columns.names[columns.user], columns.names[columns.item]]
        rating = [] if columns.rating is None else [columns.names[columns.rating]]
        with user_errors(path), pa.parquet.ParquetFile(path, read_dictionary=ids) as file:
            return read_batches(file.iter_batches(batch_size=_ROWS, columns=ids + rating), columns)


def read_batches(batches: Iterable[pa.RecordBatch], columns: Columns) -> Interactions:
    """The log in Arrow batches that have these columns.

    Raises: as `EventLog` does.
    """
    ids = [columns.names[columns.user], columns.names[columns.item]]
    rating = [] if columns.rating is None else [columns.names[columns.rating]]
    log, rows = EventLog(columns.ids), 0
    for batch in batches:
        ratings = [_numbers(batch.column(name), rows) for name in rating]
        log.add(batch.column(ids[0]), batch.column(ids[1]), *ratings)
        rows += len(batch)
    return log.interactions()


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
    if columns.rating is not None and not _is_rating(schema.field(columns.rating).type):
        kind = schema.field(columns.rating).type
        raise UserError(f"{path}: column {schema.names[columns.rating]} is of type {kind}; ratings are numbers")
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


def _numbers(array: pa.Array, rows: int) -> pa.Array:
    """Ratings as numbers, text too. Raises BadEvent for the first that is none; `rows` were read before these."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not _is_text(array.type):
        return array
    texts = array.to_pylist()
    for row, text in enumerate(texts):
        if wrong := number_fault(text or "", "rating"):
            raise BadEvent(rows + row, wrong)
    return pc.utf8_trim(array.cast(pa.string()), " \t").cast(pa.float32())
