"""Carries out a sweep: the runs one after the other, each in its own process, from where the last start left off."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from trainers.sweep.plans import OF_THE_DATA, Configuration, written
from trainers.sweep.worker import FINISHED, PER_USER, settings_that_count
from vae_cf_tf import metrics
from vae_cf_tf.config import Config
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.split import SPLIT_FILE
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside
from vae_cf_tf.workdir import Workdir

LOG = "log.txt"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A run to be made."""

    point: Configuration
    config: Config

    @property
    def folder(self) -> Path:
        return Path(self.config.workdir)

    @property
    def name(self) -> str:
        return f"{written(self.point.varied)}, seed={self.config.seed}"

    def seconds(self) -> float | None:
        """How long the finished run took; None for one that is not finished."""
        try:
            done = json.loads((self.folder / FINISHED).read_text())
            same = done["settings"] == settings_that_count(self.config) and (self.folder / PER_USER).exists()
            return float(done["seconds"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def tasks(points: Sequence[Configuration], seeds: Sequence[int], sweep_dir: Path) -> list[Task]:
    """All runs: every configuration with the first seed, then with the next, so that early results cover the plan."""
    return [Task(point, point.run(sweep_dir, seed)) for seed in seeds for point in points]


def prepare(base: Config, sweep_dir: Path, todo: Sequence[Task], say: Say) -> None:
    """Reads and splits the data once for all runs, and checks that the folders are this sweep's."""
    for task in todo:
        Workdir(task.folder).check(task.config)
    data = json.dumps({name: getattr(base, name) for name in OF_THE_DATA}, indent=1) + "\n"
    of_data = sweep_dir / "data.json"
    if of_data.exists() and of_data.read_text() != data:
        raise UserError(
            f"{sweep_dir} has a sweep on other data or another split ({of_data}). Give another --sweep_dir."
        )
    if not (sweep_dir / SPLIT_FILE).exists():
        say(f"Reading {base.data or base.dataset or 'the embedded data set'} …")
        split = load_split(base)
        metrics.check_catalogue(len(split.item_ids))
        with written_aside(of_data) as aside:
            aside.write_text(data)
        split.save(sweep_dir)


@contextlib.contextmanager
def alone(sweep_dir: Path) -> Iterator[int]:
    """Holds the sweep's lock, which its worker inherits, so that no two processes write into one workdir."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    with open(sweep_dir / ".lock", "w") as lock:
        for wait in (1, 2, 4, 0):  # a worker whose sweep was killed needs a moment to notice
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(wait)
        else:
            raise UserError(f"Another sweep is at work in {sweep_dir}. Wait for it, or give another --sweep_dir.")
        yield lock.fileno()


def carry_out(
    todo: Sequence[Task], sweep_dir: Path, keep: str, lock: int, say: Say, after_each: Callable[[], None]
) -> dict[str, str]:
    """Makes all runs that are not finished; returns what went wrong, by the run's folder.

    A run that fails does not end the sweep; the next start tries it again.
    """
    failed: dict[str, str] = {}
    seconds = {task: task.seconds() for task in todo}
    started = time.monotonic()
    for task in todo:
        if seconds[task] is not None:
            continue
        done = sum(s is not None for s in seconds.values()) + len(failed)

        def head(task: Task = task, done: int = done) -> str:
            elapsed = time.monotonic() - started
            left = time_left([t for t in todo if seconds[t] is None and t.config.workdir not in failed], seconds)
            ahead = "" if left is None else f", about {clock(left)} left"
            return f"[{done}/{len(todo)}] {clock(elapsed)}{ahead} · {task.name}"

        if not sys.stdout.isatty():
            say(head())
        error = _run(task, sweep_dir, keep, lock, head)
        seconds[task] = task.seconds()
        if seconds[task] is None:
            failed[task.config.workdir] = error or "it ended without its results"
            say(f"Failed: {task.name}: {failed[task.config.workdir]} (log: {task.folder / LOG})")
        after_each()
    return failed


def time_left(left: Sequence[Task], seconds: dict[Task, float | None]) -> float | None:
    """Seconds that these runs should take: as long as the same configuration did with another seed, or else as the
    mean run; None before any run is finished."""
    known = [(task.point.name, s) for task, s in seconds.items() if s is not None]
    if not known:
        return None
    mean = sum(s for _, s in known) / len(known)
    by_point: dict[str, list[float]] = {}
    for name, s in known:
        by_point.setdefault(name, []).append(s)
    return sum(sum(found) / len(found) if (found := by_point.get(t.point.name)) else mean for t in left)


def clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}"


def _run(task: Task, sweep_dir: Path, keep: str, lock: int, head: Callable[[], str]) -> str:
    """Makes one run; returns its error, or ""."""
    task.folder.mkdir(parents=True, exist_ok=True)
    for name in (SPLIT_FILE, "baselines.json"):
        if (sweep_dir / name).exists() and not (task.folder / name).exists():
            _share(sweep_dir / name, task.folder / name)
    settings = (f"--{name}={value}" for name, value in vars(task.config).items())
    command = [sys.executable, "-m", "trainers.sweep.worker", *settings, f"--keep={keep}"]
    with open(task.folder / LOG, "a") as log:
        begin = log.tell()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(lock,))
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
                    break
                if sys.stdout.isatty():
                    print(f"\r\x1b[K{head()}{_epoch(task)}", end="", flush=True)
        finally:
            process.stdin.close()  # on Ctrl-C, it ends the worker
            process.wait()
            if sys.stdout.isatty():
                print("\r\x1b[K", end="", flush=True)
    if process.returncode == 0:
        if not (sweep_dir / "baselines.json").exists():
            with written_aside(sweep_dir / "baselines.json") as aside:
                shutil.copyfile(task.folder / "baselines.json", aside)
        return ""
    with open(task.folder / LOG, "rb") as log:
        log.seek(begin)
        lines = log.read().decode("utf-8", "replace").splitlines()
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    code = process.returncode
    ended = f"it was killed by signal {-code}" if code < 0 else f"it ended with status {code}"
    return errors[-1] if errors else ended


def _share(source: Path, target: Path) -> None:
    """A second name of the file, or a copy where the file system has no such thing; nothing writes into either."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _epoch(task: Task) -> str:
    try:
        rows = (task.folder / "history.csv").read_text().count("\n") - 1
    except OSError:
        return ""
    return f": epoch {rows} of at most {task.config.epochs}"
