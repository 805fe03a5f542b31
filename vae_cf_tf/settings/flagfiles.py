"""Flagfiles: text files with a flag on each line, which may include each other."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_cf_tf.errors import UserError
from vae_cf_tf.files import home_expanded
from vae_cf_tf.settings.settings import Settings, names, parsed, written

_ROOT = Path(__file__).resolve().parents[2]
_FLAGS = _ROOT / "trainers" / "flags"
_DEFAULT = "vamp.flags"


def shipped() -> list[Path]:
    """The package's own flagfiles, the default's first."""
    default = _ROOT / _DEFAULT
    if not default.is_file():
        default = _FLAGS / _DEFAULT  # where a wheel has it
    return [default, *sorted(path for path in _FLAGS.glob("*.flags") if path.name != _DEFAULT)]


def expanded(argv: Sequence[str]) -> list[str]:
    """The command line with each --flagfile replaced by the flags in it, so that later flags override earlier ones.

    Raises:
      UserError: a flagfile that cannot be read, or that includes itself.
    """
    found: list[str] = []
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        name, equals, path = argument.partition("=")
        if name in ("--flagfile", "-flagfile"):
            if not equals:
                if not rest:
                    raise UserError("--flagfile has no value. Write --flagfile=PATH.")
                path = rest.pop(0)
            found += flags_in(Path(home_expanded(path)))
        else:
            found.append(argument)
    return found


def flags_in(path: Path, including: tuple[Path, ...] = ()) -> list[str]:
    """The flags of a flagfile and of those that it includes; a path in it is relative to its own folder.

    Args:
      path: the file.
      including: the files that include this one.

    Raises:
      UserError: as `expanded`.
    """
    if path.resolve() in [other.resolve() for other in including]:
        raise UserError(
            f"The flagfile {including[-1]} includes {path}, which includes it. Remove one of the two lines."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"The flagfile {path} is not UTF-8 text. Give a text file with a flag on each line.") from error
    except OSError as error:
        raise UserError(f"The flagfile {path} cannot be read ({error.strerror}). {_suggestion(path)}") from error
    found: list[str] = []
    for line in map(str.strip, lines):
        if line.startswith("--flagfile="):
            inner = home_expanded(line.removeprefix("--flagfile="))
            found += flags_in(path.parent / inner, (*including, path))
        elif line.startswith("-"):
            found.append(line)
        elif line and not line.startswith(("#", "//")):
            raise UserError(f"The flagfile {path} has a line that is no flag: {line[:60]!r}. Write --NAME=VALUE.")
    return found


def _suggestion(missing: Path) -> str:
    """Where the shipped flagfile of this name lies, or what the shipped ones are called."""
    same = [path for path in shipped() if path.name == missing.name]
    if same:
        return f"Did you mean --flagfile={os.path.relpath(same[0])}?"
    return "Shipped ones: " + ", ".join(os.path.relpath(path) for path in shipped()) + "."


def settings_in(path: Path) -> dict[str, Any]:
    """The settings of a flagfile and of those that it includes, by their flat names."""
    pairs = (line.lstrip("-").partition("=") for line in flags_in(path))
    return {name: parsed(name, value) for name, _, value in pairs}


def nearest(settings: Settings, *sections: str) -> tuple[Path, list[str]]:
    """The shipped flagfile that is nearest to these sections, and the settings that differ from it."""
    different: dict[Path, list[str]] = {}
    for path in shipped():
        theirs = Settings.of(**settings_in(path))
        different[path] = [name for name in names(*sections) if settings[name] != theirs[name]]
    best = min(different, key=lambda path: len(different[path]))
    return best, different[best]


def as_flags(settings: Settings) -> list[str]:
    """Flags that give these settings, but for `RunSettings`: the nearest shipped flagfile and the differences."""
    path, different = nearest(settings, "data", "split", "model", "item_item", "training", "evaluation")
    return [f"--flagfile={os.path.relpath(path)}", *(f"--{name}={written(settings[name])}" for name in different)]
