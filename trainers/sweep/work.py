"""Carries out a sweep: each run in its own process, one or some at a time, from where the last start left off."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from trainers.sweep.plans import OF_THE_DATA, Configuration, described
from trainers.sweep.worker import FINISHED, PER_USER
from vae_cf_tf import metrics
from vae_cf_tf.config import Config
from vae_cf_tf.data import source
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.split import SPLIT_FILE
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import locked, written_aside
from vae_cf_tf.say import Say
from vae_cf_tf.workdir import Workdir

LOG, BASELINES = "log.txt", "baselines.json"
THREADS = ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that tell a process how many cores to use, where they are not set already."""


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
        return f"{described(self.point.varied)}, seed={self.config.seed}"

    def seconds(self) -> float | None:
        """How long the finished run took; None for one that is not finished."""
        try:
            done = json.loads((self.folder / FINISHED).read_text())
            same = done["settings"] == self.config.figures_depend_on() and (self.folder / PER_USER).exists()
            return float(done["seconds"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def tasks(points: Sequence[Configuration], seeds: Sequence[int], sweep_dir: Path) -> list[Task]:
    """All runs: every configuration with the first seed, then with the next, so that early results cover the plan."""
    return [Task(point, point.run(sweep_dir, seed)) for seed in seeds for point in points]


def prepare(base: Config, given: frozenset[str], sweep_dir: Path, todo: Sequence[Task], say: Say) -> None:
    """Reads and splits the data once for all runs, and checks that the folders are this sweep's."""
    for task in todo:
        Workdir(task.folder).check(task.config)
    data = json.dumps({name: getattr(base, name) for name in OF_THE_DATA}, indent=1) + "\n"
    of_data = sweep_dir / "data.json"
    files = Workdir(sweep_dir)  # which holds the data of all runs
    if files.source.exists() and (changed := source.difference(files.read_source(), base)):
        raise UserError(f"{sweep_dir} has a sweep on other data: {changed}. Give another --sweep_dir.")
    if of_data.exists() and of_data.read_text() != data:
        raise UserError(
            f"{sweep_dir} has a sweep on other data or another split ({of_data}). Give another --sweep_dir."
        )
    if not files.has_split():
        described = source.describe(base)
        split = load_split(base, say, given)
        metrics.check_catalogue(len(split.item_ids))
        with written_aside(of_data) as aside:
            aside.write_text(data)
        files.claim_data(split, described)


@contextlib.contextmanager
def alone(sweep_dir: Path) -> Iterator[int]:
    """Holds the sweep's lock, which its workers inherit, so that no two processes write into one workdir."""
    busy = f"Another sweep is at work in {sweep_dir}. Wait for it, or give another --sweep_dir."
    with locked(sweep_dir, busy, waits=(1, 2, 4)) as lock:  # a worker whose sweep was killed needs a moment to notice
        yield lock


def carry_out(
    todo: Sequence[Task], sweep_dir: Path, keep: str, jobs: int, lock: int, say: Say, after_each: Callable[[], None]
) -> dict[str, str]:
    """Makes all runs that are not finished, `jobs` at a time; returns what went wrong, by the run's folder.

    A run that fails does not end the sweep; the next start tries it again.
    """
    failed: dict[str, str] = {}
    seconds = {task: task.seconds() for task in todo}
    waiting = [task for task in todo if seconds[task] is None]
    running: list[_Run] = []
    started, live = time.monotonic(), sys.stdout.isatty()
    clear = "\r\x1b[K" if live else ""

    def head() -> str:
        left = time_left([*waiting, *(run.task for run in running)], seconds)
        at_once = min(jobs, len(waiting) + len(running))
        ahead = "" if left is None else f", about {clock(left / at_once)} left"
        done = len(todo) - len(waiting) - len(running)
        return f"[{done}/{len(todo)}] {clock(time.monotonic() - started)}{ahead}"

    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                line = head()
                running.append(_Run(waiting.pop(0), sweep_dir, keep, jobs, lock))
                if not live:
                    say(f"{line} · {running[-1].task.name}")
            for _ in range(5):
                if any(run.process.poll() is not None for run in running):
                    break
                time.sleep(0.2)
            if live:
                now = "; ".join(f"{run.task.name}{run.epoch()}" for run in running)
                line = f"{head()} · {now}"[: shutil.get_terminal_size().columns - 1]
                print(f"{clear}{line}", end="", flush=True)
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                error, task = run.ended(), run.task
                seconds[task] = task.seconds()
                if seconds[task] is None:
                    failed[task.config.workdir] = error or "it ended without its results"
                    say(f"{clear}Failed: {task.name}: {failed[task.config.workdir]} (log: {task.folder / LOG})")
                after_each()
                for other in running:
                    other.share(BASELINES)
    finally:
        for run in running:
            run.process.stdin.close()  # all at once, and then
        for run in running:
            run.stop()
        print(clear, end="", flush=True)
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


class _Run:
    """A run in its own process, which has its share of the cores and ends when the sweep does."""

    def __init__(self, task: Task, sweep_dir: Path, keep: str, jobs: int, lock: int):
        self.task, self._sweep_dir = task, sweep_dir
        task.folder.mkdir(parents=True, exist_ok=True)
        for name in (SPLIT_FILE, BASELINES):
            self.share(name)
        settings = (f"--{name}={value}" for name, value in vars(task.config).items())
        command = [sys.executable, "-m", "trainers.sweep.worker", *settings, f"--keep={keep}"]
        share = {name: str(max(1, _cores() // jobs)) for name in THREADS} if jobs > 1 else {}
        environment = share | os.environ
        with open(task.folder / LOG, "a") as log:
            self._begin = log.tell()
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(lock,), env=environment
            )

    def share(self, name: str) -> None:
        """Gives the run the sweep's file of this name, if there is one and the run has none."""
        if (self._sweep_dir / name).exists() and not (self.task.folder / name).exists():
            _share(self._sweep_dir / name, self.task.folder / name)

    def stop(self) -> None:
        """Ends the process, and waits for that."""
        self.process.stdin.close()
        self.process.wait()

    def ended(self) -> str:
        """What went wrong in a process that has ended, or ""."""
        self.stop()
        if self.process.returncode == 0:
            if not (self._sweep_dir / BASELINES).exists():
                with written_aside(self._sweep_dir / BASELINES) as aside:
                    shutil.copyfile(self.task.folder / BASELINES, aside)
            return ""
        with open(self.task.folder / LOG, "rb") as log:
            log.seek(self._begin)
            lines = log.read().decode("utf-8", "replace").splitlines()
        errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        code = self.process.returncode
        ended = f"it was killed by signal {-code}" if code < 0 else f"it ended with status {code}"
        return errors[-1] if errors else ended

    def epoch(self) -> str:
        try:
            rows = (self.task.folder / "history.csv").read_text().count("\n") - 1
        except OSError:
            return ""
        return f": epoch {rows} of at most {self.task.config.epochs}"


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share(source: Path, target: Path) -> None:
    """A second name of the file, or a copy where the file system has no such thing; nothing writes into either."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
