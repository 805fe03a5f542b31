import errno
import sys

import pytest

from vae_cf_tf.commands import guarded
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
        (KeyboardInterrupt(), 130, "\nInterrupted. The same command goes on"),
    ],
)
def test_a_users_trouble_is_a_line_and_a_status(error, status, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command"])
    assert guarded(raising(error)) == status
    assert capsys.readouterr().err.startswith(line)


def test_success_is_zero_and_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])
    assert guarded(lambda argv: None) == 0
    with pytest.raises(ZeroDivisionError):
        guarded(raising(ZeroDivisionError()))
