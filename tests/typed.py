"""Commands as a user types them: in this process, which has TensorFlow already, or in one of their own."""

import contextlib
import functools
import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from absl import flags

from tests import forked
from tests.forked import ROOT


class Typed(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


def forget_flags() -> None:
    """Removes all flags but absl's own, so that another command can define its own."""
    for name in list(flags.FLAGS):
        if not (flags.FLAGS.find_module_defining_flag(name) or "").startswith("absl"):
            delattr(flags.FLAGS, name)


def here(module: str, *arguments: str) -> Typed:
    """`python -m module argument …` in this process: its flags, its `__main__`, its streams and its exit status."""
    forget_flags()
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, [module, *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
                status = 0
            except SystemExit as stop:
                status = forked.exit_status(stop)
    finally:
        sys.argv = argv
    return Typed(status, out.getvalue(), err.getvalue())


class Started:
    """`python -m module argument …` as a process that goes on beside this one.

    It is a fork of a process that has imported TensorFlow, so it starts 4 s earlier than a fresh one. What depends on
    the interpreter's start needs `fresh_process`: the order of imports, what TensorFlow writes when it is imported,
    limits on the process.

    Args:
      cwd: the working directory; the project is found from any folder.
      env: all environment variables; None: those of this process.
    """

    def __init__(self, module: str, *arguments: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None):
        self._files = [tempfile.NamedTemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        command = [module, *map(str, arguments)]
        names = [file.name for file in self._files]
        environment = dict(os.environ if env is None else env)
        self._process = _forks().Process(target=_child, args=(command, cwd, environment, names))
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.exitcode is None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self, seconds: float = 600) -> Typed:
        """Waits for its end. A process that takes longer than this is killed."""
        self._process.join(seconds)
        if self.is_running():
            self._process.kill()
            self._process.join()
        texts = []
        for file in self._files:
            texts.append(file.read())
            file.close()
        return Typed(self._process.exitcode, *texts)


@functools.cache
def _forks() -> multiprocessing.context.BaseContext:
    """Starts the process that is forked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT)):
        forkserver.ensure_running()
    return context


def _child(command: list[str], folder: Path, environment: dict[str, str], files: list[str]) -> None:
    assert "tests.preloaded" in sys.modules
    os.environ.clear()
    os.environ.update(environment)
    stdout, stderr = (os.open(file, os.O_WRONLY | os.O_APPEND) for file in files)
    forked.run_and_exit(lambda: forked.run_module(*command), folder, stdout, stderr)


def process(module: str, *arguments: str, **options) -> Typed:
    """`python -m module argument …` in a process of its own; the options are those of `Started`."""
    return Started(module, *arguments, **options).ended()


def fresh_process(module: str, *arguments: str, cwd: Path = ROOT, **options) -> Typed:
    """`python -m module argument …` in a new interpreter; the options are those of `subprocess.run`."""
    environment = dict(options.pop("env", os.environ)) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, **options)
    return Typed(result.returncode, result.stdout, result.stderr)


def mistake(typed: Typed | subprocess.CompletedProcess, *words: str) -> str:
    """The one line of a user's mistake, in which these words stand."""
    assert (typed.status if isinstance(typed, Typed) else typed.returncode) == 2, typed
    assert typed.stderr.startswith("Error: "), typed.stderr
    assert typed.stderr.count("\n") == 1, typed.stderr
    for word in words:
        assert word in typed.stderr, (word, typed.stderr)
    return typed.stderr
