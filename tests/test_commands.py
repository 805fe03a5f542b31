"""How a command ends: exit status, the one line on stderr, and what its flags take."""

import errno
import subprocess
import sys

import pytest
import tensorflow as tf
from absl import flags
from conftest import ROOT
from typed import forget_flags, fresh_process, here, mistake, process

from vae_cf_tf.cli import commands
from vae_cf_tf.errors import UserError


@pytest.fixture(autouse=True)
def no_flags():
    """Each command defines its flags anew, as in a process of its own."""
    forget_flags()


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
            "Error: x: the disk is full",
        ),
        (
            tf.errors.OutOfRangeError(None, None, "{{node Save}} a/b.data; File too large [Op:SaveV2]"),
            2,
            "Error: a/b.data: a file may not grow that large here",
        ),
        (tf.errors.UnknownError(None, None, "a/b; Input/output error"), 2, "Error: a/b: the disk does not answer"),
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


def test_success_is_zero(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])
    assert commands.run(lambda argv: None) == 0


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(ZeroDivisionError):
        commands.run(raising(ZeroDivisionError()))


@pytest.mark.parametrize("code", [None, 0, 3, "text", ""])
def test_the_test_kit_ends_as_python_does(code, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ending.py").write_text(f"import sys\nprint(sys.argv[1:])\nraise SystemExit({code!r})\n")
    assert here("ending", "a") == fresh_process("ending", "a", cwd=tmp_path) == process("ending", "a", cwd=tmp_path)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("trainers.main", ["--data=~nosuchuser/x"]),
        ("trainers.main", ["--item_titles=~nosuchuser/x"]),
        ("trainers.main", ["--workdir=~nosuchuser/x"]),
        ("trainers.main", ["--flagfile=~nosuchuser/x"]),
        ("trainers.main", ["--flagfile=own.flags"]),  # which includes ~nosuchuser/x
        ("trainers.sweep", ["--sweep_dir=~nosuchuser/x"]),
        ("trainers.report", ["--workdir=~nosuchuser/x"]),
        ("export.main", ["--workdir=w", "--export_dir=~nosuchuser/x"]),
        ("export.score", ["--model=~nosuchuser/x"]),
        ("export.inspect", ["~nosuchuser/x"]),
    ],
)
def test_the_home_folder_of_a_user_who_is_not_known(module, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.flags").write_text("--flagfile=~nosuchuser/x\n")
    mistake(here(module, *arguments), "~nosuchuser/x: ~nosuchuser is nobody's home folder. Write ./~nosuchuser/x")
    assert [path.name for path in tmp_path.iterdir()] == ["own.flags"]


def test_a_cache_in_the_home_folder_of_a_user_who_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", "~nosuchuser")
    typed = here("trainers.main", "--dataset=ml-1m", f"--workdir={tmp_path / 'w'}")
    mistake(typed, "~nosuchuser: ~nosuchuser is nobody's home folder.")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3", [3]),
        ("10, 200", [10, 200]),
        *((text, None) for text in ("", "0", "5,-1", "2.5", "many", "1,,2", "²", "9" * 5000)),
    ],
)
def test_a_list_of_whole_numbers(text, numbers, monkeypatch, capsys):
    found = []
    monkeypatch.setattr(sys, "argv", ["command", f"--sizes={text}"])
    status = commands.run(
        lambda argv: found.extend(commands.whole_numbers("sizes")),
        lambda: flags.DEFINE_list("sizes", [], "Sizes."),
    )
    assert found == (numbers or [])
    assert status == (0 if numbers else 2)
    line = f"Error: --sizes takes whole numbers separated by commas. Received: {text!r}.\n"
    assert capsys.readouterr().err == ("" if numbers else line)


def test_a_flag_that_must_be_given(monkeypatch, capsys):
    def status(*arguments: str) -> int:
        forget_flags()
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        return commands.run(
            lambda argv: commands.required(["place", "other"], "command --place=DIR --other=DIR"),
            lambda: [commands.define_path(name, "", "A folder.") for name in ("place", "other")],
        )

    assert status("--place=a", "--other=b") == 0
    assert capsys.readouterr().err == ""
    for arguments, name in ((["--place=a"], "other"), (["--other=b"], "place"), ([], "place"), (["--place="], "place")):
        assert status(*arguments) == 2
        line = f"Error: --{name} is missing. Usage: command --place=DIR --other=DIR\n"
        assert capsys.readouterr().err == line
