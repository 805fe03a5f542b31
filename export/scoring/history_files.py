"""Reads files of histories: JSON lines, Parquet, or TFRecord of tf.train.Example.

A row has a `history`, a list of raw item ids, and may have a `user`, which is carried over as it is, and the rules of
`recommend_filtered`: `candidates` and `exclude`, lists of raw item ids, and `include_history`.
"""

import dataclasses
import itertools
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
LISTS = ("history", "candidates", "exclude")  # the columns of item ids
_CELLS = 1 << 18  # item ids of a Parquet file that are held at a time
_NANOSECONDS = pa.time64("ns")  # which Python's `time` would round


class Row(NamedTuple):
    user: Any  # with the type that the file gives it, but times as Arrow's whole numbers; None where null or missing
    history: list[str]
    rules: messages.Rules = messages.Rules()


class Survey(NamedTuple):
    """What a whole file holds.

    Attributes:
      rows: their number.
      ids: item ids in the histories, repeats included.
      unknown: those of them that are not in the catalogue.
      user_types: types of the users; more than one only in JSON lines and TFRecord; () where the file has no users.
      binary_users: whether a user is bytes that are no UTF-8.
      has_rules: whether a row has a rule of what may be recommended.
    """

    rows: int
    ids: int
    unknown: int
    user_types: tuple[pa.DataType, ...]
    binary_users: bool
    has_rules: bool = False


class HistoryFile:
    """A file of histories, a row a user, as a source of a scoring job.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path):
        self._path, self.kind = path, kind_of(path)

    def rows(self) -> Iterator[Row]:
        return rows(self._path)

    def survey(self, known: frozenset[str]) -> Survey:
        return survey(self._path, known)


def kind_of(path: Path) -> str:
    if path.suffix not in KINDS:
        raise UserError(f"{path}: the kind of file is told by its ending, one of {', '.join(KINDS)}. Rename it.")
    return KINDS[path.suffix]


def check_file(path: Path) -> None:
    """Raises UserError where `path` is no file that can be read twice."""
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give one file of histories as --input.")
    if not path.exists():
        raise UserError(f"There is no file {path}. Check --input.")
    if not path.is_file():
        raise UserError(f"{path} is no regular file, and the input is read twice. Write it to a file first.")


def survey(path: Path, known: frozenset[str]) -> Survey:
    """Reads and checks every row, so that a bad one is found before the first answer; `known`: the catalogue."""
    tally = Tally()
    for row in rows(path):
        tally.add(row, known)
    kind = kind_of(path)
    if kind == "parquet":
        schema = pq.read_schema(path)
        return tally.survey(tuple(schema.field(n).type for n in schema.names if n == "user"))
    return tally.survey(tally.user_types(pa.float32() if kind == "tfrecord" else pa.float64()))


@dataclasses.dataclass
class Tally:
    """Counts rows as they are read; `types` are names of the users' types, `low` and `high` bound the whole numbers."""

    rows: int = 0
    ids: int = 0
    unknown: int = 0
    low: int = 0
    high: int = 0
    has_rules: bool = False
    types: frozenset[str] = frozenset()

    def add(self, row: Row, known: frozenset[str]) -> None:
        ids, unknown = catalogue.count(row.history, known)
        self.rows, self.ids, self.unknown = self.rows + 1, self.ids + ids, self.unknown + unknown
        self.has_rules = self.has_rules or any(row.rules)
        if (name := type(as_text(row.user)).__name__) not in self.types:
            self.types |= {name}
        if type(row.user) is int:
            self.low, self.high = min(self.low, row.user), max(self.high, row.user)

    def with_another(self, other: "Tally") -> "Tally":
        """That of the rows of both."""
        return Tally(
            self.rows + other.rows,
            self.ids + other.ids,
            self.unknown + other.unknown,
            min(self.low, other.low),
            max(self.high, other.high),
            self.has_rules or other.has_rules,
            self.types | frozenset(other.types),
        )

    def user_types(self, of_floats: pa.DataType) -> tuple[pa.DataType, ...]:
        """Types of the users of a file without a type for a column."""
        types = []
        if {"str", "bytes"} & self.types:
            types.append(pa.binary() if "bytes" in self.types else pa.string())
        if "int" in self.types and (self.low < 0 or self.high < 2**63):
            types.append(pa.int64())
        if self.high >= 2**63:
            types.append(pa.uint64())
        if "float" in self.types:
            types.append(of_floats)
        return tuple(types)

    def survey(self, user_types: tuple[pa.DataType, ...]) -> Survey:
        return Survey(self.rows, self.ids, self.unknown, user_types, "bytes" in self.types, self.has_rules)


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
    except BadRow as error:
        raise UserError(f"{path}, row {number + 1}: {error}") from error
    except DecodeError as error:
        raise UserError(f"{path}, row {number + 1}: it is no tf.Example.") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} cannot be read as {kind} (after row {number}): {reason}") from error


class BadRow(Exception):
    """The row after the last one that was read is wrong. The text says how."""


def _json_lines(path: Path) -> Iterator[Row]:
    with open(path, "rb") as file:
        blank = False
        for line in file:
            if not line.strip():
                blank = True  # no error at the end of the file
                continue
            if blank:
                raise BadRow("it is blank. Drop it, or give it an empty history.")
            yield json_row(line)


