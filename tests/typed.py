"""Commands as a user types them: in this process, which has TensorFlow already, or in one of their own."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from absl import flags

ROOT = Path(__file__).parents[1]


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
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as stop:
        status = 0 if stop.code is None else stop.code
        if not isinstance(status, int):  # as Python: a text goes to stderr
            print(status, file=err)
            status = 1
    finally:
        sys.argv = argv
    return Typed(status, out.getvalue(), err.getvalue())


def process(module: str, *arguments: str, cwd: Path = ROOT, **options) -> Typed:
    """`python -m module argument …` as a process; the project is found from any folder."""
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
