"""Carrying out a sweep: each run in its own process, some at a time, from where the last start left off."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from tqdm import tqdm

from trainers.sweep.runs import SweepRun, share
from vae_cf_tf.cli.commands import extensions
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.settings import written
from vae_cf_tf.threads import cores

LOG = "log.txt"
THREADS = ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that tell a process how many cores to use, where they are not set already."""


def carry_out(
    runs: Sequence[SweepRun],
    sweep_dir: Path,
    keep: str,
    jobs: int,
    lock: int,
    say: Say,
    after_each: Callable[[], None],
) -> dict[str, str]:
    """Makes all runs that are not finished, `jobs` at a time; returns what went wrong, by the run's folder.

    A run that fails does not end the sweep; the next start tries it again.

    Args:
      runs: of the sweep.
      sweep_dir: its folder, which holds the files that runs share.
      keep: what stays of a finished run.
      jobs: runs at a time.
      lock: descriptor of the sweep's lock, which the processes inherit.
      say: receives a line for each run that fails and, unless a terminal shows a bar, for each run that starts.
      after_each: called after each run.
    """
    workers = {run: Worker("run", run.settings, keep, lock, jobs) for run in runs if run.seconds() is None}
    failed: dict[str, str] = {}
    bar = tqdm(total=len(runs), initial=len(runs) - len(workers), unit="run", disable=None, leave=False)

    def complete(run: SweepRun) -> str:
        share(sweep_dir, run.folder)
        if bar.disable:
            say(f"[{bar.n}/{len(runs)}] {run.name}")
        error = workers[run].complete()
        return error or ("" if run.seconds() is not None else "it ended without its results")

    pool = ThreadPoolExecutor(jobs)
    try:
        pending = {pool.submit(complete, run): run for run in workers}
        while pending:
            done, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
            bar.set_postfix_str("; ".join(run.progress() for run in pending.values() if workers[run].is_running))
            for future in done:
                run = pending.pop(future)
                if error := future.result():
                    failed[str(run.folder)] = error
                    bar.clear()
                    say(f"Failed: {run.name}: {error} (log: {run.folder / LOG})")
                bar.n += 1
                bar.refresh()
                after_each()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers.values():
            worker.stop()
        pool.shutdown()
        bar.close()
    return failed


def evaluate_baselines(settings: Settings, sweep_dir: Path, lock: int) -> None:
    """Writes the sweep's baselines.json, in a process whose memory goes with it.

    Raises:
      UserError: the process failed.
    """
    worker = Worker("baselines", settings.replaced(workdir=str(sweep_dir)), "all", lock)
    try:
        error = worker.complete()
    finally:
        worker.stop()
    if error:
        raise UserError(f"The baselines failed: {error} (log: {sweep_dir / LOG})")


class Worker:
    """A process of `trainers.sweep.run_one`, which ends when the sweep does.

    Args:
      task: what it does, a name of run_one's --task.
      settings: of the run.
      keep: what stays of a finished run.
      lock: descriptor that the process inherits.
      jobs: processes that share the cores.
    """

    def __init__(self, task: str, settings: Settings, keep: str, lock: int, jobs: int = 1):
        flags = [f"--{name}={written(value)}" for name, value in settings.flat().items()]
        self._command = [sys.executable, "-m", "trainers.sweep.run_one", *flags, f"--keep={keep}", f"--task={task}"]
        self._command += [f"--extension={module}" for module in extensions()]
        self._log, self._lock = Path(settings.run.workdir) / LOG, lock
        self._threads = {name: str(max(1, cores() // jobs)) for name in THREADS} if jobs > 1 else {}
        self._process: subprocess.Popen | None = None
        self._stopped = False

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def complete(self) -> str:
        """Runs the process to its end; returns what went wrong, or ""."""
        with open(self._log, "a") as log:
            begin, environment = log.tell(), self._threads | os.environ
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(self._lock,), env=environment
            )
            if self._stopped:  # between the thread's start and the process'
                self.stop()
            status = self._process.wait()
        return _error(self._log, begin, status) if status else ""

    def stop(self) -> None:
        """Ends the process: it lives as long as its standard input is open."""
        self._stopped = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def _error(log_file: Path, begin: int, status: int) -> str:
    """What went wrong in a process that has ended."""
    with open(log_file, "rb") as log:
        log.seek(begin)
        lines = log.read().decode("utf-8", "replace").splitlines()
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    ended = f"it was killed by signal {-status}" if status < 0 else f"it ended with status {status}"
    return errors[-1] if errors else ended
