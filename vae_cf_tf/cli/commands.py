"""Runs a command's `main`: flags, --help, one line on stderr for an error, and the exit status."""

import errno
import importlib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from absl import flags

from vae_cf_tf.cli import allocation, quiet
from vae_cf_tf.cli.console import unbreakable_streams
from vae_cf_tf.errors import UserError, did_you_mean
from vae_cf_tf.files import home_expanded
from vae_cf_tf.settings import flagfiles

_FULL = "the disk is full; free some space and start the command again"
_WHAT_TO_DO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the disk quota is used up; free some space and start the command again",
    errno.EACCES: "permission is denied; choose a place that you may read or write",
    errno.EPERM: "permission is denied; choose a place that you may read or write",
    errno.EROFS: "the file system is read-only; choose a folder that you may write to",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EEXIST: "there is a file of that name; choose another folder",
    errno.EISDIR: "it is a folder; give a file",
    errno.EFBIG: "a file may not grow that large here; raise the limit (ulimit -f) or choose another disk",
    errno.EIO: "the disk does not answer (an I/O error); check it, or choose another one",
}
_NUMBERS = {os.strerror(number): number for number in _WHAT_TO_DO}
_TENSORFLOWS = re.compile(rf"(?P<where>[^\s;]*); (?P<text>{'|'.join(map(re.escape, _NUMBERS))})")
"""How TensorFlow words an error of the operating system, whichever exception it is."""
_EXTENSION = re.compile("--?extension=")
Groups = Mapping[str, Sequence[str]]
"""Names of flags by the heading under which --help shows them."""


def run(
    main: Callable[[list[str]], None],
    define_flags: Callable[[], None] = lambda: None,
    arguments: str = "",
    groups: Callable[[], Groups] = dict,
) -> int:
    """Defines and parses the flags, runs `main`, and returns the exit status.

    0: success; 2: a mistake of the user's or trouble with the machine, told in one line on stderr; 130: Ctrl-C. Any
    other exception is a bug and keeps its traceback.

    Modules that --extension names are imported before the flags are defined, so that flags know what they register.

    Args:
      main: receives the program's name and its positional arguments. The docstring of its module begins --help.
      define_flags: defines the command's flags.
      arguments: the positional arguments as the usage line calls them, such as "DIR"; "": the command takes none.
      groups: gives the headings of --help and the flags under each; flags in no group come first.
    """
    allocation.keep_freed_memory()
    with unbreakable_streams():
        try:
            import_extensions(sys.argv)
            flags.DEFINE_multi_string("extension", [], "Module to import first.")
            define_flags()
            if {"--help", "-h", "-?", "--helpshort", "--helpfull"} & set(sys.argv[1:]):
                print(help_text(main, arguments, groups()))
                return 0
            argv = parse(sys.argv)
            if len(argv) > 1 and not arguments:
                raise UserError(f"Unknown argument {argv[1]!r}. {_meant(argv[1])}")
            main(argv)
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
        except KeyboardInterrupt as interrupt:
            print(f"\nInterrupted. {interrupt}".rstrip(), file=sys.stderr)
            return 130
        except Exception as error:
            line = _line(error)
            if line is None:
                raise
            print(f"Error: {line}", file=sys.stderr)
            return 2
    return 0


def import_extensions(argv: Sequence[str]) -> None:
    """Imports the modules that the command line or its flagfiles name with --extension=MODULE.

    Raises:
      UserError: there is no such module.
    """
    names = extensions(argv)
    if names:
        quiet.import_tensorflow()
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the extension imports something that is not installed
            raise UserError(
                f"--extension={name}: there is no such module in {os.getcwd()} or among the installed packages."
            ) from error


def extensions(argv: Sequence[str] | None = None) -> list[str]:
    """The modules that a command line, or this process' own, names with --extension=MODULE."""
    arguments = flagfiles.expanded(sys.argv if argv is None else argv)
    return [argument.partition("=")[2] for argument in arguments if _EXTENSION.match(argument)]


def define_path(name: str, default: str, help: str) -> None:
    """Defines a flag for a file or a folder; `~` at its start is the home folder, as in a shell."""
    flags.DEFINE(_PathParser(), name, default, help)


class _PathParser(flags.ArgumentParser):
    def parse(self, argument: str) -> str:
        return home_expanded(argument)

    def flag_type(self) -> str:
        return "path"


def required(names: Sequence[str], usage: str) -> None:
    """Raises UserError for the first of these flags that is empty."""
    for name in names:
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing. Usage: {usage}")


def whole_numbers(name: str) -> list[int]:
    """The positive whole numbers of a list flag. Raises UserError where it holds anything else, or nothing."""
    texts: list[str] = flags.FLAGS[name].value or []
    try:
        numbers = [int(text) for text in texts]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UserError(f"--{name} takes whole numbers separated by commas. Received: {','.join(texts)!r}.")
    return numbers


