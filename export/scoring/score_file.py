"""Scoring a file of histories: a job that can be interrupted and resumed."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from export import catalogue, versions
from export.client.messages import is_utf8
from export.scoring import event_log, history_files, job, parts, recommendation_files, workers
from vae_cf_tf.data.formats import ReaderOptions
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import locked

_COLUMNS = ReaderOptions()


def score_file(
    model: Path,
    source: Path,
    folder: Path,
    kind: str = "",
    batch_size: int = 256,
    part_rows: int = 16384,
    k: int = 0,
    columns: ReaderOptions = _COLUMNS,
    threshold: float | None = None,
    processes: int = 1,
) -> None:
    """Writes recommendations for the rows of `source` as parts in `folder`, those that are not there yet.

    Args:
      model: a SavedModel version, or the folder of versions: the newest is taken, or the one that a job in `folder`
        began with.
      source, folder, kind, batch_size, part_rows, k, threshold: as the flags.
      columns: of a log of events.
      processes: how many make the parts; the parts do not depend on it.

    Raises:
      UserError: a bad row or model, or a `folder` of another job.
      KeyboardInterrupt: Ctrl-C; its text says that the same command resumes.
    """
    for path in (model, source, folder):
        if not is_utf8(str(path)):
            raise UserError(f"{path}: the path is not UTF-8, which TensorFlow and PyArrow need. Rename it.")
    history_files.check_file(source)
    is_log = event_log.is_log(source)
    if not is_log and (columns.named or threshold is not None):
        flag = "--" + next(iter(columns.named), "threshold")
        raise UserError(f"{source} holds histories, and {flag} is for a log of events. Leave it out.")
    kind = kind or (event_log.EventLog.kind if is_log else history_files.kind_of(source))
    if folder.is_dir():
        job.read(folder)  # refuses the user's own folder before a lock file is put into it
    with locked(folder, f"Another scoring job is writing to {folder}. Wait for its end, or give another --output."):
        begun = job.read(folder)
        version = job.version_of(model, begun)
        job.check_k(version, k)
        events: dict[str, Any] | None = None
        if is_log:
            events = columns.named | {"threshold": event_log.threshold_of(version) if threshold is None else threshold}
            rows_of: event_log.EventLog | history_files.HistoryFile = event_log.EventLog(
                source, columns, events["threshold"]
            )
        else:
            rows_of = history_files.HistoryFile(source)
        described = job.describe(version, source, kind=kind, part_rows=part_rows, k=k, events=events)
        if begun:
            job.check_same(folder, begun, described)
            missing, finished = job.missing_parts(folder, begun), (folder / job.SUCCESS).exists()
            if finished and not missing:
                job.check_parts(folder, begun)
                print(f"{job.summary(folder, begun)}{_newer(model, version)}")
                return
            print(_resumes(folder, begun, missing, finished))
            (folder / job.SUCCESS).unlink(missing_ok=True)
        item_ids = catalogue.item_ids(version)
        survey = rows_of.survey(item_ids)
        recommendation_files.check_users(kind, survey)
        unknown = catalogue.unknown_line(survey.ids, survey.unknown)
        print(f"Read {source}: {survey.rows:,} rows. {unknown}", file=sys.stderr)
        described |= {"rows": survey.rows, "parts": max(1, math.ceil(survey.rows / part_rows))}
        described |= {"ids": survey.ids, "unknown_ids": survey.unknown}
        job.write(folder, described)
        scoring = parts.Scoring(
            folder, described, rows_of, survey.user_types, version, len(item_ids), batch_size, survey.has_rules
        )
        del item_ids
        try:
            _write_parts(scoring, processes)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("The same command makes the parts that are missing.") from interrupt
        except UserError:
            if len(job.missing_parts(folder, described)) == described["parts"]:  # the next job may be another one
                (folder / job.JOB).unlink()
            raise
        if source.stat().st_mtime_ns != described["input_modified_ns"]:
            raise UserError(f"{source} has changed while it was read. Start anew with another --output.")
        job.complete(folder, described)
        print(job.summary(folder, described))


def _resumes(folder: Path, begun: job.Job, missing: list[Path], finished: bool) -> str:
    if finished:
        named = ", ".join([path.name for path in missing[:3]] + ["…"] * (len(missing) > 3))
        return f"{folder} was complete, but parts of it are missing: {named}. They are made again."
    model, parts = Path(begun["model"]) / begun["version"], begun["parts"]
    return f"{folder} goes on with {model}: {parts - len(missing)} of {parts} parts are there."


def _newer(model: Path, version: Path) -> str:
    newest = versions.newest_in(model)
    return "" if newest == version else f" To score with {newest}, give another --output."


def _write_parts(scoring: parts.Scoring, processes: int) -> None:
    """Makes the missing parts and shows how far that is."""
    folder, rows, part_rows = scoring.folder, scoring.described["rows"], scoring.described["part_rows"]
    numbers = [
        n for n in range(scoring.described["parts"]) if not job.part(folder, n, scoring.described["kind"]).exists()
    ]
    left = sum(min(part_rows, rows - number * part_rows) for number in numbers)
    progress = _Progress(rows, rows - left)
    try:
        if (processes := min(processes, len(numbers))) > 1:
            for made in workers.make(scoring, numbers, processes):
                progress.add(made)
        else:
            maker = parts.PartMaker(scoring)
            for number in numbers:
                maker.make(number, progress.add)
    finally:
        print(file=sys.stderr)


class _Progress:
    """A line on stderr: rows that are done, and how many a second were answered.

    Args:
      rows: of the whole job.
      done: those that an earlier start answered.
    """

    def __init__(self, rows: int, done: int):
        self._rows, self._done, self._answered = rows, done, 0
        self._start, self._shown = time.perf_counter(), 0.0

    def add(self, rows: int) -> None:
        now = time.perf_counter()
        self._done, self._answered = self._done + rows, self._answered + rows
        if now - self._shown >= 1 or self._done == self._rows:
            rate = self._answered / (now - self._start)
            text = f"\r{self._done:,} of {self._rows:,} rows, {rate:,.0f} a second "
            print(text, end="", file=sys.stderr, flush=True)
            self._shown = now
