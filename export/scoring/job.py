"""The output folder of a scoring job: _job.json says what the parts belong to, _SUCCESS that all of them are there.

_SUCCESS of a job of this machine has a checksum of each part, in the form that `sha256sum -c` takes.
Spark, pandas and PyArrow skip files whose names begin with "_" or ".".
"""

import hashlib
from pathlib import Path
from typing import Any

from export import card, catalogue, versions
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import read_json, sha256, write_json, written_aside

JOB, SUCCESS = "_job.json", "_SUCCESS"
_SAME = ("model_checksum", "input_name", "input_bytes", "input_modified_ns", "kind", "part_rows", "k", "events")
_NEW = {"k": 0, "events": None}  # what a job that 0.1.0 began does not say
Job = dict[str, Any]


def read(folder: Path) -> Job | None:
    """The job begun in `folder`; None in an empty folder. Raises UserError for other content or a damaged job."""
    path = folder / JOB
    if not path.exists():
        if others := sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")):
            raise UserError(f"{folder} is not empty (it holds {others[0]!r}) and has no {JOB}. Give another --output.")
        return None
    try:
        job = _NEW | read_json(path)
        return {name: job[name] for name in ("model", "version", *_SAME, "rows", "parts", "ids", "unknown_ids")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged. Give another --output.") from error


def write(folder: Path, job: Job) -> None:
    write_json(folder / JOB, job)


def version_of(model: Path, job: Job | None) -> Path:
    """The SavedModel to score with: of a folder of versions the one that the job began with, or the newest.

    Raises:
      UserError: that version is gone.
    """
    if job is None or _is_saved_model(model):
        return versions.newest_in(model)
    version = model / job["version"]
    if not _is_saved_model(version):
        raise UserError(
            f"The job was begun with {version}, which is gone. Put it back, or give another --output to start anew."
        )
    return version


def _is_saved_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file()


def facts_of(version: Path) -> Job:
    """The model's folder and version, and a checksum of its bytes. Raises UserError where it is none of export.main, or
    damaged."""
    checksum = hashlib.sha256()
    for name in ("saved_model.pb", "variables/variables.index", "assets/item_ids.txt"):
        if not (version / name).is_file():
            raise UserError(f"{version} has no {name}. Give a SavedModel that export.main wrote.")
        checksum.update((version / name).read_bytes())  # the index holds a checksum of each variable
    card.check(version)
    return {
        "model": str(version.parent.absolute()),
        "version": version.name,
        "model_checksum": checksum.hexdigest()[:16],
    }


def describe(version: Path, source: Path, **settings: Any) -> Job:
    """What the parts belong to: the model's bytes, the input by name, size and time, and the settings: kind, part_rows,
    k and events."""
    facts, status = facts_of(version), source.stat()
    return facts | {
        "input_name": source.name,
        "input_bytes": status.st_size,
        "input_modified_ns": status.st_mtime_ns,
        **settings,
    }


def check_k(version: Path, k: int) -> None:
    """Raises UserError where a version recommends fewer than k items; 0: as many as it does."""
    if k > (top_k := card.read(version).get("top_k", k) if k else 0):
        raise UserError(f"--k={k} is more than the {top_k} items that {version} recommends. Export with --top_k={k}.")


def summary(folder: Path | str, described: Job) -> str:
    """What a job that is complete has done."""
    model = Path(described["model"]) / described["version"]
    complete = f"{folder} is complete. Rows: {described['rows']:,}. Parts: {described['parts']:,}. Model: {model}."
    return f"{complete} {catalogue.unknown_line(described['ids'], described['unknown_ids'])}"


def check_same(folder: Path, begun: Job, now: Job) -> None:
    """Raises UserError where the job in `folder` is another one than the one that is asked for now."""
    if changed := [f"{name} was {begun[name]}, is {now[name]}" for name in _SAME if begun[name] != now[name]]:
        raise UserError(f"{folder} holds the parts of another job ({'; '.join(changed)}). Give another --output.")


def missing_parts(folder: Path, begun: Job) -> list[Path]:
    """The parts of the job that are not there."""
    return [path for path in _parts(folder, begun) if not path.exists()]


def complete(folder: Path, described: Job) -> None:
    """Writes _SUCCESS, when all parts are there."""
    with written_aside(folder / SUCCESS) as aside:
        aside.write_text("".join(map(_sealed, _parts(folder, described))))


def check_parts(folder: Path, begun: Job) -> None:
    """Raises UserError where a part of a complete job is not as it was written."""
    written = (folder / SUCCESS).read_text(errors="replace")
    for path in _parts(folder, begun):
        if _sealed(path) not in written:
            raise UserError(
                f"{path} is damaged: its checksum is not that in {SUCCESS}. Remove it, and the same command makes it "
                "again."
            )


def _sealed(path: Path) -> str:
    return f"{sha256(path)}  {path.name}\n"


def _parts(folder: Path, begun: Job) -> list[Path]:
    return [part(folder, number, begun["kind"]) for number in range(begun["parts"])]


def part(folder: Path, number: int, kind: str) -> Path:
    return folder / f"part-{number:06d}.{kind}"
