"""Commands in forks of one process that has imported TensorFlow and has run nothing with it.

A fork is a process of its own, with its own signals, locks and limits, and starts 4 s earlier than a fresh one.
"""

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
HEAVY = ("trainers.job", "trainers.prepare", "trainers.report.write", "export.main", "export.score", "export.inspect")


def import_what_takes_long() -> None:
    """Imports what the commands import; no operation of TensorFlow may run in this process."""
    from vae_cf_tf.cli import quiet

    quiet.import_tensorflow(lambda: [importlib.import_module(name) for name in HEAVY])
    from tensorflow.python.eager import context

    assert context.context()._context_handle is None, "TensorFlow has started: a fork of this process would hang"


class Ended(NamedTuple):
    """How a fork ended."""

    status: int  # −n: killed by signal n; None never
    stdout: str
    stderr: str

    def fault(self, allowed: Sequence[int] = (0, 2)) -> str:
        """What is wrong with the way it ended, or ""."""
        if self.status not in allowed:
            return f"status {self.status}: {self.stderr[-600:]}"
        if "Traceback" in self.stderr:
            return f"a traceback: {self.stderr[-600:]}"
        if self.status == 2 and self.stderr.count("Error: ") != 1:
            return f"not one line: {self.stderr[-600:]}"
        return ""


class Fork:
    """Runs `target` in a fork, in `folder`.

    Args:
      target: its result is the exit status; None is 0.
      folder: the working directory.
      prepare: is called first in the fork, to set up a fault.
    """

    def __init__(self, target: Callable[[], int | None], folder: Path, prepare: Callable[[], None] = lambda: None):
        self.files = [tempfile.TemporaryFile("w+", errors="replace") for _ in range(2)]  # noqa: SIM115
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.setsid()
                os.chdir(folder)
                os.environ["PYTHONPATH"] = str(ROOT)  # of processes that a command starts
                for place, file in enumerate(self.files, 1):
                    os.dup2(file.fileno(), place)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                prepare()
                status = target() or 0
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(status)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 300) -> Ended:
        """Waits for its end, and ends what it has started; a fork that takes longer is killed, with status −9."""
        deadline = time.monotonic() + seconds
        while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                self.kill(signal.SIGKILL)
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        texts = []
        for file in self.files:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return Ended(os.waitstatus_to_exitcode(found[1]), *texts)


def command(words: Sequence[str], folder: Path, prepare: Callable[[], None] = lambda: None) -> Fork:
    """`python -m words…` in a fork."""
    module, *arguments = words

    def target() -> int:
        sys.argv = [module, *arguments]
        is_package = importlib.util.find_spec(module).submodule_search_locations
        return importlib.import_module(f"{module}.__main__" if is_package else module).run()

    return Fork(target, folder, prepare)
