"""Functions that receive lines of text about progress. They are passed to the code that reports it."""

from collections.abc import Callable

Say = Callable[[str], None]


def silent(line: str) -> None:
    """Tells nobody."""


def print_line(line: str) -> None:
    """Prints a line at once, also where the output is a file or a pipe."""
    print(line, flush=True)
