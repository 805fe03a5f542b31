"""Text tables (CSV, TSV, MovieLens' `::`), plain or gzipped: read in blocks, and the line at fault where one is bad."""

import contextlib
import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from vae_cf_tf.errors import UserError

_BLOCK = 1 << 24  # bytes parsed at a time
_GZIP = b"\x1f\x8b"
_SEPARATORS = ("\t", ",", ";", "|")
# What pyarrow, gzip and the file system raise for a file that is not what it should be.
BAD_FILE = (pa.ArrowException, OSError, EOFError, ValueError, zlib.error)

TEXT = pa.dictionary(pa.int32(), pa.string())


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


def open_bytes(path: Path) -> io.BufferedIOBase:
    """The file's bytes, unzipped where it is gzipped."""
    return gzip.open(path, "rb") if is_gzip(path) else open(path, "rb")


def _chunks_of(path: Path) -> Iterator[bytes]:
    with pa.input_stream(str(path), compression="gzip" if is_gzip(path) else None) as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


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
    if not isinstance(source, pa.NativeFile):
        source = pa.PythonFile(io.BufferedReader(source, 1 << 20), mode="r")
    names = [str(i) for i in range(columns)]
    return pa.csv.open_csv(
        source,
        read_options=pa.csv.ReadOptions(block_size=_BLOCK, column_names=names, skip_rows=skip),
        parse_options=pa.csv.ParseOptions(delimiter=separator, quote_char='"' if quoted else False),
        convert_options=pa.csv.ConvertOptions(
            include_columns=[names[i] for i in types], column_types={names[i]: t for i, t in types.items()}
        ),
    )


@dataclass(frozen=True)
class Table:
    """A text file of rows and columns, whose first line has been looked at."""

    path: Path
    separator: str
    first: list[str]  # the fields of the first line that is not empty
    before: int  # how many empty lines precede it

    @classmethod
    def open(cls, path: Path) -> "Table":
        """Finds the separator and the first line.

        Raises: UserError for a file that is missing, empty, binary or not gzip as it should be.
        """
        with user_errors(path), open_bytes(path) as f:
            head = f.read(1 << 16)
        if b"\0" in head:
            raise UserError(f"{path} is a binary file (or UTF-16 text); give UTF-8 text (CSV or TSV) or Parquet")
        lines = head.removeprefix(b"\xef\xbb\xbf").splitlines()
        before = next((i for i, line in enumerate(lines) if line), None)
        if before is None:
            raise UserError(f"{path} is empty; give a file with interactions")
        line = lines[before].decode("utf-8", errors="replace")
        counts = [line.count(s) for s in _SEPARATORS]
        separator = "::" if "::" in line else _SEPARATORS[counts.index(max(counts))]
        return cls(path, separator, _fields(line, separator, quoted=True), before)

    def batches(self, types: dict[int, pa.DataType], header: bool = True) -> Iterator[pa.RecordBatch]:
        """Yields the wanted columns in blocks; see `parse`. Raises pyarrow's errors, which `fault` explains."""
        skip = self.before + header
        separator = self.separator
        if separator == "::":
            # pyarrow separates by one byte: one that no text holds.
            separator = "\x1f"
            source = Chunks(replaced(_chunks_of(self.path), b"::", separator.encode()))
        else:
            source = pa.input_stream(str(self.path), compression="gzip" if is_gzip(self.path) else None)
        return parse(source, separator, len(self.first), types, skip, quoted=header)

    def fault(
        self, check: Callable[[list[str]], str | None], header: bool = True, cause: object = "not as expected"
    ) -> UserError:
        """Goes through the file line by line for the first one that is wrong: slow, for the sake of the message.

        Args:
            check: gets a line's fields, answers what is wrong with them or None.
            cause: what the fast reader said, told where no line is found to be wrong.
        """

        def line_check(line: str) -> str | None:
            fields = _fields(line, self.separator, quoted=header)
            if len(fields) != len(self.first):
                there = "the header has" if header else "the first line has"
                return f"{len(fields)} column{'s'[: len(fields) != 1]} where {there} {len(self.first)}"
            return check(fields)

        return line_fault(self.path, line_check, self.before + header) or unreadable(self.path, cause)


def line_fault(path: Path, check: Callable[[str], str | None], skip: int = 0) -> UserError | None:
    """The UserError for the first line of a text file that `check` objects to, None where it objects to none."""
    rows = 0
    with user_errors(path), open_bytes(path) as f:
        for number, raw in enumerate(f, 1):
            raw = raw.rstrip(b"\r\n")
            if number <= skip or not raw:
                continue
            rows += 1
            try:
                wrong = check(raw.decode("utf-8"))
            except UnicodeDecodeError:
                wrong = "it is not UTF-8 text"
            if wrong:
                received = shown(raw.decode("utf-8", errors="replace"))
                return UserError(f"{path}, line {number}: {wrong}; correct or drop the line. Received: {received}")
    if not rows:
        return UserError(f"{path} holds no rows; give a file with interactions")
    return None


def unreadable(path: Path, cause: object) -> UserError:
    """The UserError for a file of which no more is known than what the fast reader said."""
    return UserError(f"{path} cannot be read: {_one_line(cause)}")


def number_fault(text: str, what: str) -> str | None:
    """What is wrong with a field that should be a finite number."""
    try:
        return None if math.isfinite(float(text)) else f"the {what} is {shown(text)}, not a finite number"
    except ValueError:
        return f"the {what} is {shown(text)}, not a number" if text.strip() else f"the {what} is empty"


def shown(text: str) -> str:
    """The text in quotes, cut to a length that fits an error message."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _fields(line: str, separator: str, quoted: bool) -> list[str]:
    if not quoted or len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:
        return line.split(separator)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]
