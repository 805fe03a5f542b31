import errno
import subprocess
import sys

import pytest
import tensorflow as tf
from conftest import ROOT

from vae_cf_tf.cli import commands
from vae_cf_tf.errors import UserError


def raising(error):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("x is wrong. Received: 3."), 2, "Error: x is wrong. Received: 3.\n"),
        (OSError(errno.ENOSPC, "No space left", "/a/b"), 2, "Error: /a/b: the disk is full; "),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), 2, "Error: /a/b: permission is denied; "),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/a/b"), 2, "Error: /a/b: File name too long."),
        (
            tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"),
            2,
            "Error: Cannot write: the disk",
        ),
        (KeyboardInterrupt(), 130, "\nInterrupted.\n"),
        (KeyboardInterrupt("The same command goes on."), 130, "\nInterrupted. The same command goes on.\n"),
    ],
)
def test_a_users_trouble_is_a_line_and_a_status(error, status, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command"])
    assert commands.run(raising(error)) == status
    assert capsys.readouterr().err.startswith(line)


def test_an_argument_that_is_no_flag_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "extra"])
    assert commands.run(lambda argv: None) == 2
    assert capsys.readouterr().err == "Error: Unknown argument 'extra'. Settings are given as --name=value.\n"


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m trainers.main --help | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in result.stderr


def test_success_is_zero_and_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])
    assert commands.run(lambda argv: None) == 0
    with pytest.raises(ZeroDivisionError):
        commands.run(raising(ZeroDivisionError()))
