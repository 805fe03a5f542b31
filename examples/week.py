"""Retrains for a week, a day at a time, from scratch and from the day before: `python -m examples.week --data=ml-100k`.

The log, a MovieLens u.data, is cut at the ends of its last days. Each day a cold run starts from drawn weights, and a
warm one from the warm run of the day before. All settings of trainers.main are flags here too. The table has the epochs
and the seconds of training that each needs to reach the cold run's best validation NDCG@100, and the test NDCG@100 of
the network alone. Held-out users are the same every day: no run has learned from them.
"""

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from trainers.setting_flags import define_flags, settings_from_flags
from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import silent
from vae_cf_tf.settings import Settings

claim, train = LazyModule("trainers.claim"), LazyModule("trainers.train")
ranking, workdirs = LazyModule("vae_cf_tf.evaluation.ranking"), LazyModule("vae_cf_tf.runs.workdir")
DAY = 86_400
HEADER = ["day", "events", "items", "new", "cold: epochs", "seconds", "test", "warm: epochs", "seconds", "test"]


def cut(log: Path, folder: Path, days: int) -> list[Path]:
    """The log up to the end of each of its last `days` + 1 days (UTC), a folder each."""
    lines = log.read_text(encoding="latin-1").splitlines(keepends=True)
    times = np.array([int(line.split("\t")[3]) for line in lines])
    end = (times.max() // DAY + 1) * DAY
    folders = []
    for day in range(days + 1):
        part = folder / f"day{day}"
        part.mkdir(parents=True, exist_ok=True)
        before = times < end - (days - day) * DAY
        text = "".join(line for line, kept in zip(lines, before, strict=True) if kept)
        (part / "u.data").write_text(text, encoding="latin-1")
        folders.append(part)
    return folders


def run(settings: Settings) -> dict[str, Any]:
    """Trains in the workdir, or goes on, and returns the run's split, rows of history.csv and test NDCG@100."""
    workdir = workdirs.Workdir(settings.run.workdir)
    with workdir.locked(), open(os.devnull, "w") as nowhere:
        split = claim.prepared_split(settings, workdir, frozenset(), silent)
        with contextlib.redirect_stdout(nowhere):
            model, log = train.train(settings, workdir, split, silent)
        test = ranking.evaluate(ranking.model_ranker(model), split.test, settings.evaluation.eval_batch_size)
    return {"split": split, "rows": log.rows, "test": float(np.mean(test["ndcg@100"]))}


def reached(rows: list[dict[str, float]], goal: float) -> tuple[int, float, bool]:
    """Epochs and seconds until validation NDCG@100 reaches `goal` (else of the whole run), and whether it does."""
    seconds = np.cumsum([row["seconds"] for row in rows])
    first = next((n for n, row in enumerate(rows) if row["val_ndcg@100"] >= goal), None)
    last = len(rows) - 1 if first is None else first
    return last + 1, float(seconds[last]), first is not None


def main(argv: list[str]) -> None:
    settings, days = settings_from_flags({"user_draws": "hashed", "workdir": "runs/week"}), flags.FLAGS.days
    log, folder = Path(settings.data.data) / "u.data", Path(settings.run.workdir)
    if not log.is_file():
        raise UserError(f"{log} is missing. Give --data=DIR, the folder of MovieLens 100K.")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # many models in one process: it warns of tracing each
    print("| " + " | ".join(HEADER) + " |\n|" + " --- |" * len(HEADER))
    known: set[str] = set()
    totals = np.zeros(4)
    for day, data in enumerate(cut(log, folder / "logs", days)):
        of_day = settings.replaced(data=str(data), workdir=str(folder / f"cold{day}"))
        cold = run(of_day)
        warm = cold
        if day:
            before = folder / (f"warm{day - 1}" if day > 1 else "cold0")
            warm = run(of_day.replaced(workdir=str(folder / f"warm{day}"), warm_start=str(before)))
        goal = max(row["val_ndcg@100"] for row in cold["rows"])
        items = cold["split"].item_ids
        cells = [day, cold["split"].train.nnz, len(items), len(set(items) - known) if day else ""]
        for found in (cold, warm):
            epochs, seconds, is_reached = reached(found["rows"], goal)
            mark = "" if is_reached else "never in "
            cells += [f"{mark}{epochs}", f"{seconds:.1f}", f"{found['test']:.4f}"]
            if day:
                totals += np.array([epochs, seconds, 0, 0] if found is cold else [0, 0, epochs, seconds])
        print("| " + " | ".join(map(str, cells if day else [*cells[:7], "", "", ""])) + " |", flush=True)
        known |= set(items)
    print(f"\nWarm / cold over {days} days: epochs {totals[2] / totals[0]:.2f}, seconds {totals[3] / totals[1]:.2f}.")


def define() -> None:
    define_flags()
    flags.DEFINE_integer("days", 7, "Days to retrain for.", lower_bound=1)


if __name__ == "__main__":
    sys.exit(commands.run(main, define))
