"""Writing files and folders so that nobody ever sees half of one, and so that one process writes at a time."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from vae_cf_tf.errors import UserError

LOCK = ".lock"


@contextlib.contextmanager
def written_aside(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed.

    The rename is atomic, so a reader sees the old file or the new one, and a process killed at any moment leaves
    `path` as it was.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.tmp")  # one name, so that what a killed process left is written over
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync(path: str | os.PathLike) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: str | os.PathLike, busy: str, waits: Sequence[float] = (), create: bool = True) -> Iterator[int]:
    """Holds the folder's lock and yields its descriptor.

    The lock goes with the process, however it ends, unless a child inherits the descriptor and lives on.

    Args:
      folder: where `LOCK` lies.
      busy: the error's text where another process holds the lock.
      waits: seconds to wait before each further try.
      create: whether to make a missing folder. If nothing is written to it, it is removed again.

    Raises:
      UserError: another process holds the lock.
      FileNotFoundError: the folder is missing and is not to be made.
    """
    path = Path(folder) / LOCK
    is_new = create and not path.parent.exists()
    for wait in [*waits, None]:
        lock = _taken(path, create)
        if lock is None:
            if wait is None:
                raise UserError(busy)
            time.sleep(wait)
            continue
        with lock:
            try:
                yield lock.fileno()
            finally:
                with contextlib.suppress(FileNotFoundError):
                    if is_new and os.listdir(path.parent) == [LOCK]:
                        path.unlink()
                        path.parent.rmdir()
        return


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
