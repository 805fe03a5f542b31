"""Files of histories in, files of recommendations out: JSON lines, Parquet, or TFRecord of tf.train.Example.

A row has a `history`, a list of raw item ids, and may have a `user`, which is carried over as it is. A recommendation
has `user` where the input has that column, `item_ids` and `scores`. Files are read and written a few rows at a time.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from google.protobuf.message import DecodeError

from export import catalogue, messages
from vae_cf_tf import quiet
from vae_cf_tf.errors import UserError

KINDS = {".jsonl": "jsonl", ".parquet": "parquet", ".tfrecord": "tfrecord"}
_CELLS = 1 << 18  # item ids of a Parquet file that are held at a time
_VALUES = 1 << 20  # recommended items in a Parquet row group


class Row(NamedTuple):
    user: Any  # with the type that the file gives it; None where it is null or missing
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
        types.add(type(_text(row.user)))
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
            found = ", ".join(schema.names)[:80]
            raise UserError(f"{path} needs one column `history` and at most one `user`. Found: {found}")
        if not _holds_ids(schema.field("history").type):
            raise UserError(
                f"{path}: `history` is a list of texts or whole numbers. Received: {schema.field('history').type}"
            )
        for batch in file.iter_batches(_rows_at_a_time(file.metadata), columns=columns):
            yield from _parquet_rows(batch)


def _holds_ids(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    item = kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "integer", "null")
    return any(getattr(pa.types, f"is_{test}")(item) for test in tests)


def _rows_at_a_time(metadata: pq.FileMetaData) -> int:
    """So many rows that they hold about _CELLS ids, at most 1,024."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [(group.column(i), group.num_rows) for group in groups for i in range(group.num_columns)]
    longest = max((c.num_values / max(n, 1) for c, n in chunks if c.path_in_schema.startswith("history.")), default=1)
    return int(min(max(_CELLS / max(longest, 1), 1), 1024))


def _parquet_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    history = batch.column("history")
    users = batch.column("user").to_pylist() if "user" in batch.schema.names else [None] * len(batch)
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


def _tfrecord(path: Path) -> Iterator[Row]:
    quiet.import_tensorflow()
    import tensorflow as tf

    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    while True:
        try:
            record = next(records, None)
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        if record is None:
            return
        try:
            feature = tf.train.Example.FromString(record).features.feature
        except DecodeError as error:
            raise _BadRow("it is no tf.Example.") from error
        values = {name: _values(feature[name]) for name in ("user", "history") if name in feature}
        users = values.get("user", [])
        if len(users) > 1:
            raise _BadRow(f"`user` holds {len(users)} values. It takes one.")
        history = [_text(item) for item in values["history"]] if "history" in values else None
        yield _checked(_text(users[0]) if users else None, history, values)


def _text(value: Any) -> Any:
    """The text of bytes that are UTF-8; any other value as it is."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _values(feature: Any) -> list:
    """The values of a tf.train.Feature; [] where it has none of the three lists."""
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


_READERS = {"jsonl": _json_lines, "parquet": _parquet, "tfrecord": _tfrecord}


def check_users(kind: str, survey: Survey) -> None:
    """Raises UserError where files of `kind` cannot hold such users."""
    if kind == "parquet":
        if len(survey.user_types) > 1:
            names = " and ".join(map(str, survey.user_types))
            raise UserError(f"The users are {names}, and a Parquet column has one type. Give --kind=jsonl.")
        return
    if kind == "jsonl" and survey.binary_users:
        raise UserError("Some users are bytes that are no UTF-8, which JSON cannot hold. Give --kind=parquet.")
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


class Writer:
    """Writes recommendations to a file, request by request; a context manager.

    Args:
      path: of the file.
      kind: one of KINDS' values.
      user_types: as in `Survey`; () leaves the users out.
    """

    def __init__(self, path: Path, kind: str, user_types: tuple[pa.DataType, ...]):
        self._users = bool(user_types)
        self._file = _WRITERS[kind](path, user_types)

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
        self._file.write(users if self._users else None, ids, scores, (ids != b"").sum(axis=1))


class _JsonLines:
    def __init__(self, path: Path, user_types: tuple[pa.DataType, ...]):
        self._file = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        self.close = self._file.close

    def write(self, users: list[Any] | None, ids: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> None:
        to_json = json.JSONEncoder(ensure_ascii=False).encode
        for i, count in enumerate(counts):
            user = "" if users is None else f'"user": {to_json(_json_user(users[i]))}, '
            items = to_json([item.decode() for item in ids[i, :count]])
            # Nine digits give a float32 exactly, in a third of the time that json takes for the seventeen of a float64.
            values = ", ".join([f"{score:.9g}" for score in scores[i, :count].tolist()])
            self._file.write(f'{{{user}"item_ids": {items}, "scores": [{values}]}}\n')


def _json_user(user: Any) -> Any:
    user = _text(user)
    return None if isinstance(user, float) and not math.isfinite(user) else user  # pandas' NaN is a missing number


class _Parquet:
    def __init__(self, path: Path, user_types: tuple[pa.DataType, ...]):
        fields = [("user", kind) for kind in user_types]
        fields += [("item_ids", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))]
        self._schema = pa.schema(fields)
        self._file = pq.ParquetWriter(path, self._schema)
        self._waiting: list[pa.RecordBatch] = []
        self._values = 0

    def write(self, users: list[Any] | None, ids: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> None:
        offsets = pa.array(np.concatenate([[0], counts.cumsum()]), pa.int32())
        filled = np.arange(ids.shape[1]) < counts[:, None]
        columns = [] if users is None else [pa.array(users, self._schema.field("user").type)]
        for values in (pa.array(ids[filled], pa.string()), pa.array(scores[filled], pa.float32())):
            columns.append(pa.ListArray.from_arrays(offsets, values))
        self._waiting.append(pa.record_batch(columns, self._schema))
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


class _TfRecord:
    def __init__(self, path: Path, user_types: tuple[pa.DataType, ...]):
        import tensorflow as tf

        self._tf = tf
        self._file = tf.io.TFRecordWriter(str(path))
        self.close = self._file.close

    def write(self, users: list[Any] | None, ids: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> None:
        for i, count in enumerate(counts):
            example = self._tf.train.Example()
            feature = example.features.feature
            user = None if users is None else users[i]
            if isinstance(user, int):
                feature["user"].int64_list.value.append(user)
            elif isinstance(user, float):
                feature["user"].float_list.value.append(user)
            elif user is not None:
                feature["user"].bytes_list.value.append(user if isinstance(user, bytes) else user.encode())
            feature["item_ids"].bytes_list.value.extend(ids[i, :count].tolist())
            feature["scores"].float_list.value.extend(scores[i, :count].tolist())
            self._file.write(example.SerializeToString(deterministic=True))


_WRITERS = {"jsonl": _JsonLines, "parquet": _Parquet, "tfrecord": _TfRecord}
