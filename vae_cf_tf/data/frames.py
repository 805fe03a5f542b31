"""Data frames of pandas, Polars, PyArrow and others that give Arrow streams: as a log, as titles, and as ids."""

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from vae_cf_tf.data.events import BadEvent, NoEvents, clean_ids
from vae_cf_tf.data.formats.base import ReaderOptions
from vae_cf_tf.data.formats.columns import Columns, read_with_times
from vae_cf_tf.data.formats.parquet import columns_in, read_batches
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.text import one_line
from vae_cf_tf.data.titles import TITLE_COLUMNS
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say, silent

_DEFAULT = ReaderOptions()


def is_frame(data: Any) -> bool:
    """Whether `data` is a table that gives an Arrow stream: a frame of pandas, Polars, PyArrow, DuckDB, …"""
    has_columns = hasattr(data, "columns") or hasattr(data, "schema")  # a column alone gives a stream too
    return has_columns and hasattr(data, "__arrow_c_stream__")


def read(frame: Any, options: ReaderOptions = _DEFAULT, say: Say = silent) -> Interactions:
    """Reads a log from a frame: a row an event, as a Parquet file of the same columns would be read.

    Args:
      frame: see `is_frame`.
      options: which columns are what; titles are not read.
      say: is told what is taken from the frame.

    Raises:
      UserError: a column that is missing or of no use, or a row that is refused.
    """
    name, table = _named(frame), _table(frame)
    columns = columns_in(name, table.schema, options)
    say(f"Reading {name}: {columns.told(options.threshold)}")

    def read_columns(columns: Columns) -> Interactions:
        try:
            return read_batches(table.to_batches(), columns)
        except BadEvent as error:
            raise UserError(f"{name}, row {error.row + 1}: {error}; correct or drop the row") from error

    try:
        return read_with_times(read_columns, columns, options, say)
    except NoEvents as error:
        raise UserError(f"{name} holds no rows; give one with interactions") from error


def id_columns(frame: Any, options: ReaderOptions = _DEFAULT) -> tuple[list[str], list[str]]:
    """User and item ids of a frame, as text, a row each; a frame may be empty."""
    if not _table(frame).num_rows:
        return [], []
    log = read(frame, options)
    return log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist()


def titles(given: Any) -> dict[str, str]:
    """Item id → title.

    Args:
      given: a mapping, or a frame with the ids in its first column and the titles in the one called title, or else in
        its second.
    """
    if isinstance(given, Mapping):
        ids, texts = list(given), list(given.values())
    elif is_frame(given):
        table = _table(given)
        if table.num_columns < 2:
            raise UserError(f"{_named(given)} of item titles needs a column of ids and one of titles.")
        plain = ["".join(c for c in name.lower() if c.isalpha()) for name in table.column_names]
        column = next((plain.index(name) for name in TITLE_COLUMNS if name in plain), 1)
        ids, texts = table.column(0).to_pylist(), table.column(column).to_pylist()
    else:
        raise UserError(f"item_titles takes a path, a dict or a DataFrame. Received: {type(given).__name__}.")
    return {item: str(text).strip() for item, text in zip(id_texts(ids), texts, strict=True) if text is not None}


def id_texts(ids: Iterable[Any]) -> list[str]:
    """Ids as the readers write them: text without surrounding blanks, and a whole number without ".0".

    Raises:
      UserError: a value that is missing, or a number that is not whole.
    """
    return clean_ids(pa.array([_id_text(value) for value in ids], pa.string())).to_pylist()


def _id_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        raise UserError(f"An id is missing. Received: {value!r}. Drop it.")
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        if not float(value).is_integer():
            raise UserError(
                f"An id is a number that is not whole. Received: {value!r}. Numbers are ids if they are whole."
            )
        return str(int(float(value)))
    return str(value)


def _named(frame: Any) -> str:
    """What messages call a frame."""
    return f"the {type(frame).__module__.partition('.')[0]} {type(frame).__name__}"


def _table(frame: Any) -> pa.Table:
    """The frame as an Arrow table; a named index of pandas is a column. Raises UserError where there is no way."""
    try:
        if isinstance(frame, pd.DataFrame):
            has_names = any(name is not None for name in frame.index.names)
            return pa.Table.from_pandas(frame.reset_index() if has_names else frame, preserve_index=False)
        return pa.table(frame)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UserError(
            f"{_named(frame)} cannot be read ({one_line(error)}). A column holds values of one kind: turn mixed ids "
            "into text first, for example by astype(str)."
        ) from error
