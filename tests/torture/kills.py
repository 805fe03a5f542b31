"""SIGKILL, SIGTERM and SIGINT at random moments, before each event, and in the middle of a write; then the restart."""

import random
import shutil
import signal
import time
from collections.abc import Sequence
from typing import Any

from torture import faults, forks
from torture.world import STEPS, OnWorld, scores, versions

FULL = {"prepare": 50, "train": 90, "export": 60, "score": 50, "report": 40, "sweep": 10}
MOMENTS = ("time", "event", "event", "write")


class Kills(OnWorld):
    about = (
        "a command killed at a random moment, before the n-th file event or in the middle of a write, then started "
        "again until it ends: all files and exported scores equal those of an undisturbed run, nothing unfinished "
        "stays, and every version that was ever visible loads."
    )

    def cases(self) -> Sequence[str]:
        return [f"{step}-{k}" for step, full in FULL.items() if step in self.steps for k in range(self.number(full))]

    def run(self, case: str) -> dict[str, Any]:
        step = case.split("-")[0]
        rng = random.Random(f"{self.seed} {case}")
        seconds, events = self.world.measured(step)
        folder = self.world.fresh(step)
        kills, said = 0, []
        for _ in range(rng.choice((1, 1, 2))):  # some are killed twice
            how, what = rng.choice(MOMENTS), rng.choice(tuple(faults.KILLS))
            prepare, moment = (lambda: None), rng.random() * seconds
            if how == "event":
                at = rng.randrange(events)
                prepare = faults.at_event(at, what, folder)
                said.append(f"{what} before event {at} of {events}")
            elif how == "write":
                size = int(2 ** rng.uniform(14, 20))
                prepare = faults.file_limit(size, kills=True)
                said.append(f"killed as a file grows beyond {size} bytes")
            else:
                said.append(f"{what} after {moment:.2f} s")
            fork = forks.command(STEPS[step].words, folder, prepare)
            if how == "time":
                time.sleep(moment)
                fork.kill(faults.KILLS[what])
            ended = fork.wait()
            signals = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGXFSZ)
            kills += ended.status in (*signals, 130)
            if fault := ended.fault(allowed=(0, 130, *signals)):
                return {"found": f"{said}: {fault}", "kills": kills, "how": said}
            for version in versions(folder):
                if (answer := scores(version)).startswith("does not load"):
                    return {"found": f"{said}: {version.name} {answer}", "kills": kills, "how": said}
        found = self.world.restarted(step, folder)
        shutil.rmtree(folder)
        return {"found": f"{said}: {found}" if found else "", "kills": kills, "how": said}

    def summary(self, results: Sequence[dict[str, Any]]) -> str:
        return f"{sum(result['kills'] for result in results)} kills struck before the end."
