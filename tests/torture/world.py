"""A small world for the commands: a log, what each command needs and what it leaves, and when two results are equal."""

import difflib
import hashlib
import importlib.util
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from torture import faults, forks
from torture.part import Part
from vae_cf_tf.data.synthetic import synthetic_log

SMALL = [
    "--flagfile=multvae.flags",
    *("--hidden_dim=16", "--latent_dim=8", "--epochs=3", "--batch_size=50", "--heldout_users=40"),
    *("--item_path=validation", "--item_path_discount=validation", "--checkpoint_seconds=0", "--data=log.csv"),
]
ENGINE = "duckdb" if importlib.util.find_spec("duckdb") else "memory"


class Step(NamedTuple):
    """A command, and the step whose result it starts from."""

    after: str
    words: tuple[str, ...]


STEPS = {
    "prepare": Step("", ("trainers.prepare", "--data=log.csv", "--out=prepared", f"--engine={ENGINE}",
                         "--split_by=hash", "--heldout_share=0.2", "--shard_users=100")),
    "train": Step("", ("trainers.main", *SMALL, "--workdir=run")),
    "export": Step("train", ("export.main", "--workdir=run", "--export_dir=models")),
    "score": Step("export", ("export.score", "--model=models", "--input=histories.jsonl", "--output=scores",
                             "--part_rows=20", "--batch_size=8")),
    "report": Step("train", ("trainers.report", "--workdir=run")),
    "sweep": Step("", ("trainers.sweep", "--plan=grid", *SMALL, "--vary=latent_dim=4,8", "--seeds=1",
                       "--sweep_dir=sweep")),
}  # fmt: skip

TIMES = {
    *("finished", "seconds_per_epoch", "users_per_second", "peak_rss_mb", "seconds", "created", "exported", "minutes"),
    *("checksum", "checksums"),  # of all members or a file, times among them
}
SKIPPED = re.compile(r"(^|/)(\.lock|tensorboard/.*|\.matplotlib/.*|[^/]*\.log|log\.txt)$")
UNFINISHED = re.compile(r"(^|/)(\.[^/]*\.tmp|\.unfinished-[^/]*|[^/]*\.tmp|[^/]*~)(/|$)")


class World:
    """The folders of the steps, before and after, made once with no fault.

    Args:
      folder: to keep them in.
      stage: the folder in which every command runs, since some files name it.
    """

    def __init__(self, folder: Path, stage: Path):
        self.folder, self.stage = folder, stage

    def before(self, step: str) -> Path:
        """The folder in which the step's command starts."""
        after = STEPS[step].after
        if after:
            return self.after(after)
        empty = self.folder / "empty"
        if not empty.exists():
            _fill(empty)
        return empty

    def after(self, step: str) -> Path:
        """The folder in which the step's command has ended."""
        done = self.folder / step
        if not done.exists():
            self.fresh(step)
            ended = forks.command(STEPS[step].words, self.stage).wait(900)
            assert ended.status == 0, (step, ended)
            shutil.copytree(self.stage, making := self.folder / f"{step}.making", dirs_exist_ok=True)
            making.rename(done)
        return done

    def fresh(self, step: str) -> Path:
        """The stage, as the step's command finds it."""
        before = self.before(step)
        shutil.rmtree(self.stage, ignore_errors=True)
        shutil.copytree(before, self.stage)
        return self.stage

    def measured(self, step: str) -> tuple[float, int]:
        """Seconds and file events of the step's command without a fault."""
        kept = self.folder / f"{step}.measured.json"
        if not kept.exists():
            self.after(step)
            folder, counted = self.fresh(step), self.folder / "events"
            started = time.monotonic()
            ended = forks.command(STEPS[step].words, folder, faults.at_event(-1, "", folder, counted)).wait()
            assert ended.status == 0, ended
            kept.write_text(json.dumps([time.monotonic() - started, int(counted.read_text())]))
        seconds, events = json.loads(kept.read_text())
        return seconds, events

    def restarted(self, step: str, folder: Path) -> str:
        """Starts the step's command again; what is wrong with its end or with what it leaves, or ""."""
        ended = forks.command(STEPS[step].words, folder).wait()
        return ended.fault(allowed=(0,)) or self.difference(step, folder)

    def difference(self, step: str, folder: Path) -> str:
        """How the folder differs from what the step leaves, or "". An export that is started again after its last
        moment makes one more version, of the same scores."""
        wanted, found = content(self.after(step)), content(folder)
        if step == "export":
            same = wanted["models/1"]
            found = {n: v for n, v in found.items() if not re.fullmatch(r"models/[2-9]", n) or v != same}
        for name in sorted(wanted.keys() | found.keys()):
            if name not in found:
                return f"{name} is missing"
            if name not in wanted:
                return f"{name} should not be there"
            if wanted[name] != found[name]:
                return f"{name} differs{_detail(self.after(step) / name, folder / name)}"
        return ""


