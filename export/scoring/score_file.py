"""Scoring a file of histories: a job that can be interrupted and resumed."""

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export import card, catalogue, versions
from export.client.messages import is_utf8
from export.scoring import event_log, history_files, job, recommendation_files
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.data.formats import ReaderOptions
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import locked, written_aside

if TYPE_CHECKING:
    from export.scoring import loaded_model
else:
    loaded_model = LazyModule("export.scoring.loaded_model")

_CELLS = 1 << 20  # histories × length of the longest list of ids
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
) -> None:
    """Writes recommendations for the rows of `source` as parts in `folder`, those that are not there yet.

    Args:
      model: a SavedModel version, or the folder of versions: the newest is taken, or the one that a job in `folder`
        began with.
      source, folder, kind, batch_size, part_rows, k, threshold: as the flags.
      columns: of a log of events.
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
        if k > (top_k := card.read(version).get("top_k", k) if k else 0):
            raise UserError(
                f"--k={k} is more than the {top_k} items that {version} recommends. Export with --top_k={k}."
            )
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
                print(f"{_summary(folder, begun)}{_newer(model, version)}")
                return
            print(_resumes(folder, begun, missing, finished))
            (folder / job.SUCCESS).unlink(missing_ok=True)
        item_ids = catalogue.item_ids(version)
        survey = rows_of.survey(item_ids)
        recommendation_files.check_users(kind, survey)
        unknown = catalogue.unknown_line(survey.ids, survey.unknown)
        print(f"Read {source}: {survey.rows:,} rows. {unknown}", file=sys.stderr)
        ask, size = loaded_model.recommender(version, len(item_ids), batch_size, survey.has_rules, k)
        del item_ids
        described |= {"rows": survey.rows, "parts": max(1, math.ceil(survey.rows / part_rows))}
        described |= {"ids": survey.ids, "unknown_ids": survey.unknown}
        job.write(folder, described)
        try:
            _write_parts(folder, described, rows_of.rows(), survey.user_types, ask, size)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("The same command makes the parts that are missing.") from interrupt
        if source.stat().st_mtime_ns != described["input_modified_ns"]:
            raise UserError(f"{source} has changed while it was read. Start anew with another --output.")
        with written_aside(folder / job.SUCCESS) as aside:
            aside.write_text(f"{described['parts']} parts\n")
        print(_summary(folder, described))


def _summary(folder: Path, described: job.Job) -> str:
    model = Path(described["model"]) / described["version"]
    complete = f"{folder} is complete. Rows: {described['rows']:,}. Parts: {described['parts']:,}. Model: {model}."
    return f"{complete} {catalogue.unknown_line(described['ids'], described['unknown_ids'])}"


def _resumes(folder: Path, begun: job.Job, missing: list[Path], finished: bool) -> str:
    if finished:
        named = ", ".join([path.name for path in missing[:3]] + ["…"] * (len(missing) > 3))
        return f"{folder} was complete, but parts of it are missing: {named}. They are made again."
    model, parts = Path(begun["model"]) / begun["version"], begun["parts"]
    return f"{folder} goes on with {model}: {parts - len(missing)} of {parts} parts are there."


def _newer(model: Path, version: Path) -> str:
    newest = versions.newest_in(model)
    return "" if newest == version else f" To score with {newest}, give another --output."


def _write_parts(
    folder: Path,
    described: job.Job,
    rows: Iterator[history_files.Row],
    user_types: tuple[Any, ...],
    ask: Callable[[list[history_files.Row]], tuple[np.ndarray, np.ndarray]],
    size: int,
) -> None:
    done, answered, start, shown = 0, 0, time.perf_counter(), 0.0
    for number in range(described["parts"]):
        part = itertools.islice(rows, described["part_rows"])
        path = job.part(folder, number, described["kind"])
        if path.exists():
            done += sum(1 for _ in part)
            continue
        with written_aside(path) as aside, recommendation_files.Writer(aside, described["kind"], user_types) as writer:
            for batch in _requests(part, size):
                writer.write([row.user for row in batch], *ask(batch))
                done, answered, now = done + len(batch), answered + len(batch), time.perf_counter()
                if now - shown >= 1 or done == described["rows"]:
                    rate = answered / (now - start)
                    text = f"\r{done:,} of {described['rows']:,} rows, {rate:,.0f} a second "
                    print(text, end="", file=sys.stderr, flush=True)
                    shown = now
    print(file=sys.stderr)


def _requests(rows: Iterable[history_files.Row], size: int) -> Iterator[list[history_files.Row]]:
    """The rows in batches of at most `size` rows and _CELLS ids of a list, padding included."""
    batch: list[history_files.Row] = []
    longest = 1
    for row in rows:
        length = max(len(row.history), len(row.rules.candidates), len(row.rules.exclude), 1)
        longest = max(longest, length)
        if batch and (len(batch) == size or (len(batch) + 1) * longest > _CELLS):
            yield batch
            batch, longest = [], length
        batch.append(row)
    if batch:
        yield batch
