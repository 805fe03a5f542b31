"""A process that asks models from many threads, through the C API: `python -m torture.served PLAN ANSWER`.

It imports neither TensorFlow nor the code of the models. The plan and the answer are JSON files; see `Requests`.
"""

import contextlib
import ctypes
import faulthandler
import itertools
import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import serving_c_api

from torture import asked
from torture.c_api import Session

THREADS, POLL, LOOK = 8, 0.5, 5  # seconds between two looks at the folder, and at the memory, which may take one
LAST = 0.1  # share of the last model's requests
PAGE, KEPT = 4096, 2_000_000  # bytes; requests whose times are kept


class Mallinfo(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    )


MALLINFO = ctypes.CDLL(None).mallinfo2
MALLINFO.restype = Mallinfo


def memory() -> tuple[int, int]:
    """Resident bytes of this process, and those that it has asked for and not given back."""
    resident, found = Path("/proc/self/statm").read_text().split()[1], MALLINFO()
    return int(resident) * PAGE, found.uordblks + found.hblkhd


class Served:
    """The newest version of a model's folder, as TF Serving has it: one is loaded, then the other is let go.

    Args:
      library: of `serving_c_api.api`.
      folder: of the model.
    """

    def __init__(self, library: Any, folder: Path):
        self.library, self.folder = library, folder
        self.changed = threading.Condition()
        self.asking: Counter[int] = Counter()
        self.now = self._load(self.newest())

    def newest(self) -> int:
        return max(int(path.name) for path in self.folder.iterdir() if re.fullmatch("[0-9]+", path.name))

    def _load(self, number: int) -> tuple[int, Session, asked.Catalogue]:
        version = self.folder / str(number)
        session, catalogue = Session(self.library, version), asked.Catalogue(version)
        asked.warm_up(session, catalogue)
        return number, session, catalogue

    def renew(self) -> None:
        """Switches to the newest version, and closes the one before when its last request has ended."""
        if (number := self.newest()) == self.now[0]:
            return
        new, old = self._load(number), self.now
        with self.changed:
            self.now = new
            self.changed.wait_for(lambda: not self.asking[old[0]])
        old[1].close()

    @contextlib.contextmanager
    def held(self) -> Iterator[tuple[int, Session, asked.Catalogue]]:
        with self.changed:
            held = self.now
            self.asking[held[0]] += 1
        try:
            yield held
        finally:
            with self.changed:
                self.asking[held[0]] -= 1
                self.changed.notify_all()


class Run:
    """The requests of a plan, and what is kept of them."""

    def __init__(self, plan: dict[str, Any]):
        library = serving_c_api.api(plan["libraries"])
        self.models = [Served(library, Path(folder)) for folder in plan["models"]]
        self.plan, self.numbers, self.faults = plan, itertools.count(), []
        self.counted = threading.Lock()
        self.kinds: Counter[str] = Counter()
        self.by_version: Counter[int] = Counter()
        # Of each request: start, signature, seconds. Made at once: a list would grow with the memory that is watched.
        self.times = np.full((KEPT, 3), np.nan, np.float32)
        self.memory: list[tuple[float, int, int]] = []  # time, and bytes
        self.started, self.ended = time.monotonic(), threading.Event()
        self.progress = np.memmap(plan["progress"], np.int64, "w+", shape=(THREADS,))

    def is_over(self, number: int) -> bool:
        if self.plan["stop"]:
            return Path(self.plan["stop"]).exists()
        return number >= self.plan["requests"] and time.monotonic() - self.started > self.plan["seconds"]

    def ask(self, thread: int) -> None:
        """A thread: requests until the end, or until something is wrong with ten."""
        try:
            while not self.is_over(number := next(self.numbers)) and len(self.faults) < 10:
                self.progress[thread] = number
                self._ask(number)
        except BaseException as error:
            self.faults.append(f"request {number}: {type(error).__name__}: {error}")
            raise

    def _ask(self, number: int) -> None:
        rng = random.Random(f"{self.plan['seed']} {number}")
        model = self.models[-1] if rng.random() < LAST else self.models[0]
        with model.held() as (version, session, catalogue):
            request = asked.request(catalogue, rng)
            started = time.monotonic() - self.started
            answer = session.run(request.signature, request.inputs)
            fault = asked.faults(request, answer, catalogue, session, rng)
        if fault:
            self.faults.append(f"request {number}, version {version}, {request.signature}, {fault}")
        outcome = "refused" if answer.code else "answered"
        with self.counted:
            self.kinds[f"{request.signature} {request.kind} {outcome}"] += 1
            self.by_version[version] += 1
        self.times[number % KEPT] = started, asked.SIGNATURES.index(request.signature), answer.seconds

    def watch(self) -> None:
        """A thread: looks for new versions, at the memory, and whether the harness is still there."""
        parent, looked = os.getppid(), 0.0
        while not self.ended.wait(POLL):
            if os.getppid() != parent:
                os._exit(1)
            for model in self.models:
                model.renew()
            if (now := time.monotonic() - self.started) > looked + LOOK:
                self.memory.append((now, *memory()))
                looked = now
            if self.plan["live"]:
                Path(self.plan["live"]).write_text(str(self.models[0].now[0]))

    def carry_out(self) -> dict[str, Any]:
        threads = [threading.Thread(target=self.ask, args=[number]) for number in range(THREADS)]
        watcher = threading.Thread(target=self.watch)
        for thread in [*threads, watcher]:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - self.started
        self.ended.set()
        watcher.join()
        return {
            "faults": self.faults[:5],
            "requests": sum(self.kinds.values()),
            "refused": sum(count for kind, count in self.kinds.items() if kind.endswith(" refused")),
            "kinds": dict(sorted(self.kinds.items())),
            "versions": dict(self.by_version),
            "asked_for": round(seconds, 1),
            "milliseconds": self._latencies(seconds),
            "memory": self.memory,
        }

    def _latencies(self, seconds: float) -> dict[str, dict[str, list[float]]]:
        """p50 and p99 of the first and the last fifth, of all signatures and of each."""
        parts = {"first": (0, seconds / 5), "last": (seconds * 4 / 5, seconds)}
        begin, signature, took = self.times.T
        found: dict[str, dict[str, list[float]]] = {}
        for number, name in enumerate(("all", *asked.SIGNATURES), -1):
            for part, (after, before) in parts.items():
                times = took[(begin >= after) & (begin <= before) & ((signature == number) | (name == "all"))]
                if times.size:
                    values = (np.percentile(times, (50, 99)) * 1e3).astype(float).round(2).tolist()
                    found.setdefault(name, {})[part] = values
        return found


def main(plan: str, answer: str) -> None:
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    run = Run(json.loads(Path(plan).read_text()))
    result = run.carry_out()
    imported = [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras", "vae_cf_tf")]
    assert not imported, imported
    Path(answer).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
