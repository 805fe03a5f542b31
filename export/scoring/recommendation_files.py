"""Writes files of recommendations: JSON lines, CSV, Parquet, or TFRecord of tf.train.Example.

A row has `user` where the histories have that column, `item_ids` and `scores`. Rows are written as they come.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from export.scoring.history_files import Survey, as_text
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.errors import UserError

if TYPE_CHECKING:
    from export.scoring import tfrecord
else:
    tfrecord = LazyModule("export.scoring.tfrecord")

_VALUES = 1 << 20  # recommended items in a Parquet row group


def check_users(kind: str, survey: Survey) -> None:
    """Raises UserError where files of `kind` cannot hold such users."""
    if kind == "parquet":
        if len(survey.user_types) > 1:
            names = " and ".join(map(str, survey.user_types))
            raise UserError(f"The users are {names}, and a Parquet column has one type. Give --kind=jsonl.")
        return
    if kind in _LINES and survey.binary_users:
        raise UserError(f"Some users are bytes that are no UTF-8, which {kind} cannot hold. Give --kind=parquet.")
    for user_type in survey.user_types:
        held = user_type.value_type if pa.types.is_dictionary(user_type) else user_type
        if held not in _USERS[kind]:
            raise UserError(f"A {kind} file cannot hold users of type {user_type}. Give --kind=parquet.")


_WHOLE = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()]
_TEXT = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.null()]
_USERS = {
    "jsonl": [*_TEXT, *_WHOLE, pa.uint64(), pa.float32(), pa.float64(), pa.bool_()],
    "tfrecord": [*_TEXT, *_WHOLE, pa.float32()],
}
_USERS["csv"] = _USERS["jsonl"]


class Writer:
    """Writes recommendations to a file, request by request; a context manager.

    Args:
      path: of the file.
      kind: jsonl, csv, parquet or tfrecord.
      user_types: as in `Survey`; () leaves the users out.
    """

    def __init__(self, path: Path, kind: str, user_types: tuple[pa.DataType, ...]):
        self._users = bool(user_types)
        self._file = _WRITERS[kind](path, user_types=user_types)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, users: list[Any], ids: np.ndarray, scores: np.ndarray) -> None:
        """Adds rows.

        Args:
          users: one of each row.
          ids: bytes [rows, k], best first, "" behind the last.
          scores: float32 [rows, k].
        """
        self._file.write(users if self._users else None, ids, scores, counts_of(ids))


def counts_of(ids: np.ndarray) -> np.ndarray:
    """How many recommendations each row of ids, bytes [rows, k], has: int [rows]."""
    return (ids != b"").sum(axis=1)


class _Lines:
    def __init__(self, path: Path, kind: str, user_types: tuple[pa.DataType, ...]):
        self._file, self._kind = open(path, "w", encoding="utf-8", newline="\n"), kind  # noqa: SIM115
        self._file.writelines(f"{line}\n" for line in header(kind, bool(user_types)))
        self.close = self._file.close

    def write(self, users: list[Any] | None, ids: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> None:
        self._file.writelines(f"{line}\n" for line in lines(self._kind, users, ids, scores, counts))


def _json_user(user: Any) -> Any:
    user = as_text(user)
    return None if isinstance(user, float) and not math.isfinite(user) else user  # pandas' NaN is a missing number


def schema_of(user_types: tuple[pa.DataType, ...]) -> pa.Schema:
    """The columns of recommendations; `user_types` as in `Survey`, at most one."""
    fields = [("user", kind) for kind in user_types]
    return pa.schema([*fields, ("item_ids", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])


def record_batch(
    schema: pa.Schema, users: list[Any] | None, ids: np.ndarray, scores: np.ndarray, counts: np.ndarray
) -> pa.RecordBatch:
    """Recommendations as columns: of row i the first counts[i]. `counts`: int [rows]; `schema`: see `schema_of`."""
    offsets = pa.array(np.concatenate([[0], counts.cumsum()]), pa.int32())
    filled = np.arange(ids.shape[1]) < counts[:, None]
    columns = [] if users is None else [pa.array(users, schema.field("user").type)]
    for values in (pa.array(ids[filled], pa.string()), pa.array(scores[filled], pa.float32())):
        columns.append(pa.ListArray.from_arrays(offsets, values))
    return pa.record_batch(columns, schema)


def header(kind: str, has_users: bool) -> list[str]:
    """The lines with which a text file of `kind` begins."""
    return ["user,item_ids,scores"[0 if has_users else len("user,") :]] if kind == "csv" else []


def lines(kind: str, users: list[Any] | None, ids: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> Iterator[str]:
    """A line of a file of `kind`, without its end, for each row; other arguments as those of `record_batch`."""
    to_json = json.JSONEncoder(ensure_ascii=False).encode
    for i, count in enumerate(counts):
        items = to_json([item.decode() for item in ids[i, :count]])
        # Nine digits give a float32 exactly, in a third of the time that json takes for the seventeen of a float64.
        values = f"[{', '.join([f'{score:.9g}' for score in scores[i, :count].tolist()])}]"
        yield _LINES[kind](None if users is None else to_json(_json_user(users[i])), items, values)


def _json_line(user: str | None, items: str, scores: str) -> str:
    first = "" if user is None else f'"user": {user}, '
    return f'{{{first}"item_ids": {items}, "scores": {scores}}}'


def _csv_line(user: str | None, items: str, scores: str) -> str:
    """Each list is JSON in one field. A user that is a text has no JSON quotes; a missing user is an empty field."""
    fields = [items, scores]
    if user is not None:
        value = json.loads(user)
        fields.insert(0, value if isinstance(value, str) else "" if value is None else user)
    return ",".join(f'"{field.replace(chr(34), chr(34) * 2)}"' if _QUOTED.search(field) else field for field in fields)


_QUOTED = re.compile(r'[",\r\n]')
_LINES = {"jsonl": _json_line, "csv": _csv_line}
TEXT_KINDS = frozenset(_LINES)


class _Parquet:
    def __init__(self, path: Path, user_types: tuple[pa.DataType, ...]):
        self._schema = schema_of(user_types)
        self._file = pq.ParquetWriter(path, self._schema)
        self._waiting: list[pa.RecordBatch] = []
        self._values = 0

    def write(self, users: list[Any] | None, ids: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> None:
        self._waiting.append(record_batch(self._schema, users, ids, scores, counts))
        self._values += int(counts.sum())
        if self._values >= _VALUES:
            self._flush()

    def _flush(self) -> None:
        """Writes what is waiting as one row group: readers are slow on many small ones."""
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._file.write_table(table, max(len(table), 1))
        self._waiting, self._values = [], 0

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._file.close()


def _tfrecord(path: Path, user_types: tuple[pa.DataType, ...]) -> "tfrecord.RecommendationWriter":
    return tfrecord.RecommendationWriter(path)


_WRITERS: dict[str, Callable[..., Any]] = {
    "jsonl": functools.partial(_Lines, kind="jsonl"),
    "csv": functools.partial(_Lines, kind="csv"),
    "parquet": _Parquet,
    "tfrecord": _tfrecord,
}
