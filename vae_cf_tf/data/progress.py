"""Progress while a large log is read."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import pyarrow as pa

from vae_cf_tf.say import Say

EVERY = 10.0
"""Seconds between two lines. A log that is read faster has none."""

Block = TypeVar("Block", pa.RecordBatch, list[Any])


class Pace:
    """Passes on a line at most every EVERY seconds.

    Args:
      say: receives the lines.
    """

    def __init__(self, say: Say):
        self._say = say
        self._last = time.monotonic()

    def told(self, line: str) -> None:
        """Says the line, unless another one was said a short time ago."""
        if time.monotonic() - self._last >= EVERY:
            self._say(line)
            self._last = time.monotonic()


class Progress:
    """Tells how many rows were read, from time to time."""

    def __init__(self, say: Say):
        self._pace = Pace(say)
        self._rows = 0

    def passed(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yields the blocks: record batches, or lists of columns."""
        for block in blocks:
            yield block
            self._rows += len(block) if isinstance(block, pa.RecordBatch) else len(block[0])
            self._pace.told(f"{self._rows:,} rows read so far …")
