"""How a command of this package ends: 0, or one line on stderr and a status that says whose fault it was."""

import errno
import os
import sys
from collections.abc import Callable

from absl import app, flags

from vae_cf_tf.errors import UserError

_FULL = "the disk is full; free some space and start the command again"
_WHAT_TO_DO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the disk quota is used up; free some space and start the command again",
    errno.EACCES: "permission is denied; choose a place that you may read or write",
    errno.EROFS: "the file system is read-only; choose a folder that you may write to",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EEXIST: "there is a file of that name; choose another folder",
}


def guarded(main: Callable[[list[str]], None]) -> int:
    """Parses the flags, runs `main`, and returns the exit status: 2 for the user's mistakes, 130 for Ctrl-C."""

    def checked(argv: list[str]) -> None:
        if len(argv) > 1:
            raise UserError(f"Unknown argument {argv[1]!r}: settings are given as --name=value.")
        main(argv)

    try:
        app.run(checked, flags_parser=_parse)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = _line(error)
        if line is None:
            raise
        print(f"Error: {line}", file=sys.stderr)
        return 2
    return 0


def _line(error: Exception) -> str | None:
    """What to tell a user whose mistake, or whose machine's trouble, this is; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        where = error.filename or "Cannot read or write"
        return f"{where}: {_WHAT_TO_DO.get(error.errno) or error.strerror or error}."
    if type(error).__name__ == "ResourceExhaustedError" and "No space left" in str(
        error
    ):  # TensorFlow's own word for it
        return f"Cannot write: {_FULL}."
    return None


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error} (--help lists the flags.)") from error
