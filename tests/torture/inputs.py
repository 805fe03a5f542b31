"""Hostile files over every reader: files of a grammar, and mutations of good files."""

import contextlib
import json
import random
import resource
import shutil
import signal
import traceback
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import reference
import tensorflow as tf
from test_log_to_answer import check, parquet, with_header, without_header
from test_readers import FORMS

from export.scoring import history_files
from torture import forks
from torture.part import Part
from vae_cf_tf.data import tables
from vae_cf_tf.data.formats import read
from vae_cf_tf.errors import UserError

FULL = {"text": 4000, "headerless": 2000, "parquet": 2000, "changed-text": 4000, "forms": 4000, "histories": 4000}
CHUNK, SECONDS, MEMORY = 100, 20, 300 << 20  # files in a fork; for one file; growth of a fork
"""A good file of the size that is made here needs less than 100 MiB."""


class Files(Part):
    about = (
        "a hundred files for the readers: made by a grammar, some with a fault, or good files with changed bytes. Each "
        "is read as the slow, strict reader of tests/reference.py reads it, or refused in one line that names it; "
        "within seconds and without much memory."
    )

    def cases(self) -> Sequence[str]:
        return [f"{kind}-{k}" for kind, full in FULL.items() for k in range(self.number(full / CHUNK))]

    def run(self, case: str) -> dict[str, Any]:
        kind, _, chunk = case.rpartition("-")
        folder, answer = self.folder / "case", self.folder / "answer.json"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        answer.unlink(missing_ok=True)

        def work() -> None:
            answer.write_text(json.dumps(_read_all(kind, f"{self.seed} {chunk}", folder)))

        ended = forks.Fork(work, folder).wait(CHUNK * SECONDS)
        if ended.status or not answer.exists():
            return {"found": f"the reader's process ended with status {ended.status}: {ended.stderr[-500:]}"}
        faults, refused, grown = json.loads(answer.read_text())
        if grown > MEMORY:
            faults.append(f"memory grew by {grown >> 20} MiB")
        return {"found": "; ".join(faults[:5]), "refused": refused, "files": CHUNK}

    def summary(self, results: Sequence[dict[str, Any]]) -> str:
        files, refused = (sum(result.get(name, 0) for result in results) for name in ("files", "refused"))
        return f"{files:,} files, {refused:,} refused."


def _read_all(kind: str, seed: str, folder: Path) -> tuple[list[str], int, int]:
    """Faults, the number of files that were refused, and by how much memory grew."""
    faults, refused = [], 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(CHUNK):
        rng = random.Random(f"{seed} {k}")
        tables._BLOCK, tables._RECORDS = rng.choice((300, 1500, 1 << 24)), rng.choice((7, 1 << 16))
        place = folder / str(k)
        signal.alarm(SECONDS)  # its default ends the process
        try:
            refused += KINDS[kind](place, rng)
        except Exception:
            faults.append(f"file {k}: {traceback.format_exc()[-700:]}")
        signal.alarm(0)
        if not faults:
            shutil.rmtree(place, ignore_errors=True)
    return faults, refused, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def _made(make: Callable, place: str) -> Callable[[Path, random.Random], bool]:
    """A file of a grammar, compared with the reference."""

    def judge(path: Path, rng: random.Random) -> bool:
        try:
            expected = make(path, rng)
        except reference.Refused as refusal:
            expected = refusal
        check(path, expected, place, rng)
        return isinstance(expected, reference.Refused)

    return judge


def _changed_text(path: Path, rng: random.Random) -> bool:
    """A text log with changed bytes: the same events as the reference's, or both refuse it."""
    with contextlib.suppress(reference.Refused):
        with_header(path, rng)
    path.write_bytes(changed(path.read_bytes(), rng))
    expected = None
    with contextlib.suppress(reference.Refused, OSError, EOFError, zlib.error):
        expected = reference.read_text(path)
    found = _or_refused(lambda: read(str(path)), path)
    if found is None and b"\0" in path.read_bytes():  # may be taken for a binary file
        return True
    if expected is None or found is None:
        assert found is expected, f"{path} should be {'read' if expected else 'refused'}"
        return True
    ratings = [None] * len(found.users) if found.ratings is None else found.ratings.tolist()
    events = list(zip(found.user_ids[found.users], found.item_ids[found.items], ratings, strict=True))
    assert events == expected, f"{path} is read as something else"
    return False


def _form(folder: Path, rng: random.Random) -> bool:
    """A public data set's files, one of them with changed bytes: read, or refused in one line."""
    folder.mkdir()
    place, _ = rng.choice(FORMS)(folder)
    victim = rng.choice([p for p in sorted(folder.rglob("*")) if p.is_file()])
    victim.write_bytes(changed(victim.read_bytes(), rng))
    return _or_refused(lambda: read(str(place)), folder) is None


def _histories(folder: Path, rng: random.Random) -> bool:
    """A file of histories for export.score, with changed bytes."""
    folder.mkdir()
    rows = [
        {"user": rng.choice([k, f"u{k}"]), "history": [f"i{rng.randrange(50)}" for _ in range(rng.randrange(9))]}
        for k in range(rng.randrange(1, 30))
    ]
    kind = rng.choice(("jsonl", "parquet", "tfrecord"))
    path = folder / f"histories.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + "\n" for row in rows))
    elif kind == "parquet":
        columns = {"user": [str(row["user"]) for row in rows], "history": [row["history"] for row in rows]}
        pq.write_table(pa.table(columns), path)
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in rows:
                example = tf.train.Example()
                example.features.feature["user"].bytes_list.value.append(str(row["user"]).encode())
                example.features.feature["history"].bytes_list.value.extend(i.encode() for i in row["history"])
                writer.write(example.SerializeToString())
    path.write_bytes(changed(path.read_bytes(), rng))
    return _or_refused(lambda: list(history_files.rows(path)), folder) is None


def _or_refused(read_it: Callable[[], Any], place: Path) -> Any:
    """What is read, or None where it is refused in one line that names a file of the place."""
    try:
        return read_it()
    except UserError as error:
        line = str(error)
    assert "\n" not in line, f"not one line: {line}"
    assert str(place) in line, f"names no file: {line}"
    return None


ODD = (b"\0", b'"', b"\n", b"\r", b",", b"\t", b"::", b"\xff", b"\xef\xbb\xbf", b"\\", b"NaN", b"1e999")


def changed(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three changes."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content) + 1)
        length = rng.choice((1, 1, 2, 8, 64))
        piece = content[at : at + length]
        new = rng.choice(
            (
                bytes(rng.randrange(256) for _ in range(length)),
                b"",
                piece * 2,
                piece[::-1],
                rng.choice(ODD),
                bytes(b ^ (1 << rng.randrange(8)) for b in piece),
            )
        )
        content = content[:at] + new + content[at + length :]
        if rng.random() < 0.1:
            content = content[: rng.randrange(len(content) + 1)]
    return content


KINDS = {
    "text": _made(with_header, "line"),
    "headerless": _made(without_header, "line"),
    "parquet": _made(parquet, "row"),
    "changed-text": _changed_text,
    "forms": _form,
    "histories": _histories,
}