def parse(argv: list[str]) -> list[str]:
    """Parses the flags of the command line and of its flagfiles; returns the positional arguments.

    Raises:
      UserError: an unknown flag, a value that a flag does not take, or a flagfile that cannot be read.
    """
    try:
        return flags.FLAGS(flagfiles.expanded(argv))
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        known = [known for known in flags.FLAGS if not _is_absls(known)]
        suggestion = did_you_mean(name, known, "--{}")
        raise UserError(f"There is no flag --{name}.{suggestion} (--help lists the flags.)") from error
    except flags.IllegalFlagValueError as error:
        raise UserError(_illegal_value(error)) from error
    except flags.Error as error:
        if str(error).startswith("Missing value for flag "):
            flag = str(error).removeprefix("Missing value for flag ")
            raise UserError(f"{flag} has no value. Write {flag}=VALUE.") from error
        raise UserError(f"{error} (--help lists the flags.)") from error
    except ValueError as error:  # --noflag=value
        raise UserError(f"{error}. (--help lists the flags.)") from error


def _illegal_value(error: flags.IllegalFlagValueError) -> str:
    text, reason = str(error), f": {error.__context__}"
    if not text.startswith("flag --"):
        return f"{text} (--help lists the flags.)"
    name, _, value = text.removeprefix("flag --").removesuffix(reason).partition("=")
    return f"--{name} takes {_wanted(flags.FLAGS[name].parser)}. Received: {value!r}."


def _wanted(parser: flags.ArgumentParser) -> str:
    """What a flag takes, in words."""
    if isinstance(parser, flags.EnumParser):
        return "one of " + ", ".join(filter(None, parser.enum_values))
    if isinstance(parser, flags.BooleanParser):
        return "true or false"
    low, high = getattr(parser, "lower_bound", None), getattr(parser, "upper_bound", None)
    kind = "a whole number" if isinstance(parser, flags.IntegerParser) else "a number"
    bounds = [f"{word} {bound}" for word, bound in (("at least", low), ("at most", high)) if bound is not None]
    return f"{kind} of {' and '.join(bounds)}" if bounds else kind


def _meant(argument: str) -> str:
    """What an argument that is no flag was probably meant to be."""
    if argument.endswith(".flags"):
        return f"Did you mean --flagfile={argument}?"
    name = argument.partition("=")[0]
    if name != argument and name in flags.FLAGS:
        return f"Did you mean --{argument}?"
    return "Settings are given as --name=value."


def _line(error: Exception) -> str | None:
    """What to tell a user whose mistake, or whose machine's trouble, this is; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename or "Cannot read or write"
        return f"{where}: {_WHAT_TO_DO.get(error.errno) or error.strerror or error}."
    if isinstance(error, MemoryError):
        return _too_little_memory(error)
    if type(error).__module__.startswith("tensorflow."):
        if found := _TENSORFLOWS.search(str(error)):
            return f"{found['where']}: {_WHAT_TO_DO[_NUMBERS[found['text']]]}."
        if type(error).__name__ == "ResourceExhaustedError":
            return _too_little_memory(error)
    return None


def _too_little_memory(error: Exception) -> str:
    reason = " ".join(str(error).split())[:120] or "an array did not fit"
    return f"The machine has too little memory ({reason}). Use a smaller model or batch."


def help_text(main: Callable[[list[str]], None], arguments: str, groups: Groups) -> str:
    """What --help prints: what the command does, its usage, and its flags by group."""
    module = sys.modules[main.__module__]
    width = min(shutil.get_terminal_size().columns, 110)
    grouped = {"extension"}.union(*groups.values())
    others = [name for name in flags.FLAGS if name not in grouped and not _is_absls(name)]
    parts = [
        (module.__doc__ or "").strip(),
        f"Usage: {_program(module)} [--NAME=VALUE …] {arguments}".rstrip(),
    ]
    for title, names in {"Flags": others, **groups}.items():
        if names:
            parts.append("\n".join([f"{title}:", *(_flag_help(flags.FLAGS[name], width) for name in names)]))
    parts.append(
        "--flagfile=PATH reads flags from a file, one on each line; later flags override earlier ones.\n"
        "--extension=MODULE imports a Python module first, which may register priors, data formats and other parts."
    )
    return "\n\n".join(parts)


def _program(module: ModuleType) -> str:
    """How the command was started: as a module, or as a subcommand, which has put its name into sys.argv[0]."""
    if module.__name__ != "__main__":
        return sys.argv[0]
    return f"python -m {module.__spec__.name.removesuffix('.__main__')}" if module.__spec__ else sys.argv[0]


def _flag_help(flag: flags.Flag, width: int) -> str:
    kind = {"string": "TEXT", "int": "N", "float": "NUMBER", "path": "PATH", "bool": "true|false"}
    parser: Any = flag.parser
    values = "|".join(filter(None, parser.enum_values)) if isinstance(parser, flags.EnumParser) else None
    value = values or kind.get(flag.flag_type(), "TEXT")
    default = "" if flag.default in (None, "", []) else f" (default: {flag.default})"
    head = f"  --{flag.name}={value}"
    words = flag.help.removeprefix(f"<{'|'.join(parser.enum_values)}>: ") if values else flag.help
    text = textwrap.fill(f"{words}{default}", width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return f"{head}\n{text}"


def _is_absls(name: str) -> bool:
    """Whether a flag is absl's own, such as --verbosity."""
    return (flags.FLAGS.find_module_defining_flag(name) or "").startswith("absl.")
