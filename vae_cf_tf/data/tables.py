"""Text tables (CSV, TSV, MovieLens' `::`): read fast in blocks, or strictly, record by record."""

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv

from vae_cf_tf.data.events import BadEvent, NoEvents
from vae_cf_tf.data.text import (
    BAD_FILE,
    Chunks,
    first_line,
    is_gzip,
    line_error,
    one_line,
    open_bytes,
    replaced,
    unreadable,
    user_errors,
)
from vae_cf_tf.errors import UserError

_BLOCK = 1 << 24  # bytes parsed at a time
_RECORDS = 1 << 16  # records read at a time by the strict reader
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what the error handler surrogateescape makes of such a byte


class Checks(Protocol):
    """What a reader knows of a table's records."""

    def fault(self, fields: list[str]) -> str | None:
        """What is wrong with a record, or None."""

    def is_record(self, fields: list[str]) -> bool:
        """Whether these fields are a sound record and probably not one line of a longer quoted text."""


T = TypeVar("T")


def _has_quotes(path: Path) -> bool:
    """Whether a quotation mark stands anywhere in a plain file. It costs 3 % of the time of reading it."""
    buffer = bytearray(1 << 18)
    with open(path, "rb", buffering=0) as f:
        while size := f.readinto(buffer):
            if buffer.find(b'"', 0, size) >= 0:
                return True
    return False


class _Watched(io.RawIOBase):
    """A stream that notes whether a quotation mark has passed: a gzipped file is not unzipped twice to find one."""

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

    def read(self, types: dict[int, pa.DataType], checks: Checks, build: Callable[[Iterator[list[pa.Array]]], T]) -> T:
        """Reads columns into what `build` makes of them: fast, and where anything is odd, once more and strictly.

        Rows are compared with lines, since an unbalanced quotation mark swallows all lines up to the next one.

        Args:
            types: the columns to read, by index.
            checks: their `fault` must object to every record that `build` raises an error for.
            build: takes blocks, each a list of arrays, one for each of `types`.

        Raises: UserError that names the line of the first record that is wrong.
        """
        return read_tables([self], types, checks, build)

    def sample(self) -> list[str]:
        """The fields of the first record; [] where there is none."""
        if not self.header:
            return self.first
        return next((fields for _, _, fields in self._lines_and_fields()), [])

    @property
    def _skip(self) -> int:
        return self.before + self.header

    def _blocks(self, types: dict[int, pa.DataType], checks: Checks) -> Iterator[list[pa.Array]]:
        """Yields blocks of the columns. Raises pyarrow's errors, and ValueError where a quote swallowed a record."""
        is_packed = is_gzip(self.path)
        stream = pa.input_stream(str(self.path), compression="gzip" if is_packed else None)
        source, separator, watched = stream, self.separator, None
        if separator == "::":
            # pyarrow separates by one byte: one that no text holds.
            separator = "\x1f"
            source = Chunks(replaced(iter(lambda: stream.read(1 << 20), b""), b"::", separator.encode()))
        elif self.quoted and is_packed:
            source = watched = _Watched(stream)
        rows = 0
        for batch in parse(source, separator, len(self.first), types, self._skip, self.quoted):
            rows += len(batch)
            yield batch.columns
        has_quotes = self.quoted and (watched.has_quotes if watched else _has_quotes(self.path))
        if has_quotes and not self._lines_end_quotes(rows):
            records = 0
            for _, lines, _ in self._lines_and_fields():
                records += 1
                if len(lines) > 1 and not self._is_one_record(lines, checks):
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

    def _strict_blocks(self, types: dict[int, pa.DataType], checks: Checks) -> Iterator[list[pa.Array]]:
        records = self._records(types, checks)
        while True:
            columns: list[list[str]] = [[] for _ in types]
            for fields in itertools.islice(records, _RECORDS):
                for column, index in zip(columns, types):  # noqa: B905
                    column.append(fields[index])
            if not columns[0]:
                return
            yield [_array(texts, kind) for texts, kind in zip(columns, types.values(), strict=True)]

    def _records(self, used: Iterable[int], checks: Checks) -> Iterator[list[str]]:
        """Yields each record's fields. Raises UserError for the first that is wrong, naming the line it starts in."""
        rows = 0
        columns = len(self.first)
        for number, lines, fields in self._lines_and_fields():
            rows += 1
            wrong = None
            if len(lines) > 1 and not self._is_one_record(lines, checks):
                wrong = "a quotation mark is not closed"
            elif len(fields) != columns:
                there = "the header has" if self.header else "the first line has"
                wrong = f"{len(fields)} column{'s'[: len(fields) != 1]} where {there} {columns}"
            elif not all(map(str.isascii, lines)) and any(_NOT_UTF8.search(fields[i]) for i in used):
                wrong = "it is not UTF-8 text"
            else:
                wrong = checks.fault(fields)
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
                wrong = f"{one_line(e)}; is a quotation mark not closed?"
                raise line_error(self.path, number, wrong, lines[0].rstrip("\r\n")) from e

    def _is_one_record(self, lines: list[str], checks: Checks) -> bool:
        """Whether these lines are one record, rather than several of which one has an unbalanced quotation mark.

        They are several if more than half of them are records by themselves. If a text in a single record has line
        breaks, its first line may look like a record, but hardly any other line does.
        """
        try:
            list(csv.reader(lines, delimiter=self.separator, strict=True))
        except csv.Error:
            return False
        alone = [_fields_alone(line.rstrip("\r\n"), self.separator) for line in lines if line.strip("\r\n")]
        return sum(len(f) == len(self.first) and checks.is_record(f) for f in alone) <= len(alone) / 2


def read_tables(
    tables: Sequence[Table],
    types: dict[int, pa.DataType],
    checks: Checks,
    build: Callable[[Iterator[list[pa.Array]]], T],
) -> T:
    """Reads the parts of one table as `Table.read` does; a part without records is passed over where there are several.

    Args:
        tables: files of the same columns.
        types, checks, build: as those of `Table.read`.
    """
    try:
        return build(block for table in tables for block in table._blocks(types, checks))
    except (*BAD_FILE, BadEvent, NoEvents) as cause:
        try:
            kept = [table for table in tables if table.sample()] or tables[:1]
            return build(block for table in kept for block in table._strict_blocks(types, checks))
        except (*BAD_FILE, BadEvent):
            raise unreadable(tables[0].path, cause) from cause


def _fields_alone(line: str, separator: str) -> list[str]:
    """The fields of a line in which a quotation mark that is not closed stands for itself."""
    end = re.escape(separator)
    fields = re.findall(rf'("(?:[^"]|"")*"|[^{end}]*){end}', line + separator)
    return [f[1:-1].replace('""', '"') if len(f) > 1 and f[0] == f[-1] == '"' else f for f in fields]


def _array(texts: list[str], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(texts, pa.string()).dictionary_encode()
    return pa.array([text.strip(" \t") for text in texts], pa.string()).cast(kind)
