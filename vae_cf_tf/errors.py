"""The exception for a mistake of the user. A command prints it as one line and exits with status 2."""

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """A mistake of the user's, told in one line: what is wrong, what was received, what to do."""


def did_you_mean(name: str, known: Sequence[str], written: str = "{}") -> str:
    """A sentence that suggests the known name closest to a misspelt one, or "". `written` is the name's format."""
    close = difflib.get_close_matches(name.replace("-", "_"), known, 1, 0.6)
    return f" Did you mean {written.format(close[0])}?" if close else ""
