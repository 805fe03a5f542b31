"""Recommends for a file of histories: `python -m export.score --model=MODELS/vamp --input=users.parquet --output=OUT`.

OUT is a folder of numbered parts of --part_rows rows each, of the input's kind unless --kind says otherwise. A part is
written aside and renamed, so a run that was killed goes on behind the last part when the same command is given again.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from vae_cf_tf import commands, quiet
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside

_CELLS = 1 << 20  # ids in a request, padding included: what bounds the memory where a history is very long


def define_flags() -> None:
    commands.define_path("model", "", "SavedModel version, or the folder of versions, of which the newest is taken.")
    commands.define_path("input", "", "File of histories: .jsonl, .parquet or .tfrecord.")
    commands.define_path("output", "", "Folder for the parts.")
    flags.DEFINE_enum("kind", "", ["", "jsonl", "parquet", "tfrecord"], "Kind of the parts; empty: the input's.")
    flags.DEFINE_integer("batch_size", 256, "Histories in a request.", lower_bound=1)
    flags.DEFINE_integer("part_rows", 16384, "Rows of a part.", lower_bound=1)


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    for name in ("model", "input", "output"):
        if not values[name].value:
            raise UserError(
                f"--{name} is missing. Usage: python -m export.score --model=MODELS/NAME --input=FILE --output=FOLDER"
            )
    quiet.import_tensorflow()
    from export import card

    version = card.version_in(Path(values.model))
    score(version, Path(values.input), Path(values.output), values.kind, values.batch_size, values.part_rows)


def score(
    version: Path, source: Path, folder: Path, kind: str = "", batch_size: int = 256, part_rows: int = 16384
) -> None:
    """Writes recommendations for the rows of `source` as parts in `folder`, behind those that are there already."""
    import tensorflow as tf

    from export import history_files

    kind = kind or history_files.kind_of(source)
    if not source.is_file():
        raise UserError(f"There is no file {source}. Check --input.")
    done = _claim(folder, _job(version, source, kind, part_rows))
    if done is None:
        print(f"{folder} is complete.")
        return
    recommend = tf.saved_model.load(str(version)).signatures["recommend"]
    part: list[dict[str, Any]] = []
    batch: list[history_files.Row] = []
    written, number, start, longest = 0, done, time.perf_counter(), 0

    def flush() -> None:
        nonlocal number, written
        path = folder / f"part-{number:06d}.{kind}"
        with written_aside(path) as aside:
            history_files.write(aside, kind, part)
        written, number = written + len(part), number + 1
        part.clear()
        rate = written / (time.perf_counter() - start)
        print(f"\r{done * part_rows + written:,} rows, {rate:,.0f} a second ", end="", file=sys.stderr, flush=True)

    def ask() -> None:
        part.extend(_answers(recommend, batch))
        batch.clear()

    for row in history_files.rows(source, done * part_rows):
        longest = max(longest, len(row.history))
        if (len(batch) + 1) * longest > _CELLS and batch:
            ask()
            longest = len(row.history)
        batch.append(row)
        if len(batch) == batch_size or len(part) + len(batch) == part_rows:
            ask()
            longest = 0
        if len(part) == part_rows:
            flush()
    if batch:
        ask()
    if part or not number:
        flush()
    print(file=sys.stderr)
    with written_aside(folder / "_SUCCESS") as aside:
        aside.write_text(f"{number} parts\n")
    print(f"{folder}: {number} parts.")


def _answers(recommend: Any, batch: list[Any]) -> list[dict[str, Any]]:
    import tensorflow as tf

    from export import messages

    answer = recommend(history=tf.constant(messages.rectangle([row.history for row in batch])))
    found = []
    for row, ids, scores in zip(batch, answer["item_ids"].numpy(), answer["scores"].numpy(), strict=True):
        count = sum(1 for item in ids if item)
        one = {"item_ids": [item.decode() for item in ids[:count]], "scores": scores[:count].tolist()}
        found.append(one if row.user is None else {"user": row.user, **one})
    return found


def _job(version: Path, source: Path, kind: str, part_rows: int) -> str:
    """What the parts belong to: the model's bytes and the input by name, size and time."""
    model = hashlib.sha256((version / "variables" / "variables.index").read_bytes())
    model.update((version / "saved_model.pb").read_bytes())
    status = source.stat()
    job = {
        "model": model.hexdigest()[:16],
        "input": source.name,
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "kind": kind,
        "part_rows": part_rows,
    }
    return json.dumps(job, indent=1) + "\n"


def _claim(folder: Path, job: str) -> int | None:
    """The number of parts that are done; None where all are.

    Raises:
      UserError: the folder holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claim = folder / "job.json"
    if any(folder.glob("part-*")) or (folder / "_SUCCESS").exists():
        if not claim.exists() or claim.read_text() != job:
            raise UserError(f"{folder} holds the parts of another input, model or --part_rows. Give another --output.")
    elif any(not path.name.startswith(".") and path != claim for path in folder.iterdir()):
        raise UserError(f"{folder} is not empty. Give another --output.")
    else:
        with written_aside(claim) as aside:
            aside.write_text(job)
    if (folder / "_SUCCESS").exists():
        return None
    parts = {path.stem for path in folder.glob("part-*")}
    return next(n for n in range(len(parts) + 1) if f"part-{n:06d}" not in parts)


if __name__ == "__main__":
    define_flags()
    sys.exit(commands.run(main))
