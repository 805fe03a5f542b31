"""Damaged bytes in every file that a command leaves: found and named, or harmless."""

import contextlib
import hashlib
import json
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from export import card
from export.scoring import job
from torture import forks
from torture.world import ENGINE, SMALL, STEPS, OnWorld, content
from trainers.report import rankings
from vae_cf_tf import arrays
from vae_cf_tf.data.prepared import Prepared
from vae_cf_tf.data.shards import ShardedSplit
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import read_json, write_json
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.training import warm_start

FULL, CHUNK, SECONDS = 1000, 250, 60  # damaged copies of a file, those in a fork, and for one of them
COMMANDS = 4  # damaged copies of a file, each of which a command reads
EDGE = 400  # bytes at either end, where headers and lists of contents are, get half of the damage


class MadeAgain(Exception):
    """The reader takes the file for missing and what it held is computed again."""


class Reader(NamedTuple):
    """What reads a file.

    Args:
      after: the step that leaves it.
      pattern: of the files, below the step's folder.
      read: from the file's path to what it means, comparable by `==`.
    """

    after: str
    pattern: str
    read: Callable[[Path], Any]


class Command(NamedTuple):
    """A command that reads files.

    Args:
      before: the step whose result it starts from.
      words: of the command.
      step: whose result it leaves where the damage was harmless; "": it leaves nothing.
      patterns: of the files that it reads.
    """

    before: str
    words: tuple[str, ...]
    step: str
    patterns: tuple[str, ...]


def _workdir(read: Callable[[Workdir], Any]) -> Callable[[Path], Any]:
    return lambda path: read(Workdir(path.parent))


def _split(split: Split) -> list[Any]:
    train = split.train.prepared.split() if isinstance(split, ShardedSplit) else split
    weights = [] if train.weights is None else train.weights.tolist()
    return [train.fingerprint(), split.item_ids, split.titles, split.about, weights]


