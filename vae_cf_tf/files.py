"""Writing files so that nobody ever sees half of one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
        with open(aside, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
