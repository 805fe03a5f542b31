"""Two of everything at once, on the same folders."""

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torture import forks
from torture.world import STEPS, OnWorld, scores, versions

PAIRS = (
    *(("prepare", "prepare"), ("train", "train"), ("export", "export"), ("score", "score"), ("report", "report")),
    *(("sweep", "sweep"), ("export", "report"), ("export", "train"), ("report", "train")),
)
FULL = 6


class Together(OnWorld):
    about = (
        "two commands on the same folders, the second a random moment after the first: each succeeds or says in one "
        "line that the other is at work, and the folders are then as after one of them."
    )

    def cases(self) -> Sequence[str]:
        return [f"{a}-{b}-{k}" for k in range(self.number(FULL)) for a, b in PAIRS if {a, b} <= {*self.steps}]

    def run(self, case: str) -> dict[str, Any]:
        first, second, _ = case.split("-")
        rng = random.Random(f"{self.seed} {case}")
        seconds = self.world.measured(first)[0]
        self.world.after(second)
        folder = self.world.fresh(first)
        forks_of = [forks.command(STEPS[first].words, folder)]
        time.sleep(rng.choice((0, rng.random() * seconds)))
        forks_of.append(forks.command(STEPS[second].words, folder))
        ended = [fork.wait(900) for fork in forks_of]
        found = next(filter(None, (e.fault() for e in ended)), "")
        if not found and all(e.status for e in ended):
            found = f"neither succeeded: {[e.stderr[-200:] for e in ended]}"
        if not found:
            found = self._after(first, second, folder)
        shutil.rmtree(folder)
        return {"found": found, "status": [e.status for e in ended]}

    def _after(self, first: str, second: str, folder: Path) -> str:
        made = list(versions(folder))
        answers = {scores(version) for version in made}
        if first == second == "export":  # two versions of one model
            wanted = {scores(version) for version in versions(self.world.after("export"))}
            return "" if answers == wanted else f"versions {[v.name for v in made]} differ"
        if bad := [answer for answer in answers if answer.startswith("does not load")]:
            return bad[0]
        return self.world.difference(first, folder) if first == second else ""

    def summary(self, results: Sequence[dict[str, Any]]) -> str:
        refused = sum(2 in result["status"] for result in results)
        return f"In {refused} one of the two was refused."
