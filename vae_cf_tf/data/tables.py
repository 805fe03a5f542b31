"""Text tables (CSV, TSV, MovieLens' `::`), plain or gzipped: read fast in blocks, or strictly, record by record."""

import contextlib
import csv
import functools
import gzip
import io
import itertools
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv

from vae_cf_tf.data.events import BadEvent, NoEvents
from vae_cf_tf.errors import UserError

_BLOCK = 1 << 24  # bytes parsed at a time
_RECORDS = 1 << 16  # records read at a time by the strict reader
_GZIP = b"\x1f\x8b"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what the error handler surrogateescape makes of such a byte
# What pyarrow, gzip and the file system raise for a file that is not what it should be.
BAD_FILE = (pa.ArrowException, OSError, EOFError, ValueError, zlib.error)

Fault = Callable[[list[str]], str | None]
"""Takes a record's fields and returns what is wrong with them, or None."""
T = TypeVar("T")


class Chunks(io.RawIOBase):
    """A readable stream over an iterable of bytes."""

    def __init__(self, chunks: Iterable[bytes]):
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def replaced(chunks: Iterable[bytes], old: bytes, new: bytes) -> Iterator[bytes]:
    """Yields the bytes of `chunks` with `old` (one character, perhaps doubled) replaced by `new`."""
    rest = b""
    for chunk in chunks:
        chunk = (rest + chunk).replace(old, new)
        # Half of a doubled character may end a chunk.
        cut = len(chunk) - (len(old) > 1 and chunk.endswith(old[:1]))
        rest = chunk[cut:]
        yield chunk[:cut]
    yield rest


class _Watched(io.RawIOBase):
    """A stream that notes whether a quotation mark has passed. It costs 2 % of the time of reading."""

    def __init__(self, stream: pa.NativeFile):
        super().__init__()
        self._stream = stream
        self.has_quotes = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.has_quotes = self.has_quotes or b'"' in data
        return data


def is_gzip(path: Path) -> bool:
    """Whether the file is gzipped, by its first bytes. Raises UserError where its name says so and it is not."""
    with user_errors(path), open(path, "rb") as f:
        magic = f.read(2)
    if path.name.endswith(".gz") and magic != _GZIP:
        raise UserError(f"{path} is named .gz but is not gzipped; download it again, or rename it if it is plain text")
    return magic == _GZIP


