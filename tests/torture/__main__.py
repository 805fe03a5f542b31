"""Runs parts of the harness and writes a table: `make torture`, or `python -m torture PART … --seed=0` in tests/."""

import argparse
import importlib
import shutil
import sys
from pathlib import Path

from torture import forks
from torture.part import Record, carry_out
from torture.world import STEPS

PARTS = {
    "kills": "torture.kills:Kills",
    "disk": "torture.disk:Disk",
    "power": "torture.power:Power",
    "together": "torture.together:Together",
    "files": "torture.inputs:Files",
    "bytes": "torture.flips:Bytes",
    "requests": "torture.requests:Requests",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; none: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="1: the full size, .1: a tenth of the cases")
    parser.add_argument("--sample", type=int, default=0, help="this many cases of each part; 0: all")
    parser.add_argument("--steps", type=lambda text: text.split(","), default=(), metavar="STEP,…",
                        help="only these commands in kills, disk, power, together, bytes: train,export")  # fmt: skip
    parser.add_argument("--dir", type=Path, default=Path("runs/torture"), help="folder of the cases and their record")
    parser.add_argument("--fresh", action="store_true", help="forget what is done")
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}")
    if unknown := [step for step in options.steps if step not in STEPS]:
        parser.error(f"there is no step {unknown[0]!r}, only {', '.join(STEPS)}")
    forks.import_what_takes_long()
    folder = options.dir.resolve() / f"seed-{options.seed}"
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    rows, found = [], 0
    for name in options.parts or PARTS:
        module, kind = PARTS[name].split(":")
        kind_of_part = getattr(importlib.import_module(module), kind)
        part = kind_of_part(folder / name, options.seed, options.scale, options.steps)
        results = carry_out(part, name, Record(folder / f"{name}.jsonl"), options.sample)
        faults = [result for result in results if result["found"]]
        found += len(faults)
        minutes = sum(result["seconds"] for result in results) / 60
        about = " ".join(filter(None, [part.about, part.summary(results)]))
        rows.append(f"| {name} | {len(results):,} | {len(faults)} | {minutes:.1f} | {about} |")
    table = "\n".join(["| part | cases | findings | minutes | what |", "| --- | --- | --- | --- | --- |", *rows])
    print(table)
    (folder / "table.md").write_text(table + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
