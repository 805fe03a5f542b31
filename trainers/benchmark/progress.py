"""What a person sees while the benchmark measures."""

import sys
import time

from tqdm import tqdm


class Progress:
    """Says on stderr what is being measured: in a bar that is redrawn at a terminal, elsewhere in a line a stage."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._bar = tqdm(
            total=1.0, disable=None, leave=False, dynamic_ncols=True, ascii=" #",
            bar_format="[{bar:20}] {elapsed} {desc}",
        )  # fmt: skip

    def begin(self, stage: str) -> None:
        """Tells that a stage begins."""
        if self._bar.disable:
            print(f"[{time.monotonic() - self._started:.0f} s] {stage}", file=sys.stderr, flush=True)
        self._bar.set_description_str(stage, refresh=False)
        self.advance(0.0)

    def advance(self, share: float) -> None:
        """Tells which share of the stage is done, from 0 to 1."""
        self._bar.n = share
        self._bar.refresh()

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()
