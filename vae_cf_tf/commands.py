"""How a command of this package ends: 0, or one line on stderr and a status that says whose fault it was."""

import errno
import sys
from collections.abc import Callable

from absl import app, flags

from vae_cf_tf.errors import UserError

_DISK = {
    errno.ENOSPC: "the disk is full; free some space and start the command again",
    errno.EDQUOT: "the disk quota is used up; free some space and start the command again",
    errno.EACCES: "permission is denied; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; choose a folder that you may write to",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EEXIST: "there is a file of that name; choose another folder",
}


def guarded(main: Callable[[list[str]], None]) -> int:
    """Parses the flags, runs `main`, and returns the exit status: 2 for the user's mistakes, 130 for Ctrl-C."""
    try:
        app.run(main, flags_parser=_parse)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(f"Error: {error.filename or 'cannot write'}: {_DISK[error.errno]}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error} (--help lists the flags.)") from error
