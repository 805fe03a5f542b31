"""What a fork does to be a command: `python -m module argument …` with its own folder, streams and environment."""

import atexit
import contextlib
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]


def exit_status(stop: SystemExit) -> int:
    """As Python: without a code 0, and with a text, which goes to stderr, 1."""
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    print(stop.code, file=sys.stderr)
    return 1


def run_and_exit(
    target: Callable[[], int | None], folder: Path, stdout: int, stderr: int, prepare: Callable[[], None] = lambda: None
) -> NoReturn:
    """Ends this process, a fork, as Python would if `target` were its program.

    Args:
      target: its result is the exit status; None is 0.
      folder: the working directory.
      stdout, stderr: descriptors of the files that take what it writes.
      prepare: is called before `target`.
    """
    status = 1
    try:
        os.chdir(folder)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare()
        status = target() or 0
    except SystemExit as stop:
        status = exit_status(stop)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # TensorFlow's removes its temporary files
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def run_module(module: str, *arguments: str) -> None:
    """`python -m module argument …` in this process, a fork: its path, its `__main__` and its arguments."""
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [os.getcwd(), str(ROOT), *installed]
    sys.argv = [module, *arguments]
    os.environ["PYTHONPATH"] = str(ROOT)  # of processes that a command starts
    runpy.run_module(module, run_name="__main__", alter_sys=True)