@contextlib.contextmanager
def user_errors(path: Path) -> Iterator[None]:
    """Turns the errors of reading a file into one UserError line that names it."""
    try:
        yield
    except FileNotFoundError as e:
        raise UserError(f"there is no file or folder {path}; check the path") from e
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        raise UserError(f"{path} is a truncated or corrupt .gz file ({_one_line(e)}); download it again") from e
    except BAD_FILE as e:
        raise unreadable(path, getattr(e, "strerror", None) or e) from e


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, unzipped where it is gzipped."""
    return cast(BinaryIO, gzip.open(path, "rb") if is_gzip(path) else open(path, "rb"))


def first_line(path: Path) -> tuple[str, int]:
    """The first line of a text file that is not empty, and how many empty lines precede it.

    Raises: UserError for a file that is missing, empty, binary or not gzip as it should be.
    """
    with user_errors(path), open_bytes(path) as f:
        head = f.read(1 << 16)
    if head.startswith(b"PK\3\4"):
        raise UserError(f"{path} is a zip archive; unpack it and give the folder")
    if b"\0" in head:
        raise UserError(f"{path} is a binary file (or UTF-16 text); give UTF-8 text (CSV or TSV) or Parquet")
    lines = head.removeprefix(b"\xef\xbb\xbf").splitlines()
    before = next((i for i, line in enumerate(lines) if line), None)
    if before is None:
        raise UserError(f"{path} is empty; give a file with interactions")
    return lines[before].decode("utf-8", errors="replace"), before


def fields_of(line: str, separator: str, quoted: bool) -> list[str]:
    """The fields of one line. Sound and unsound quotes are taken as pyarrow takes them."""
    if not quoted:
        return line.split(separator)
    return next(csv.reader([line], delimiter=separator), [""])


def parse(
    source, separator: str, columns: int, types: dict[int, pa.DataType], skip: int = 0, quoted: bool = True
) -> Iterator[pa.RecordBatch]:
    """Parses CSV text in blocks.

    Args:
        source: a file or a pyarrow stream.
        separator: one character.
        columns: how many columns each line must have.
        types: the columns to keep, by index, in the order wanted.
        skip: lines to leave out at the start.
        quoted: whether a field may be in double quotes.

    Raises: pyarrow's errors, for a line that does not fit.
    """
    if isinstance(source, Chunks):
        source = io.BufferedReader(source, 1 << 20)
    if not isinstance(source, pa.NativeFile):
        source = pa.PythonFile(source, mode="r")
    names = [str(i) for i in range(columns)]
    return pa.csv.open_csv(
        source,
        read_options=pa.csv.ReadOptions(block_size=_BLOCK, column_names=names, skip_rows=skip),
        parse_options=pa.csv.ParseOptions(
            delimiter=separator, quote_char='"' if quoted else False, newlines_in_values=quoted
        ),
        convert_options=pa.csv.ConvertOptions(
            include_columns=[names[i] for i in types], column_types={names[i]: t for i, t in types.items()}
        ),
    )


@dataclass(frozen=True)
class Table:
    """A text file of rows and columns, of which the first line is known.

    TSV is unquoted, unless its header is quoted: quotation marks stand for themselves in most TSV files. So are `::`
    and files without a header. Other text may hold fields in double quotes.
    """

    path: Path
    separator: str
    first: list[str]  # the fields of the first line that is not empty
    before: int  # how many empty lines precede it
    header: bool  # whether the first line is a header
    quoted: bool

    @classmethod
    def open(cls, path: Path, separator: str, header: bool = True) -> "Table":
        """Reads the first line. Raises UserError as `first_line` does."""
        line, before = first_line(path)
        quoted = header and len(separator) == 1
        if separator == "\t":
            quoted = header and any(len(f) > 1 and f[0] == f[-1] == '"' for f in line.split(separator))
        return cls(path, separator, fields_of(line, separator, quoted), before, header, quoted)

    def read(self, types: dict[int, pa.DataType], fault: Fault, build: Callable[[Iterator[list[pa.Array]]], T]) -> T:
        """Reads columns into what `build` makes of them: fast, and where anything is odd, once more and strictly.

        Rows are compared with lines, since an unbalanced quotation mark swallows all lines up to the next one.

        Args:
            types: the columns to read, by index.
            fault: says what is wrong with a record. It must object to all that `build` raises an error for.
            build: takes blocks, each a list of arrays, one for each of `types`.

        Raises: UserError that names the line of the first record that is wrong.
        """
        try:
            return build(self._blocks(types, fault))
        except (*BAD_FILE, BadEvent, NoEvents) as cause:
            try:
                return build(self._strict_blocks(types, fault))
            except (*BAD_FILE, BadEvent):
                raise unreadable(self.path, cause) from cause

    @property
    def _skip(self) -> int:
        return self.before + self.header

    def _blocks(self, types: dict[int, pa.DataType], fault: Fault) -> Iterator[list[pa.Array]]:
        """Yields blocks of the columns. Raises pyarrow's errors, and ValueError where a quote swallowed a record."""
        stream = pa.input_stream(str(self.path), compression="gzip" if is_gzip(self.path) else None)
        source, separator, watched = stream, self.separator, None
        if separator == "::":
            # pyarrow separates by one byte: one that no text holds.
            separator = "\x1f"
            source = Chunks(replaced(iter(lambda: stream.read(1 << 20), b""), b"::", separator.encode()))
        elif self.quoted:
            source = watched = _Watched(stream)
        rows = 0
        for batch in parse(source, separator, len(self.first), types, self._skip, self.quoted):
            rows += len(batch)
            yield batch.columns
        if watched and watched.has_quotes and not self._lines_end_quotes(rows):
            records = 0
            for _, lines, _ in self._lines_and_fields():
                records += 1
                if len(lines) > 1 and not self._is_one_record(lines, fault):
                    raise ValueError("a quotation mark is not closed")
            if records != rows:
                raise ValueError("the csv module finds other records")

    def _lines_end_quotes(self, rows: int) -> bool:
        """Whether no quoted field goes on behind the end of its line: there are as many lines as `rows`, and the last
        line, which may lack its end, is closed."""
        lines, is_inside, tail = -int(self.header), False, b""
        with open_bytes(self.path) as f:
            while chunk := f.read(1 << 20):
                characters = np.frombuffer(chunk, np.uint8)
                is_text = (characters != ord("\n")) & (characters != ord("\r"))
                lines += int(np.count_nonzero(is_text[1:] & ~is_text[:-1])) + int(is_text[0] and not is_inside)
                is_inside = bool(is_text[-1])
                tail = (tail + chunk)[-(1 << 16) :]
        last = tail.decode("utf-8", "replace").rstrip("\r\n").replace("\r", "\n").rpartition("\n")[2]
        return lines == rows and len(list(csv.reader([last, "next"], delimiter=self.separator))) == 2

    def _strict_blocks(self, types: dict[int, pa.DataType], fault: Fault) -> Iterator[list[pa.Array]]:
        records = self._records(types, fault)
        while True:
            columns: list[list[str]] = [[] for _ in types]
            for fields in itertools.islice(records, _RECORDS):
                for column, index in zip(columns, types):  # noqa: B905
                    column.append(fields[index])
            if not columns[0]:
                return
            yield [_array(texts, kind) for texts, kind in zip(columns, types.values(), strict=True)]

    def _records(self, used: Iterable[int], fault: Fault) -> Iterator[list[str]]:
        """Yields each record's fields. Raises UserError for the first that is wrong, naming the line it starts in."""
        rows = 0
        columns = len(self.first)
        for number, lines, fields in self._lines_and_fields():
            rows += 1
            wrong = None
            if len(lines) > 1 and not self._is_one_record(lines, fault):
                wrong = "a quotation mark is not closed"
            elif len(fields) != columns:
                there = "the header has" if self.header else "the first line has"
                wrong = f"{len(fields)} column{'s'[: len(fields) != 1]} where {there} {columns}"
            elif not all(map(str.isascii, lines)) and any(_NOT_UTF8.search(fields[i]) for i in used):
                wrong = "it is not UTF-8 text"
            else:
                wrong = fault(fields)
            if wrong:
                raise line_error(self.path, number, wrong, lines[0].rstrip("\r\n"))
            yield fields
        if not rows:
            raise UserError(f"{self.path} holds no rows; give a file with interactions")

    def _lines_and_fields(self) -> Iterator[tuple[int, list[str], list[str]]]:
        """Yields for each record the number of its first line, from 1, its lines and its fields."""
        with user_errors(self.path), open_bytes(self.path) as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            rest = itertools.islice(text, self._skip, None)
            number = self._skip + 1
            if not self.quoted:
                for at, line in enumerate(rest, number):
                    if bare := line.rstrip("\r\n"):
                        yield at, [line], bare.split(self.separator)
                return
            lines: list[str] = []  # of the record that is read

            def remembered() -> Iterator[str]:
                # The last, empty line belongs to the last record if a quotation mark is open there.
                for line in itertools.chain(rest, ["\n"]):
                    lines.append(line)
                    yield line

            try:
                for fields in csv.reader(remembered(), delimiter=self.separator):
                    if fields:
                        yield number, lines, fields
                    number += len(lines)
                    lines.clear()
            except csv.Error as e:  # a field of more than 128 KiB
                wrong = f"{_one_line(e)}; is a quotation mark not closed?"
                raise line_error(self.path, number, wrong, lines[0].rstrip("\r\n")) from e

    def _is_one_record(self, lines: list[str], fault: Fault) -> bool:
        """Whether these lines are one record, rather than several of which one has an unbalanced quotation mark."""
        try:
            list(csv.reader(lines, delimiter=self.separator, strict=True))
        except csv.Error:
            return False
        alone = [fields_of(line.rstrip("\r\n"), self.separator, True) for line in lines if line.strip("\r\n")]
        return not all(len(fields) == len(self.first) and fault(fields) is None for fields in alone)


