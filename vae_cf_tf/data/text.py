"""Text files, plain or gzipped: opening them, and what is told about the line or the file that is wrong."""

import contextlib
import functools
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from vae_cf_tf.errors import UserError

_GZIP = b"\x1f\x8b"
# What pyarrow, gzip and the file system raise for a file that is not what it should be.
BAD_FILE = (pa.ArrowException, OSError, EOFError, ValueError, zlib.error)


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
        raise UserError(f"{path} is a truncated or corrupt .gz file ({one_line(e)}); download it again") from e
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
    return UserError(f"{path} cannot be read: {one_line(cause)}")


def number_fault(text: str, what: str) -> str | None:
    """What is wrong with a field that should be a finite number, as pyarrow's 32-bit floats take it."""
    if not text.strip():
        return f"the {what} is empty"
    value = _float32(text.strip(" \t"))
    if value is None:
        return f"the {what} is {shown(text)}, not a number"
    return None if math.isfinite(value) else f"the {what} is {shown(text)}, not a finite number"


def weight_fault(text: str) -> str | None:
    """What is wrong with a field that should be a number of at least 0."""
    wrong = number_fault(text, "weight")
    return wrong or (f"the weight is {shown(text)}, below 0" if text.strip().startswith("-") and float(text) else None)


@functools.lru_cache(1 << 12)  # ratings have few distinct values
def _float32(text: str) -> float | None:
    try:
        return pa.scalar(text).cast(pa.float32()).as_py()
    except (pa.ArrowException, ValueError):  # ValueError: text that UTF-8 cannot hold
        return None


def shown(text: str) -> str:
    """The text in quotes, cut to a length that fits an error message."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]
