"""Commands in forks of one process that has imported TensorFlow and has run nothing with it.

A fork is a process of its own, with its own signals, locks and limits, and starts 4 s earlier than a fresh one.
"""

import contextlib
import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests import forked
from tests.forked import ROOT  # noqa: F401 (the parts use it)


def import_what_takes_long() -> None:
    """Imports what the commands import; no operation of TensorFlow may run in this process."""
    importlib.import_module("tests.preloaded")


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
            os.setsid()
            forked.run_and_exit(target, folder, *(file.fileno() for file in self.files), prepare)

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
    return Fork(lambda: forked.run_module(*words), folder, prepare)
