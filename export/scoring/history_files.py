"""Reads files of histories: JSON lines, Parquet, or TFRecord of tf.train.Example.

A row has a `history`, a list of raw item ids, and may have a `user`, which is carried over as it is.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from google.protobuf.message import DecodeError

from export import catalogue
from export.client import messages
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.errors import UserError

if TYPE_CHECKING:
    from export.scoring import tfrecord
else:
    tfrecord = LazyModule("export.scoring.tfrecord")

KINDS = {".jsonl": "jsonl", ".parquet": "parquet", ".tfrecord": "tfrecord"}
_CELLS = 1 << 18  # item ids of a Parquet file that are held at a time
_NANOSECONDS = pa.time64("ns")  # which Python's `time` would round


class Row(NamedTuple):
    user: Any  # with the type that the file gives it, but times as Arrow's whole numbers; None where null or missing
    history: list[str]


class Survey(NamedTuple):
    """What a whole file holds.

    Attributes:
      rows: their number.
      ids: item ids in the histories, repeats included.
      unknown: those of them that are not in the catalogue.
      user_types: types of the users; more than one only in JSON lines; () where the file has no users.
      binary_users: whether a user is bytes that are no UTF-8.
    """

    rows: int
    ids: int
    unknown: int
    user_types: tuple[pa.DataType, ...]
    binary_users: bool


def kind_of(path: Path) -> str:
    if path.suffix not in KINDS:
        raise UserError(f"{path}: the kind of file is told by its ending, one of {', '.join(KINDS)}. Rename it.")
    return KINDS[path.suffix]


def check_file(path: Path) -> None:
    """Raises UserError where `path` is no file of a known kind that can be read twice."""
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give one file of histories as --input.")
    if not path.exists():
        raise UserError(f"There is no file {path}. Check --input.")
    if not path.is_file():
        raise UserError(f"{path} is no regular file, and the input is read twice. Write it to a file first.")
    kind_of(path)


def survey(path: Path, known: frozenset[str]) -> Survey:
    """Reads and checks every row, so that a bad one is found before the first answer; `known`: the catalogue."""
    number = ids = unknown = low = high = 0
    types: set[type] = set()
    for row in rows(path):
        more, missing = catalogue.count(row.history, known)
        number, ids, unknown = number + 1, ids + more, unknown + missing
        types.add(type(as_text(row.user)))
        if type(row.user) is int:
            low, high = min(low, row.user), max(high, row.user)
    binary = bytes in types
    if kind_of(path) == "parquet":
        schema = pq.read_schema(path)
        return Survey(number, ids, unknown, tuple(schema.field(n).type for n in schema.names if n == "user"), binary)
    user_types = []
    if {str, bytes} & types:
        user_types.append(pa.binary() if binary else pa.string())
    if int in types and (low < 0 or high < 2**63):
        user_types.append(pa.int64())
    if high >= 2**63:
        user_types.append(pa.uint64())
    if float in types:
        user_types.append(pa.float32() if kind_of(path) == "tfrecord" else pa.float64())
    return Survey(number, ids, unknown, tuple(user_types), binary)


def rows(path: Path) -> Iterator[Row]:
    """The rows of a file, few in memory at a time.

    Raises:
      UserError: names the file, the row (the line of JSON lines), and what is wrong.
    """
    kind, number = kind_of(path), 0
    try:
        for row in _READERS[kind](path):
            number += 1
            yield row
    except _BadRow as error:
        raise UserError(f"{path}, row {number + 1}: {error}") from error
    except DecodeError as error:
        raise UserError(f"{path}, row {number + 1}: it is no tf.Example.") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} cannot be read as {kind} (after row {number}): {reason}") from error


class _BadRow(Exception):
    """What is wrong with the row behind the last one."""


def _json_lines(path: Path) -> Iterator[Row]:
    with open(path, "rb") as file:
        blank = False
        for line in file:
            if not line.strip():
                blank = True  # no error at the end of the file
                continue
            if blank:
                raise _BadRow("it is blank. Drop it, or give it an empty history.")
            try:
                row = json.loads(line, parse_constant=_no_constant)
            except (ValueError, RecursionError) as error:
                raise _BadRow(f"it is not JSON ({error}). Correct or drop it.") from error
            if not isinstance(row, dict):
                raise _BadRow(f"it is no JSON object. Received: {_short(row)}")
            yield _checked(row.get("user"), row.get("history"), row)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _checked(user: Any, history: Any, row: Any) -> Row:
    """A row of JSON lines or of a tf.Example; booleans are neither ids nor users."""
    if not isinstance(history, list) or not set(map(type, history)) <= {str, int}:
        raise _BadRow(f"it needs `history`, a list of ids that are texts or whole numbers. Received: {_short(row)}")
    if user is not None and type(user) not in (str, bytes, int, float):
        raise _BadRow(f"`user` is a text or a number. Received: {_short(user)}")
    if type(user) is float and not math.isfinite(user):
        raise _BadRow(f"`user` is no number that JSON can hold. Received: {_short(user)}")
    if type(user) is int and not -(2**63) <= user < 2**64:
        raise _BadRow(f"`user` is beyond 64 bits. Write it as a text. Received: {_short(user)}")
    ids = list(map(str, history))
    if not messages.is_utf8("".join(ids) + (user if type(user) is str else "")):
        raise _BadRow(f"a text holds half a character (\\ud800 to \\udfff). Received: {_short(row)}")
    return Row(user, ids)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _parquet(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        schema = file.schema_arrow
        columns = [name for name in ("user", "history") if name in schema.names]
        if schema.names.count("history") != 1 or schema.names.count("user") > 1:
            names = ", ".join(schema.names)[:80]
            raise UserError(f"{path} needs one column `history` and at most one `user`. Found: {names}")
        if not _holds_ids(schema.field("history").type):
            raise UserError(
                f"{path}: `history` is a list of texts or whole numbers. Received: {schema.field('history').type}"
            )
        user_type = schema.field("user").type if "user" in schema.names else pa.null()
        if user_type != _NANOSECONDS and _has_nanoseconds(user_type):
            raise UserError(
                f"{path}: `user` holds times within a nested type, whose nanoseconds would be lost. Give one value "
                f"a user. Received: {user_type}"
            )
        for batch in file.iter_batches(_rows_at_a_time(file.metadata), columns=columns):
            yield from _parquet_rows(batch)


def _holds_ids(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    item = kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "integer", "null")
    return any(getattr(pa.types, f"is_{test}")(item) for test in tests)


def _has_nanoseconds(kind: pa.DataType) -> bool:
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return kind == _NANOSECONDS or any(map(_has_nanoseconds, inner))


def _rows_at_a_time(metadata: pq.FileMetaData) -> int:
    """So many rows that they hold about _CELLS ids, at most 1,024."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [(group.column(i), group.num_rows) for group in groups for i in range(group.num_columns)]
    longest = max((c.num_values / max(n, 1) for c, n in chunks if c.path_in_schema.startswith("history.")), default=1)
    return int(min(max(_CELLS / max(longest, 1), 1), 1024))