class OnWorld(Part):
    """A part whose cases start from what the steps leave. All such parts of a seed share it, and the stage."""

    def __init__(self, folder: Path, seed: int, scale: float, steps: Sequence[str] = ()):
        super().__init__(folder, seed, scale, steps or tuple(STEPS))
        self.world = World(folder.parent / "world", folder.parent / "case")


def _detail(wanted: Path, found: Path) -> str:
    """The first lines that differ, of files that people can read."""
    if wanted.suffix not in (".json", ".csv", ".html"):
        return ""
    lines = [_plain(path).decode().replace(", ", ",\n").splitlines() for path in (wanted, found)]
    differences = list(difflib.unified_diff(*lines, lineterm="", n=0))[2:8]
    return f": {' '.join(line[:120] for line in differences)}"


def _fill(folder: Path) -> None:
    log = synthetic_log(users=240, items=130, communities=4, mean_items=12)
    rows = [f"{log.user_ids[u]},{log.item_ids[i]}" for u, i in zip(log.users, log.items, strict=True)]
    folder.mkdir(parents=True)
    for path in (forks.ROOT / "trainers" / "flags").glob("*.flags"):  # they name each other
        shutil.copy(path, folder)
    (folder / "log.csv").write_text("user_id,item_id\n" + "\n".join(rows) + "\n")
    rng = np.random.default_rng(0)
    lines = [{"key": str(k), "history": [str(i) for i in rng.choice(log.item_ids, 5)]} for k in range(90)]
    (folder / "histories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def versions(folder: Path) -> Iterator[Path]:
    """All versions of models that a server could see."""
    for graph in sorted(folder.rglob("saved_model.pb")):
        if graph.parent.name.isdigit() and not UNFINISHED.search(str(graph.relative_to(folder))):
            yield graph.parent


def scores(version: Path) -> str:
    """A digest of what the model answers to a few histories; an error's text where it does not load."""
    answer = version.parent / f".scores-{version.name}"

    def ask() -> None:
        import tensorflow as tf

        items = (version / "assets" / "item_ids.txt").read_text().splitlines()
        histories = tf.constant([[*items[k : k + 5]] for k in range(0, 50, 7)])
        signature = tf.saved_model.load(str(version)).signatures["serving_default"]
        answer.write_bytes(signature(history=histories)["scores"].numpy().tobytes())

    ended = forks.Fork(ask, version).wait()
    if ended.status:
        return f"does not load: {ended.stderr[-300:]}"
    digest = hashlib.sha256(answer.read_bytes()).hexdigest()
    answer.unlink()
    return digest


def content(folder: Path) -> dict[str, str]:
    """What the files below a folder hold, apart from times and places: a digest by name; of a model, of its scores."""
    found, models = {}, list(versions(folder))
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if UNFINISHED.search(name):
            found[name] = "unfinished"
        elif path.is_file() and not SKIPPED.search(name) and not any(model in path.parents for model in models):
            found[name] = hashlib.sha256(_plain(path)).hexdigest()
    return found | {str(model.relative_to(folder)): scores(model) for model in models}


def _plain(path: Path) -> bytes:
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            parts = [(name, _without_times(str(v)) if name == "meta" else v) for name, v in sorted(arrays.items())]
        return b"".join(name.encode() + (v if isinstance(v, bytes) else v.tobytes()) for name, v in parts)
    if path.suffix == ".json":
        return _without_times(path.read_text())
    if path.suffix == ".csv" and (rows := [line.split(",") for line in path.read_text().splitlines()]):
        kept = [i for i, name in enumerate(rows[0]) if name not in TIMES]
        return json.dumps([[row[i] for i in kept if i < len(row)] for row in rows]).encode()
    if path.suffix == ".html":  # pictures and times of the run
        times = r"[0-9.,]+ (s|MB|MiB|seconds|users/s|users a second)\b|[0-9-]{10} [0-9:]{5} UTC"
        return re.sub(times, "", path.read_text()).encode()
    return path.read_bytes()


def _without_times(text: str) -> bytes:
    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in TIMES}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return json.dumps(strip(json.loads(text)), sort_keys=True).encode()