def json_row(line: bytes | str) -> Row:
    """The row of a line of JSON. Raises BadRow."""
    try:
        row = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"it is not JSON ({error}). Correct or drop it.") from error
    if not isinstance(row, dict):
        raise BadRow(f"it is no JSON object. Received: {_short(row)}")
    return _checked(row)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _checked(row: dict[str, Any]) -> Row:
    """A row of JSON lines or of a tf.Example; booleans are neither ids nor users."""
    user = row.get("user")
    given: list[Any] = [row.get(name) for name in LISTS]
    given[1:] = [[] if ids is None else ids for ids in given[1:]]
    for name, ids in zip(LISTS, given, strict=True):
        if not isinstance(ids, list) or not set(map(type, ids)) <= {str, int}:
            needs = "it needs `history`," if name == "history" else f"`{name}` is"
            raise BadRow(f"{needs} a list of ids that are texts or whole numbers. Received: {_short(row)}")
    include = row.get("include_history")
    if include not in (None, False, True):  # 0 and 1 are equal to these
        raise BadRow(f"`include_history` is true or false. Received: {_short(include)}")
    if user is not None and type(user) not in (str, bytes, int, float):
        raise BadRow(f"`user` is a text or a number. Received: {_short(user)}")
    if type(user) is float and not math.isfinite(user):
        raise BadRow(f"`user` is no number that JSON can hold. Received: {_short(user)}")
    if type(user) is int and not -(2**63) <= user < 2**64:
        raise BadRow(f"`user` is beyond 64 bits. Write it as a text. Received: {_short(user)}")
    history, candidates, exclude = (list(map(str, ids)) for ids in given)
    texts = [*history, *candidates, *exclude, user if type(user) is str else ""]
    if not messages.is_utf8("".join(texts)):
        raise BadRow(f"a text holds half a character (\\ud800 to \\udfff). Received: {_short(row)}")
    return Row(user, history, messages.Rules(candidates, exclude, bool(include)))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _parquet(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        schema = file.schema_arrow
        columns = check_columns(str(path), schema)
        for batch in file.iter_batches(_rows_at_a_time(file.metadata), columns=columns):
            yield from table_rows(batch)


def check_columns(name_of: str, schema: pa.Schema) -> list[str]:
    """The names of the columns that are read. Raises UserError, which begins with `name_of`, for a table of others."""
    columns = [name for name in ("user", *LISTS, "include_history") if name in schema.names]
    if "history" not in columns or any(schema.names.count(name) > 1 for name in columns):
        names = ", ".join(schema.names)[:80]
        raise UserError(f"{name_of} needs one column `history` and at most one `user`. Found: {names}")
    for name in LISTS:
        if name in columns and not _holds_ids(schema.field(name).type):
            raise UserError(
                f"{name_of}: `{name}` is a list of texts or whole numbers. Received: {schema.field(name).type}"
            )
    if "include_history" in columns and not pa.types.is_boolean(schema.field("include_history").type):
        raise UserError(f"{name_of}: `include_history` is a boolean. Received: {schema.field('include_history').type}")
    user_type = schema.field("user").type if "user" in schema.names else pa.null()
    if user_type != _NANOSECONDS and _has_nanoseconds(user_type):
        raise UserError(
            f"{name_of}: `user` holds times within a nested type, whose nanoseconds would be lost. Give one value "
            f"a user. Received: {user_type}"
        )
    return columns


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
    lists = tuple(f"{name}." for name in LISTS)
    longest = max((c.num_values / max(n, 1) for c, n in chunks if c.path_in_schema.startswith(lists)), default=1)
    return int(min(max(_CELLS / max(longest, 1), 1), 1024))


def table_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of a batch with the columns that `check_columns` names. Raises BadRow."""
    has, nothing = set(batch.schema.names), [None] * len(batch)
    users = _users(batch.column("user")) if "user" in has else nothing
    include = batch.column("include_history").to_pylist() if "include_history" in has else nothing
    lists = [_id_lists(name, batch.column(name)) if name in has else itertools.repeat([]) for name in LISTS]
    for user, included, history, candidates, exclude in zip(users, include, *lists, strict=False):
        yield Row(user, history, messages.Rules(candidates, exclude, bool(included)))


def _id_lists(name: str, column: pa.Array) -> Iterator[list[str]]:
    """The lists of ids of a column; one of rules that is null is empty."""
    lengths = pc.list_value_length(column).to_pylist()
    values = column.flatten()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    ids = values.cast(pa.large_string()).to_numpy(zero_copy_only=False).tolist()
    start, nulls = 0, values.null_count > 0
    for length in lengths:
        if length is None and name == "history":
            raise BadRow("`history` is null. Give it an empty list.")
        row = ids[start : start + (length or 0)]
        if nulls and None in row:
            raise BadRow(f"`{name}` holds a null. Drop it.")
        yield row
        start += length or 0


def _users(column: pa.Array) -> list[Any]:
    """The users as Python values. Dates and times stay the whole numbers that Arrow holds, and Arrow takes them back:
    Python's have no nanoseconds and no year after 9999."""
    if pa.types.is_temporal(column.type):
        column = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64())
    return column.to_pylist()


def _tfrecord(path: Path) -> Iterator[Row]:
    for values in tfrecord.read(path, ("user", *LISTS, "include_history")):
        row: dict[str, Any] = {name: [as_text(value) for value in values[name]] for name in values}
        for name in {"user", "include_history"} & set(row):
            if len(row[name]) > 1:
                raise BadRow(f"`{name}` holds {len(row[name])} values. It takes one.")
            row[name] = row[name][0] if row[name] else None
        yield _checked(row)


def as_text(value: Any) -> Any:
    """The text of bytes that are UTF-8; any other value as it is."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


_READERS = {"jsonl": _json_lines, "parquet": _parquet, "tfrecord": _tfrecord}