def _parquet_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    history = batch.column("history")
    users = _users(batch.column("user")) if "user" in batch.schema.names else [None] * len(batch)
    lengths = pc.list_value_length(history).to_pylist()
    values = history.flatten()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    ids = values.cast(pa.large_string()).to_numpy(zero_copy_only=False).tolist()
    start, nulls = 0, values.null_count > 0
    for user, length in zip(users, lengths, strict=True):
        if length is None:
            raise _BadRow("`history` is null. Give it an empty list.")
        row = ids[start : start + length]
        if nulls and None in row:
            raise _BadRow("`history` holds a null. Drop it.")
        yield Row(user, row)
        start += length


def _users(column: pa.Array) -> list[Any]:
    """The users as Python values. Dates and times stay the whole numbers that Arrow holds, and Arrow takes them back:
    Python's have no nanoseconds and no year after 9999."""
    if pa.types.is_temporal(column.type):
        column = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64())
    return column.to_pylist()


def _tfrecord(path: Path) -> Iterator[Row]:
    for values in tfrecord.read(path, ("user", "history")):
        users = values.get("user", [])
        if len(users) > 1:
            raise _BadRow(f"`user` holds {len(users)} values. It takes one.")
        history = [as_text(item) for item in values["history"]] if "history" in values else None
        yield _checked(as_text(users[0]) if users else None, history, values)


def as_text(value: Any) -> Any:
    """The text of bytes that are UTF-8; any other value as it is."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


_READERS = {"jsonl": _json_lines, "parquet": _parquet, "tfrecord": _tfrecord}
