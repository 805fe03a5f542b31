"""What a part of the harness is, and the record of its cases."""

import abc
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar


class Part(abc.ABC):
    """A kind of torture.

    Args:
      folder: to work in; what is in it is made again where it is missing.
      seed: every case is a function of it and of the case's name.
      scale: 1 for the full size; smaller for fewer cases.
      steps: the commands that kills, disk, power, together and bytes are about; none: all.
    """

    about: ClassVar[str]
    """What a case is, for the table."""

    def __init__(self, folder: Path, seed: int, scale: float, steps: Sequence[str] = ()):
        self.folder, self.seed, self.scale, self.steps = folder, seed, scale, steps
        folder.mkdir(parents=True, exist_ok=True)

    @abc.abstractmethod
    def cases(self) -> Sequence[str]:
        """The names of all cases."""

    @abc.abstractmethod
    def run(self, case: str) -> dict[str, Any]:
        """Runs a case. The result has `found`, a text that says what went wrong, or "", and what else is to be kept."""

    def summary(self, results: Sequence[dict[str, Any]]) -> str:
        """What the table says beside the numbers of cases and findings."""
        return ""

    def number(self, full: int) -> int:
        """`full` by scale, at least 1."""
        return max(1, round(full * self.scale))


class Record:
    """The finished cases of a part, one JSON line each, so that a stopped harness goes on."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.results = {}
        for line in lines:
            try:
                result = json.loads(line)
            except ValueError:  # the harness was killed in this line
                continue
            self.results[result["case"]] = result

    def add(self, case: str, result: dict[str, Any], seconds: float) -> None:
        self.results[case] = {"case": case, **result, "seconds": round(seconds, 2)}
        with self.path.open("a") as f:
            f.write(json.dumps(self.results[case]) + "\n")


def carry_out(part: Part, name: str, record: Record, sample: int = 0) -> list[dict[str, Any]]:
    """Runs the cases that are not done, or `sample` of them drawn by the seed; returns the results of all."""
    cases = list(part.cases())
    if sample:
        cases = random.Random(f"{part.seed} {name}").sample(cases, min(sample, len(cases)))
    for i, case in enumerate(cases):
        if case in record.results:
            continue
        started = time.monotonic()
        result = part.run(case)
        record.add(case, result, time.monotonic() - started)
        mark = f"FOUND {result['found']}" if result["found"] else "as it should be"
        print(f"{name} {i + 1}/{len(cases)} {case}: {mark}", flush=True)
    return [record.results[case] for case in cases]
