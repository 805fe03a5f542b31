"""Standard output and error that cannot end a command: closed, broken or unable to show a character."""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_PLAIN = {
    **{"±": "+-", "…": "...", "→": "->", "×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "━": "="},
    **{"λ": "lambda", "β": "beta", "Σ": "sum", "²": "^2", "‖": "|", "’": "'", "‘": "'", "“": '"', "”": '"'},
}


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: common signs as ASCII, any other character as its escape, such as \\u6620."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text), error.end


codecs.register_error("vae_cf_tf.plain", _in_plain_letters)


class Unbreakable(io.TextIOBase):
    """A stream that goes on when its reader has gone: from then on, what is written is dropped.

    A training whose `| tee log` dies, or a table piped into `head`, must not lose the work behind it.

    Args:
      stream: the text stream of a pipe, a file or a terminal.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


@contextlib.contextmanager
def unbreakable_streams() -> Iterator[None]:
    """Standard output and error as `Unbreakable`s that can show any text; closed ones lead nowhere."""
    before = sys.stdout, sys.stderr
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # `>&-`: opened at once, before a file of ours gets its descriptor
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="vae_cf_tf.plain")
    sys.stdout, sys.stderr = Unbreakable(sys.stdout), Unbreakable(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = (old or new._stream for old, new in zip(before, (sys.stdout, sys.stderr), strict=True))