class _Variable:
    """Stands for a variable of a model."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape, self.value = shape, b""

    def assign(self, value: np.ndarray) -> None:
        self.value = value.tobytes()


SHAPES: dict[str, dict[str, tuple[int, ...]]] = {}
"""By name of a checkpoint the shapes of its variables, from the undamaged file."""


def _checkpoint(path: Path) -> Any:
    variables: Any = {name: _Variable(shape) for name, shape in SHAPES[path.name].items()}
    meta = checkpoints.load(path, variables)
    values = {name: hashlib.sha256(variable.value).hexdigest() for name, variable in variables.items()}
    return dict(meta), dict(checkpoints.read_meta(path)), values, checkpoints.digest(path)


def _baselines(workdir: Workdir) -> Any:
    if (found := workdir.read_baselines(workdir.settings().evaluation)) is None:
        raise MadeAgain
    return found


KEYS: dict[str, str] = {}
"""By name of a file of rankings its key."""


def _rankings(path: Path) -> Any:
    def make() -> Any:
        raise MadeAgain

    return {name: values.tobytes() for name, values in rankings._kept(path, KEYS[path.name], make).items()}


def _version(path: Path) -> Any:
    version = next(p for p in path.parents if (p / "assets").is_dir())
    return card.verify(version), card.read(version)


def _scores(path: Path) -> Any:
    begun = job.read(path.parent)
    assert begun
    job.check_parts(path.parent, begun)
    return begun


def _prepared(path: Path) -> Any:
    folder = path.parent if path.parent.name == "prepared" else path.parents[1]
    data = Prepared(folder)
    sharded = ShardedSplit.of(data)
    batches = [batch.toarray().tobytes() for batch in sharded.shards.batches(50, 1, 0)]
    return data.manifest, _split(data.split()), batches, data.items.to_pydict()


def _finished(path: Path) -> Any:
    with contextlib.suppress(ValueError):
        return read_json(path)
    raise MadeAgain  # a run that is not finished


def _named(path: Path) -> Any:
    """read_json for a caller that says which file it is."""
    try:
        return read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


READERS = (
    Reader("report", "run/config.json", _workdir(lambda run: run.settings().flat())),
    Reader("report", "run/source.json", _workdir(Workdir.read_source)),
    Reader("report", "run/split.npz", _workdir(lambda run: _split(run.split()))),
    Reader("report", "run/checkpoint.npz", _checkpoint),
    Reader("report", "run/best.npz", _checkpoint),
    Reader("report", "run/item_path.npz", _checkpoint),
    Reader("report", "run/baselines.json", _workdir(_baselines)),
    Reader("report", "run/metrics.json", _workdir(Workdir.read_metrics)),
    Reader("report", "run/warm_start.json", _workdir(warm_start.recorded)),
    Reader("report", "run/history.csv", _workdir(Workdir.read_history)),
    Reader("report", "run/users.parquet", _workdir(lambda run: _bytes_of(run.read_users()))),
    Reader("report", "run/*rankings.npz", _rankings),
    Reader("export", "models/1/**/*", _version),
    Reader("score", "scores/_*", _scores),
    Reader("score", "scores/part-*", _scores),
    Reader("prepare", "prepared/*.*", _prepared),
    Reader("prepare", "prepared/*/part-*", _prepared),
    Reader("prepare", "of/prepared.json", lambda path: _split(ShardedSplit.load(path.parent))),
    Reader("sweep", "sweep/results.json", _named),
    Reader("sweep", "sweep/runs/*/*/finished.json", _finished),
)


def _bytes_of(per_user: Any) -> Any:
    return {part: {name: v.tobytes() for name, v in values.items()} for part, values in per_user.items()}


_RUN = tuple(f"run/{name}" for name in ("config.json", "source.json", "split.npz", "best.npz", "item_path.npz"))
_FIGURES = ("run/metrics.json", "run/history.csv")
_MODEL = ("*.pb", "variables/variables.*", "assets/*", "assets.extra/*")
COMMANDS_READ = (
    Command("train", STEPS["train"].words, "train",
            (*_RUN, *_FIGURES, "run/checkpoint.npz", "run/baselines.json", "run/users.parquet")),
    Command("train", STEPS["export"].words, "export", (*_RUN, "run/metrics.json")),
    Command("report", STEPS["report"].words, "report", (*_RUN, *_FIGURES, "run/*rankings.npz")),
    Command("train", ("trainers.compare", "run", "run"), "", ("run/metrics.json", "run/users.parquet")),
    Command("export", STEPS["score"].words, "score", tuple(f"models/1/{name}" for name in _MODEL)),
    Command("score", STEPS["score"].words, "score", ("scores/_job.json", "scores/_SUCCESS", "scores/part-*")),
    Command("export", ("export.inspect", "models", "--verify"), "", tuple(f"models/1/{name}" for name in _MODEL)),
    Command("prepare", ("trainers.main", *SMALL, "--data=prepared", "--train_from=shards", "--item_path=none",
                        "--workdir=large"), "large", ("prepared/*.*", "prepared/*/part-*")),
    Command("sweep", STEPS["sweep"].words, "sweep",
            ("sweep/*.json", "sweep/split.npz", "sweep/runs/*/*/*.json", "sweep/runs/*/*/users.parquet")),
)  # fmt: skip


class Bytes(OnWorld):
    about = (
        "a file of a run, an export, a scoring job, a prepared set or a sweep with a flipped bit, other bytes, some "
        f"erased or put in, or cut short. The functions that read it get up to {CHUNK} in a case, and commands one: "
        "one line that names the file, or all is as from the whole file."
    )

    def __init__(self, folder: Path, seed: int, scale: float, steps: Sequence[str] = ()):
        super().__init__(folder, seed, scale, steps)
        self._said: dict[tuple[str, ...], str] = {}

    def cases(self) -> Sequence[str]:
        """Of what the chosen steps leave."""
        found = []
        for number, reader in enumerate(READERS):
            if reader.after not in self.steps:
                continue
            for name in _files(self._folder(reader.after), reader.pattern):
                found += [f"read:{number}:{name}:{k}" for k in range(max(1, self.number(FULL) // CHUNK))]
        commands, made = [], {"", *self.steps} | ({"large"} if "train" in self.steps else set())
        for number, command in enumerate(COMMANDS_READ):
            if command.before not in self.steps or command.step not in made:
                continue
            rng = random.Random(f"{self.seed} {number}")
            for pattern in command.patterns:
                names = _files(self._folder(command.before), pattern)
                commands += [f"command:{number}:{rng.choice(names)}:{k}" for k in range(COMMANDS)]
        drawn = random.Random(self.seed).sample(range(len(commands)), self.number(len(commands)))
        return found + [commands[place] for place in sorted(drawn)]

    def run(self, case: str) -> dict[str, Any]:
        kind, number, name, _ = case.split(":")
        rng = random.Random(f"{self.seed} {case}")
        if kind == "read":
            return self._read(READERS[int(number)], name, rng)
        return self._command(COMMANDS_READ[int(number)], name, rng)

    def _folder(self, step: str) -> Path:
        """What a step leaves, and what further runs of other settings leave."""
        if step == "large":
            return self._large()
        folder = self.world.after(step)
        if step == "report" and not (folder / "run" / "warm_start.json").exists():
            write_json(folder / "run" / "warm_start.json", {"weights": "0123456789abcdef", "epochs": 3})
        if step == "prepare" and not (folder / "of").exists():
            (folder / "of").mkdir()
            (folder / "of" / "prepared.json").touch()
        return folder

    def _read(self, reader: Reader, name: str, rng: random.Random) -> dict[str, Any]:
        stage, answer = self.world.stage, self.folder / "answer.json"
        shutil.rmtree(stage, ignore_errors=True)
        shutil.copytree(self._folder(reader.after), stage)
        answer.unlink(missing_ok=True)
        few = min(CHUNK, self.number(FULL))

        def work() -> None:
            answer.write_text(json.dumps(_read_all(reader, stage / name, rng, few)))

        ended = forks.Fork(work, stage).wait(600)
        if ended.status or not answer.exists():
            return {"found": f"{name}: the process ended with status {ended.status}: {ended.stderr[-500:]}"}
        faults, told = json.loads(answer.read_text())
        return {"found": "; ".join(faults[:5]), "files": few, "told": told}

    def _command(self, command: Command, name: str, rng: random.Random) -> dict[str, Any]:
        stage = self.world.stage
        shutil.rmtree(stage, ignore_errors=True)
        shutil.copytree(self._folder(command.before), stage)
        victim = stage / name
        whole = victim.read_bytes()
        damaged, said = damage(whole, rng)
        victim.unlink()  # it may be a hard link
        victim.write_bytes(damaged)
        ended = forks.command(command.words, stage).wait()
        found = ended.fault()
        if not found and ended.status == 2 and victim.name not in ended.stderr:
            found = f"names no file: {ended.stderr[-300:]}"
        if not found and ended.status == 0:
            if victim.read_bytes() == damaged:  # it was not read, or is told to the next that reads it
                victim.write_bytes(whole)
            found = self._same(command, stage) if command.step else self._says_the_same(command, ended.stdout)
        said = f"{command.words[0]}, {name}, {said}"
        result = {"found": f"{said}: {found}" if found else "", "files": 1, "told": int(ended.status == 2)}
        return result | {"how": said, "line": ended.stderr[-300:]}

    def _same(self, command: Command, stage: Path) -> str:
        """How the folder differs from what the command leaves without damage."""
        wanted, found = content(self._folder(command.step)), content(stage)
        changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        return f"in silence another {', '.join(changed[:3])}" if changed else ""

    def _says_the_same(self, command: Command, said: str) -> str:
        if command.words not in self._said:
            shutil.copytree(self._folder(command.before), whole := self.folder / "whole")
            self._said[command.words] = forks.command(command.words, whole).wait().stdout
            shutil.rmtree(whole)
        return "" if said == self._said[command.words] else f"in silence another answer: {said[-300:]}"

    def _large(self) -> Path:
        """What training from the shards of the prepared set leaves."""
        done, command = self.world.folder / "large", next(c for c in COMMANDS_READ if c.step == "large")
        if not done.exists():
            stage = self.world.stage
            shutil.rmtree(stage, ignore_errors=True)
            shutil.copytree(self._folder("prepare"), stage)
            ended = forks.command(command.words, stage).wait(900)
            assert ended.status == 0, ended
            shutil.copytree(stage, done)
        return done

    def summary(self, results: Sequence[dict[str, Any]]) -> str:
        files, told = (sum(result.get(name, 0) for result in results) for name in ("files", "told"))
        return f"{files:,} damaged files, {told:,} told, the others harmless or made again (prepared by {ENGINE})."


def _files(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob(pattern) if path.is_file())


def _read_all(reader: Reader, path: Path, rng: random.Random, number: int) -> tuple[list[str], int]:
    """Faults, and how many damaged copies the reader refused."""
    if path.suffix == ".npz":
        with arrays.opened(path) as found:
            SHAPES[path.name] = {name: values.shape for name, values in found.items() if name != "meta"}
            KEYS[path.name] = str(found.get("key"))
    if path.name == "prepared.json":  # of the folder in which this happens
        path.unlink()
        ShardedSplit.of(Prepared(path.parents[1] / "prepared")).save(path.parent)
    whole, wanted = path.read_bytes(), reader.read(path)
    faults, told = [], 0
    for _ in range(number):
        damaged, said = damage(whole, rng)
        path.write_bytes(damaged)
        signal.alarm(SECONDS)  # its default ends the process
        fault = ""
        try:
            if not _holds(reader.read(path), wanted):
                fault = "is read as something else"
        except MadeAgain:
            pass
        except UserError as error:
            told += 1
            line = str(error)
            if "\n" in line or path.name not in line:
                fault = f"not one line that names it: {line}"
        except Exception:
            fault = traceback.format_exc()[-600:]
        signal.alarm(0)
        if fault:
            faults.append(f"{path.name}, {said}: {fault}")
    path.write_bytes(whole)
    return faults, told


def _holds(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is found. A checksum of another name, which no reader asks for, may be beside it."""
    if isinstance(wanted, tuple):
        return all(map(_holds, found, wanted))
    if isinstance(wanted, dict):
        return {name: found.get(name) for name in wanted} == wanted
    return found == wanted


def damage(whole: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Another content, never the same, and what was done."""
    while True:
        at = rng.randrange(len(whole))
        if rng.random() < 0.5:
            at = rng.randrange(min(EDGE, len(whole)))
            at = at if rng.random() < 0.5 else len(whole) - 1 - at
        length, how = (
            rng.choice((1, 2, 8, 64)),
            rng.choice(("bit", "bit", "bit", "bit", "other", "gone", "more", "cut")),
        )
        piece = whole[at : at + length]
        if how == "bit":
            bit = rng.randrange(8)
            damaged, said = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :], f"bit {bit} of byte {at}"
        elif how == "other":
            new = rng.choice((bytes(len(piece)), rng.randbytes(len(piece))))
            damaged, said = whole[:at] + new + whole[at + length :], f"{len(piece)} other bytes at {at}: {new.hex()}"
        elif how == "gone":
            damaged, said = whole[:at] + whole[at + length :], f"{len(piece)} bytes gone at {at}"
        elif how == "more":
            damaged, said = whole[:at] + piece + whole[at:], f"{len(piece)} bytes twice at {at}"
        else:
            damaged, said = whole[:at], f"cut at {at}"
        if damaged != whole:
            return damaged, said
