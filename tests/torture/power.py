"""Power cuts: whether each file was on the disk before its name was, by the order of fsync and rename."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torture import forks
from torture.world import STEPS, OnWorld


class Power(OnWorld):
    about = (
        "the fsync and rename calls of a command, in their order: whenever a file or a folder gets its final name, all "
        "that it holds was synced before, as it is then, and the folder with the new name is synced after."
    )

    def cases(self) -> Sequence[str]:
        return list(self.steps)

    def run(self, case: str) -> dict[str, Any]:
        self.world.before(case)
        folder, journal = self.world.fresh(case), self.folder / "journal.jsonl"
        journal.unlink(missing_ok=True)
        ended = forks.command(STEPS[case].words, folder, recorder(journal)).wait()
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        found = ended.fault(allowed=(0,)) or "; ".join(faults_of(lines)[:5])
        shutil.rmtree(folder)
        return {"found": found, "renames": sum(line["event"] == "rename" for line in lines)}

    def summary(self, results: Sequence[dict[str, Any]]) -> str:
        return f"{sum(result['renames'] for result in results)} renames."


def recorder(journal: Path) -> Callable[[], None]:
    """What makes a fork write its fsync and rename calls to a journal.

    A line has "event" (sync or rename), "path", and "files": digests of the files at or below the path, by inode.
    """

    def install() -> None:
        log = open(journal, "a")  # noqa: SIM115
        fsync, rename, replace = os.fsync, os.rename, os.replace

        def note(event: str, path: str) -> None:
            log.write(json.dumps({"event": event, "path": path, "files": _digests(Path(path), event)}) + "\n")
            log.flush()

        def recorded_fsync(descriptor: int) -> None:
            fsync(descriptor)
            note("sync", os.readlink(f"/proc/self/fd/{descriptor}"))

        def recorded(call: Callable) -> Callable:
            def renaming(source: os.PathLike, target: os.PathLike, **options: Any) -> None:
                call(source, target, **options)
                note("rename", os.path.abspath(target))

            return renaming

        os.fsync, os.rename, os.replace = recorded_fsync, recorded(rename), recorded(replace)

    return install


def _digests(path: Path, event: str) -> dict[str, str]:
    """Of a file, or for a rename of all files below a folder; of the folders, their names."""
    paths = [path, *(path.rglob("*") if event == "rename" else ())]
    found = {}
    for each in paths:
        inside = each.read_bytes() if each.is_file() else "\n".join(sorted(os.listdir(each))).encode()
        found[str(each.stat().st_ino)] = hashlib.sha256(inside).hexdigest()
    return found


def faults_of(lines: Sequence[dict[str, Any]]) -> list[str]:
    """What a power cut could have taken, by a journal."""
    synced: dict[str, str] = {}
    waiting: dict[str, str] = {}  # new names whose folder is not synced yet, by folder
    found = []
    for line in lines:
        path = Path(line["path"])
        if line["event"] == "sync":
            synced |= line["files"]
            waiting.pop(str(path), None)
        elif not any(part.startswith(".") for part in path.parts[-2:]):
            if any(synced.get(inode) != digest for inode, digest in line["files"].items()):
                found.append(f"{path} was renamed before all of it was synced")
            waiting[str(path.parent)] = str(path)
    return found + [f"the folder of {path} was not synced after the rename" for path in waiting.values()]
