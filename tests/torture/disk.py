"""I/O errors at every event, a limit on every file's size, and a small file system."""

import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torture import faults, forks
from torture.world import STEPS, OnWorld, content

LIMITS, SIZES = 8, 6


class Disk(OnWorld):
    about = (
        "ENOSPC or EIO in place of the n-th file event, a limit on the size of files, which also meets what C++ does, "
        "or a small file system that runs full: one line and status 2, what was there before is as it was, and the "
        "same command without the fault ends as if nothing had happened."
    )

    def cases(self) -> Sequence[str]:
        found, can_mount = [], _can_mount()
        for step in self.steps:
            if step == "sweep":  # its runs are processes of their own, which no fault of this one reaches
                continue
            all_cases = [f"{step}-event-{k}" for k in range(self.world.measured(step)[1])]
            all_cases += [f"{step}-limit-{k}" for k in range(LIMITS)]
            all_cases += [f"{step}-small-{k}" for k in range(SIZES) if can_mount]
            rng = random.Random(f"{self.seed} {step}")
            found += rng.sample(all_cases, self.number(len(all_cases)))
        return found

    def run(self, case: str) -> dict[str, Any]:
        step, how, k = case.split("-")
        rng = random.Random(f"{self.seed} {case}")
        if how == "small":
            return self._small(step, rng)
        folder = self.world.fresh(step)
        before = content(folder)
        if how == "event":
            what = rng.choice(tuple(faults.ERRORS))
            said, prepare = f"{what} at event {k}", faults.at_event(int(k), what, folder)
        else:
            size = int(2 ** rng.uniform(12, 19))
            said, prepare = f"no file beyond {size} bytes", faults.file_limit(size, kills=False)
        ended = forks.command(STEPS[step].words, folder, prepare).wait()
        found = ended.fault() or _lost(before, folder) or self._ends_well(ended, step, folder)
        shutil.rmtree(folder)
        return {"found": f"{said}: {found}" if found else "", "status": ended.status, "line": ended.stderr[-300:]}

    def _small(self, step: str, rng: random.Random) -> dict[str, Any]:
        mount = self.world.stage  # the commands run on it
        needed = sum(p.stat().st_size for p in self.world.before(step).rglob("*") if p.is_file()) // 1024
        left = sum(p.stat().st_size for p in self.world.after(step).rglob("*") if p.is_file()) // 1024 - needed
        size = needed + int(left * rng.uniform(0.1, 1.2)) + 200
        shutil.rmtree(mount, ignore_errors=True)
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", mount], check=True)
        try:
            folder = shutil.copytree(self.world.before(step), mount, dirs_exist_ok=True)
            before = content(folder)
            ended = forks.command(STEPS[step].words, folder).wait()
            found = ended.fault() or _lost(before, folder)
            if not found:
                subprocess.run(["mount", "-o", "remount,size=1g", mount], check=True)
                found = self._ends_well(ended, step, folder)
        finally:
            subprocess.run(["umount", "-l", mount], check=True)
        said = f"{size} KiB in all"
        return {"found": f"{said}: {found}" if found else "", "status": ended.status, "line": ended.stderr[-300:]}

    def _ends_well(self, ended: forks.Ended, step: str, folder: Path) -> str:
        if not ended.status and not self.world.difference(step, folder):  # it did without, or needed less
            return ""
        fault = self.world.restarted(step, folder)
        return f"then without a fault: {fault}" if fault else ""

    def summary(self, results: Sequence[dict[str, Any]]) -> str:
        failed = sum(result["status"] == 2 for result in results)
        text = f"{failed} ended with status 2, the others needed less or did without."
        return text if _can_mount() else f"{text} No small file system: this user may not mount one."


def _lost(before: dict[str, str], folder: Path) -> str:
    """What a failed command took or changed of what was there."""
    now = content(folder)
    changed = [name for name, digest in before.items() if now.get(name) != digest]
    return f"{changed[0]} was lost or changed" if changed else ""


def _can_mount() -> bool:
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"], capture_output=True
    )
    return tried.returncode == 0
