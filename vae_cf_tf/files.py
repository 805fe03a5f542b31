"""Paths with `~`; stderr in a file; writing so that nobody ever sees half a file and one process writes at a time; JSON
files that carry a checksum; checksums of files."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from vae_cf_tf.errors import UserError

LOCK = ".lock"


def home_expanded(path: str | os.PathLike[str]) -> str:
    """The path with the home folder in place of `~`, or of `~USER`, at its start, as a shell has it.

    Raises:
      UserError: there is no such user, or the home folder is not known.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        home = expanded.split(os.sep)[0]
        raise UserError(f"{path}: {home} is nobody's home folder. Write ./{path} for a file of this name.")
    return expanded


@contextlib.contextmanager
def stderr_in(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within this context, the stderr of this process is appended to a file. A child process that is started in it
    writes there until the child ends."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(path, "a") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextlib.contextmanager
def written_aside(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed.

    The rename is atomic, so a reader sees the old file or the new one, and a process killed at any moment leaves
    `path` as it was. Several processes may write the same `path`: the last one's file stays, whole. A temporary file is
    locked while it is written; one without a lock was left by a killed process, and the next call removes it.
    """
    path = Path(path)
    _remove_leftovers(path)
    lock = None
    while lock is None:  # another process may take the new file for a leftover before it is locked
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        lock = _taken(aside, create=False)
    with lock:
        try:
            yield aside
            move(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, values: dict[str, Any], ensure_ascii: bool = True) -> None:
    """Writes a JSON object aside, then renames it.

    Args:
      path: of the file.
      values: what `json.dumps` takes.
      ensure_ascii: whether other characters are written as escapes.
    """
    with written_aside(path) as aside:
        aside.write_text(json_text(values, ensure_ascii), encoding="utf-8")


def json_text(values: dict[str, Any], ensure_ascii: bool = True) -> str:
    """The text of a JSON file. Its first member is a checksum of the others, so that damage is noticed.

    It comes first because a file without a checksum is accepted. Damage that removes the checksum and part of the text
    next to it then also removes the name of the next member, which the reader of the file misses.
    """
    sealed = {_CHECKSUM: _checksum(values)} | values
    return json.dumps(sealed, ensure_ascii=ensure_ascii, indent=1) + "\n"


def read_json(path: str | os.PathLike) -> Any:
    """What `write_json` wrote, without the checksum. A file without one, which people wrote, is taken as it is.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is no JSON, or not what was written.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("brackets within brackets") from None
    if isinstance(values, dict) and _CHECKSUM in values and values.pop(_CHECKSUM) != _checksum(values):
        raise ValueError("its checksum is another one")
    return values


_CHECKSUM = "checksum"


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal digits of a file's content, as sha256sum has them."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _remove_leftovers(path: Path) -> None:
    """Removes the temporary files of `path` that no process holds."""
    leftover = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]{{8}}\.)?tmp")  # without digits: version 0.1 wrote it
    with os.scandir(path.parent) as entries:
        found = [Path(entry) for entry in entries if leftover.fullmatch(entry.name)]
    for aside in found:
        with contextlib.suppress(OSError):  # another process was quicker, or the file is another user's
            if lock := _taken(aside, create=False):
                with lock:
                    aside.unlink()


def move(aside: Path, target: Path) -> None:
    """Renames a finished file or folder so that a power cut leaves all of it or nothing under the new name."""
    sync_all(aside)
    os.replace(aside, target)
    sync(target.parent)


def sync_all(path: Path) -> None:
    """`sync` of a file, or of a folder and all that is below it."""
    for each in [*path.rglob("*"), path]:
        sync(each)


def sync(path: str | os.PathLike) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: str | os.PathLike, busy: str, waits: Iterable[float] = (), create: bool = True) -> Iterator[int]:
    """Holds the folder's lock and yields its descriptor.

    The lock ends with the process, even if that is killed, unless a child inherited the descriptor and still runs.

    Args:
      folder: where `LOCK` lies.
      busy: the error's text where another process holds the lock.
      waits: seconds to wait before each further try. A wait is asked for when a try has failed.
      create: whether to make a missing folder. If nothing is written to it, it is removed again.

    Raises:
      UserError: another process holds the lock.
      FileNotFoundError: the folder is missing and is not to be made.
    """
    path = Path(folder) / LOCK
    further = iter(waits)
    while True:
        is_new = create and not path.parent.exists()
        if lock := _taken(path, create):
            break
        wait = next(further, None)
        if wait is None:
            raise UserError(busy)
        time.sleep(wait)
    with lock:
        try:
            yield lock.fileno()
        finally:
            with contextlib.suppress(OSError):  # another process was quicker
                if is_new and os.listdir(path.parent) == [LOCK]:
                    path.unlink()
                    path.parent.rmdir()


def _taken(path: Path, create: bool) -> TextIO | None:
    """The locked file, open; None where another process holds it."""
    while True:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = open(path, "a")  # noqa: SIM115
        except FileNotFoundError:
            if create:  # removed by the process that made it
                continue
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
                return lock
        except BlockingIOError:
            lock.close()
            return None
        except FileNotFoundError:
            pass
        lock.close()  # the file was removed before it was locked, or another has its place: once more
