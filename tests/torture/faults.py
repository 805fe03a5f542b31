"""What is done to a process at its n-th event: a file opened for writing, a rename, a removal, a new folder, an fsync.

The events are Python's audit events, so those of every library that opens files through Python. What C++ writes by
itself (TensorFlow's variables, DuckDB, Parquet) is reached by kills at random moments and by `file_limit`.
"""

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

KILLS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
ERRORS = {"enospc": errno.ENOSPC, "eio": errno.EIO}
_RENAMES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def at_event(number: int, what: str, folder: Path, counted: Path | None = None) -> Callable[[], None]:
    """What installs a fault in a fork: a signal to itself before its event `number`, or an OSError in its place.

    Args:
      number: of the event, from 0; −1: none.
      what: a name of KILLS or ERRORS.
      folder: events elsewhere are not counted.
      counted: receives the number of events so far after each.
    """

    def install() -> None:
        seen, inside, fsync = [0], [False], os.fsync

        def event() -> None:
            if inside[0]:
                return
            seen[0] += 1
            if counted:
                inside[0] = True
                counted.write_text(str(seen[0]))
                inside[0] = False
            if seen[0] - 1 == number:
                if what in KILLS:
                    os.kill(os.getpid(), KILLS[what])
                else:
                    raise OSError(ERRORS[what], os.strerror(ERRORS[what]))

        def audit(name: str, arguments: tuple) -> None:
            if name == "open":
                path, _, flags = arguments
                if isinstance(path, str | bytes | os.PathLike) and flags & _WRITES and _below(path, folder):
                    event()
            elif name in _RENAMES and _below(arguments[0], folder):
                event()

        def counted_fsync(descriptor: int) -> None:
            event()
            fsync(descriptor)

        os.fsync = counted_fsync
        sys.addaudithook(audit)

    return install


def _below(path: str | bytes | os.PathLike | int, folder: Path) -> bool:
    if isinstance(path, int):
        return True
    return os.path.abspath(os.fsdecode(path)).startswith(f"{folder.resolve()}{os.sep}")


def file_limit(size: int, kills: bool) -> Callable[[], None]:
    """What lets no file grow beyond `size` bytes in a fork: a write of C++, too, ends there with an error, or kills."""

    def install() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kills else signal.SIG_IGN)

    return install