def _array(texts: list[str], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(texts, pa.string()).dictionary_encode()
    return pa.array([text.strip(" \t") for text in texts], pa.string()).cast(kind)


def line_fault(path: Path, check: Callable[[str], str | None]) -> UserError | None:
    """The UserError for the first line of a text file that `check` objects to, None where it objects to none."""
    with user_errors(path), open_bytes(path) as f:
        for number, raw in enumerate(f, 1):
            raw = raw.rstrip(b"\r\n")
            if not raw:
                continue
            try:
                wrong = check(raw.decode("utf-8"))
            except UnicodeDecodeError:
                wrong = "it is not UTF-8 text"
            if wrong:
                return line_error(path, number, wrong, raw.decode("utf-8", errors="replace"))
    return None


def line_error(path: Path, number: int, wrong: str, received: str) -> UserError:
    """The UserError for one line of a text file."""
    return UserError(f"{path}, line {number}: {wrong}; correct or drop the line. Received: {shown(received)}")


def unreadable(path: Path, cause: object) -> UserError:
    """The UserError for a file of which no more is known than what the fast reader said."""
    return UserError(f"{path} cannot be read: {_one_line(cause)}")


def number_fault(text: str, what: str) -> str | None:
    """What is wrong with a field that should be a finite number, as pyarrow's 32-bit floats take it."""
    if not text.strip():
        return f"the {what} is empty"
    value = _float32(text.strip(" \t"))
    if value is None:
        return f"the {what} is {shown(text)}, not a number"
    return None if math.isfinite(value) else f"the {what} is {shown(text)}, not a finite number"


@functools.lru_cache(1 << 12)  # ratings have few distinct values
def _float32(text: str) -> float | None:
    try:
        return pa.scalar(text).cast(pa.float32()).as_py()
    except pa.ArrowException:
        return None


def shown(text: str) -> str:
    """The text in quotes, cut to a length that fits an error message."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]
