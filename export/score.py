"""Recommends for a file of histories: `python -m export.score --model=MODELS/vamp --input=users.parquet --output=OUT`.

OUT is a folder of numbered parts of --part_rows rows each, of the input's kind unless --kind says otherwise. A part is
written aside and renamed. The same command, given again, makes the parts that are missing.
"""

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from export import card, catalogue, history_files, messages, recommendation_files, scoring_job
from vae_cf_tf import commands, quiet
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import locked, written_aside

# What bounds the memory of a request, whatever the catalogue, the histories and top_k.
_SCORES = 1 << 23  # histories × items
_CELLS = 1 << 20  # histories × length of the longest
_ANSWERS = 1 << 20  # histories × top_k


def define_flags() -> None:
    commands.define_path("model", "", "SavedModel version, or the folder of versions, of which the newest is taken.")
    commands.define_path("input", "", "File of histories: .jsonl, .parquet or .tfrecord.")
    commands.define_path("output", "", "Folder for the parts.")
    flags.DEFINE_enum("kind", "", ["", "jsonl", "parquet", "tfrecord"], "Kind of the parts; empty: the input's.")
    flags.DEFINE_integer(
        "batch_size", 256, "Histories in a request, at most; fewer where memory asks for it.", lower_bound=1
    )
    flags.DEFINE_integer("part_rows", 16384, "Rows of a part.", lower_bound=1)


def main(argv: list[str]) -> None:
    commands.required(
        ["model", "input", "output"],
        "python -m export.score --model=MODELS/NAME --input=FILE --output=FOLDER",
    )
    values = flags.FLAGS
    score(Path(values.model), Path(values.input), Path(values.output), values.kind, values.batch_size, values.part_rows)


def score(
    model: Path, source: Path, folder: Path, kind: str = "", batch_size: int = 256, part_rows: int = 16384
) -> None:
    """Writes recommendations for the rows of `source` as parts in `folder`, those that are not there yet.

    Args:
      model: a SavedModel version, or the folder of versions: the newest is taken, or the one that a job in `folder`
        began with.
      source, folder, kind, batch_size, part_rows: as the flags.
    """
    for path in (model, source, folder):
        if not messages.is_utf8(str(path)):
            raise UserError(f"{path}: the path is not UTF-8, which TensorFlow and PyArrow need. Rename it.")
    history_files.check_file(source)
    kind = kind or history_files.kind_of(source)
    if folder.is_dir():
        scoring_job.read(folder)  # refuses the user's own folder before a lock file is put into it
    with locked(folder, f"Another scoring job is writing to {folder}. Wait for its end, or give another --output."):
        begun = scoring_job.read(folder)
        version = scoring_job.version_of(model, begun)
        job = scoring_job.describe(version, source, kind, part_rows)
        if begun and scoring_job.is_complete(folder, begun, job):
            print(f"{_summary(folder, begun)}{_newer(model, version)}")
            return
        item_ids = catalogue.item_ids(version)
        survey = history_files.survey(source, item_ids)
        recommendation_files.check_users(kind, survey)
        unknown = catalogue.unknown_line(survey.ids, survey.unknown)
        print(f"Read {source}: {survey.rows:,} rows. {unknown}", file=sys.stderr)
        ask, size = _recommend(version, len(item_ids), batch_size)
        del item_ids
        job |= {"rows": survey.rows, "parts": max(1, math.ceil(survey.rows / part_rows))}
        job |= {"ids": survey.ids, "unknown_ids": survey.unknown}
        scoring_job.write(folder, job)
        try:
            _write_parts(folder, job, source, survey.user_types, ask, size)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("The same command makes the parts that are missing.") from interrupt
        if source.stat().st_mtime_ns != job["input_modified_ns"]:
            raise UserError(f"{source} has changed while it was read. Start anew with another --output.")
        with written_aside(folder / scoring_job.SUCCESS) as aside:
            aside.write_text(f"{job['parts']} parts\n")
        print(_summary(folder, job))


def _summary(folder: Path, job: scoring_job.Job) -> str:
    model = Path(job["model"]) / job["version"]
    made = f"{folder} is complete. Rows: {job['rows']:,}. Parts: {job['parts']:,}. Model: {model}."
    return f"{made} {catalogue.unknown_line(job['ids'], job['unknown_ids'])}"


def _newer(model: Path, version: Path) -> str:
    newest = card.version_in(model)
    return "" if newest == version else f" To score with {newest}, give another --output."


def _write_parts(
    folder: Path,
    job: scoring_job.Job,
    source: Path,
    user_types: tuple[Any, ...],
    ask: Callable[[list[list[str]]], tuple[np.ndarray, np.ndarray]],
    size: int,
) -> None:
    rows = history_files.rows(source)
    done, answered, start, shown = 0, 0, time.perf_counter(), 0.0
    for number in range(job["parts"]):
        part = itertools.islice(rows, job["part_rows"])
        path = scoring_job.part(folder, number, job["kind"])
        if path.exists():
            done += sum(1 for _ in part)
            continue
        with written_aside(path) as aside, recommendation_files.Writer(aside, job["kind"], user_types) as writer:
            for batch in _requests(part, size):
                writer.write([row.user for row in batch], *ask([row.history for row in batch]))
                done, answered, now = done + len(batch), answered + len(batch), time.perf_counter()
                if now - shown >= 1 or done == job["rows"]:
                    rate = answered / (now - start)
                    text = f"\r{done:,} of {job['rows']:,} rows, {rate:,.0f} a second "
                    print(text, end="", file=sys.stderr, flush=True)
                    shown = now
    print(file=sys.stderr)


def _requests(rows: Iterable[history_files.Row], size: int) -> Iterator[list[history_files.Row]]:
    """The rows in batches of at most `size` rows and _CELLS ids, padding included."""
    batch: list[history_files.Row] = []
    longest = 1
    for row in rows:
        longest = max(longest, len(row.history))
        if batch and (len(batch) == size or (len(batch) + 1) * longest > _CELLS):
            yield batch
            batch, longest = [], max(len(row.history), 1)
        batch.append(row)
    if batch:
        yield batch


def _recommend(version: Path, items: int, batch_size: int) -> tuple[Callable, int]:
    """A function from histories to item ids, bytes [batch, k], and scores; and how many histories it may be given."""
    quiet.import_tensorflow()
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(version))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{version} cannot be loaded as a SavedModel ({reason}). Export it again, to a path without [ ] * ?."
        ) from error
    function = loaded.signatures.get("recommend")
    if (
        function is None
        or set(function.structured_input_signature[1]) != {"history"}
        or not {"item_ids", "scores"} <= set(function.structured_outputs)
    ):
        found = ", ".join(loaded.signatures) or "none"
        raise UserError(
            f"{version} has no signature `recommend` from history to item_ids and scores. Its signatures: {found}."
        )

    def ask(histories: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        answer = function(history=tf.constant(messages.rectangle(histories)))
        return answer["item_ids"].numpy(), answer["scores"].numpy()

    top_k = function.structured_outputs["scores"].shape[1] or items
    return ask, max(1, min(batch_size, _SCORES // items, _ANSWERS // top_k))


if __name__ == "__main__":
    define_flags()
    sys.exit(commands.run(main))
