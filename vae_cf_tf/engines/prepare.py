"""Prepares a data set on an engine: from the log to the folder that training reads, in stages that survive a kill."""

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_cf_tf import files
from vae_cf_tf.data import prepared
from vae_cf_tf.data.split import MIN_ITEMS_FOR_TARGETS
from vae_cf_tf.data.time_split import Cuts, as_text, cuts_of, later_events
from vae_cf_tf.engines import base, events, log, protocol
from vae_cf_tf.engines.base import Engine
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings, SplitSettings
from vae_cf_tf.settings.settings import names

_JOB = "job.json"


class Options(NamedTuple):
    """Options of the preparation that do not change the content of the data set.

    Args:
      engine: a name of `base.ENGINES`.
      memory: for the engine, such as "4GB"; "": its own default.
      shard_users: users in a shard.
      master: Spark's master URL.
    """

    engine: str = "duckdb"
    memory: str = ""
    shard_users: int = prepared.SHARD_USERS
    master: str = "local[*]"


def prepare(settings: Settings, out: Path, options: Options, say: Say) -> dict[str, Any]:
    """Writes the prepared data set `out`, whole or not at all, and returns its manifest.

    Work in progress lies in a hidden folder beside `out`. A run that was killed leaves it there, and the same command
    goes on from the last stage that was finished; another command of the same `out` begins anew.

    Args:
      settings: those of data and split are used; with `split_by` = hash.
      out: does not exist, or is an empty folder.
      options: of the engine and the shards.
      say: receives the lines that a person reads.

    Raises: UserError for bad data, an engine that is not installed, too little memory or disk.
    """
    check(settings.split)
    if not re.fullmatch(r"(\d+(\.\d+)?[KMGT]i?B)?", options.memory):
        raise UserError(f"--memory takes a size such as 4GB or 900MB. Received: {options.memory!r}.")
    with (
        made_aside(settings, out, options, say) as work,
        base.start(options.engine, base.EngineOptions(work, options.memory, options.master)) as engine,
    ):
        found = log.describe(settings, work, say)
        if found.columns is None:
            found = log.with_names(found, engine.names(found), settings)
        manifest = _Job(engine, found, settings, work, options, say).run()
    return manifest


@contextlib.contextmanager
def made_aside(settings: Settings, out: Path, options: Options, say: Say) -> Iterator[Path]:
    """Yields a hidden folder beside `out` to work in, whose folder "out" then becomes `out`.

    If the body fails or is killed, the folder stays, and the same command finds it as it was.
    """
    work = _work(out)
    work.mkdir(parents=True, exist_ok=True)
    with files.locked(work, f"Another process prepares {out}. Wait for it to end, or give another --out."):
        _claim(work, settings, options, say)
        yield work
        files.move(work / "out", out)
        _remove(work)


def finished(settings: Settings, out: Path, options: Options) -> dict[str, Any] | None:
    """The manifest of `out` if this command, on the same files, has made it already; removes what a killed one left."""
    try:
        manifest = prepared.Prepared(out).manifest
    except UserError:  # something else
        return None
    if manifest.get("job") != _digest(_job(settings, options)):
        return None
    work = _work(out)
    busy = f"Another process prepares {out}. Wait for it to end."
    with contextlib.suppress(FileNotFoundError), files.locked(work, busy, create=False):  # or nothing was left
        _remove(work)
    return manifest


def claimed_job(work: Path) -> str:
    """A hash of the command that works in the folder and of its input files' states at its start, for the manifest."""
    return _digest(_claimed(work))


def check(settings: SplitSettings) -> None:
    """Raises UserError for settings that no engine can follow."""
    if settings.split_by != "hash":
        raise UserError(
            "an engine splits by --split_by=hash; the published permutation needs the order of the log: --engine=memory"
        )
    if settings.half_life_days:
        raise UserError(
            "--half_life_days is not among what an engine prepares: give the weights of the events in --weight_column"
        )


def _work(out: Path) -> Path:
    return out.parent / f".{out.name}.unfinished"


def _job(settings: Settings, options: Options) -> dict[str, Any]:
    """What two commands must have in common for one to go on where the other was killed."""
    job = {
        "settings": {name: settings[name] for name in names("data", "split")},
        "engine": options.engine,
        "shard_users": options.shard_users,
        "files": _states(settings.data.data),
    }
    return json.loads(json.dumps(job))  # as it is read again: lists for tuples


def _claimed(work: Path) -> dict[str, Any] | None:
    """The job of the command that worked in the folder last."""
    with contextlib.suppress(OSError, ValueError):
        return files.read_json(work / _JOB)
    return None


def _digest(job: dict[str, Any] | None) -> str:
    """Sixteen hexadecimal digits that two commands have in common if their results are the same."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:16]


def _claim(work: Path, settings: Settings, options: Options, say: Say) -> None:
    """Records this command in the work folder. Keeps the folder's content only if the same command left it."""
    job = _job(settings, options)
    if _claimed(work) == job:
        say("Going on from the stages that are done already.")
        return
    _empty(work, files.LOCK)
    files.write_json(work / _JOB, job)


def _empty(work: Path, *kept: str) -> None:
    for entry in work.iterdir():
        if entry.name not in kept:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _remove(work: Path) -> None:
    """Removes the folder. What cannot be removed stays: `out` is whole."""
    with contextlib.suppress(OSError):
        shutil.rmtree(work)


def _states(data: str) -> list[list[Any]]:
    """Names, sizes and times of the log's files, for what is read from files of this machine."""
    if not data or log.is_url(data):
        return []
    found = ((path, path.stat()) for path in log.files_of(data))
    return [[str(path), state.st_size, state.st_mtime_ns] for path, state in found]


class _Job:
    def __init__(self, engine: Engine, found: log.LogFiles, settings: Settings, work: Path, options: Options, say: Say):
        self.engine, self.log, self.settings, self.options, self.say = engine, found, settings, options, say
        self.tables, self.out = work / "tables", work / "out"
        self.tables.mkdir(exist_ok=True)
        self.out.mkdir(exist_ok=True)

    def run(self) -> dict[str, Any]:
        """Does the stages that are left; returns the manifest."""
        split = self.settings.split
        kinds = self.engine.open_log(self.log)
        has_column = "weight" in kinds
        cuts = self._events(kinds)
        ids = {role: events.clean_ids(self.engine, self.log, role, kinds[role]) for role in events.IDS}
        for stage in protocol.stages(split, has_column, cuts, ids, self.engine):
            self._keep(stage)
            if stage.name == "kept_users":
                self._check_left()
        users = {part: self._count(f"{part}_users") for part in prepared.FOLDERS}
        self._check_targets(users)
        weighted = protocol.has_weights(split, has_column)
        for part in prepared.FOLDERS:
            with self._timed(f"Shards of {part}: {users[part]:,} users"):
                self._shards(part, users[part], weighted)
        columns = self.engine.column("SELECT item_id FROM catalogue ORDER BY col")
        counts = self.engine.column("SELECT n FROM catalogue ORDER BY col")
        titles = self.log.titles_of(columns, self.settings, self.say)
        prepared.write_items(self.out, columns, np.asarray(counts, np.int64), titles)
        return prepared.finish(
            self.out,
            {name: self.settings[name] for name in names("split")},
            self._about(cuts),
            self.options.shard_users,
            self.engine.version,
            claimed_job(self.out.parent),
        )

    def _events(self, kinds: Mapping[str, str]) -> Cuts | None:
        """Makes the tables of raw ids and the view `events`; returns the cuts in time."""
        if self.log.is_text:  # text is parsed once; of Parquet each stage reads the columns that it needs
            self._keep(protocol.Stage("text", "SELECT * FROM source", "Text is read"))
            self.engine.define("source", "SELECT * FROM text")
        for role in events.IDS:
            self._keep(protocol.Stage(f"raw_{role}", events.raw_ids(role), f"Distinct {role.removesuffix('_id')} ids"))
        facts = self.tables / "facts.json"
        if not facts.exists():
            with self._timed("Rows are checked"):
                sql, rows, counted = events.counted(self.engine, self.log, dict(kinds), self.settings)
            self.say(f"{rows:,} rows read, {counted:,} count.")
            files.write_json(facts, {"sql": sql, "counted": counted})
        try:
            known = files.read_json(facts)
        except ValueError as error:
            raise UserError(f"{facts} is damaged ({error}). Remove {facts.parents[1]}, and start again.") from error
        self.engine.define("events", known["sql"])
        if self.settings.split.split != "time":
            return None
        if "cuts" not in known:
            known["cuts"] = self._cuts(known["counted"])
            files.write_json(facts, known)
        return Cuts(*known["cuts"])

    def _cuts(self, counted: int) -> Cuts:
        def at(index: int) -> float:
            return float(self.engine.rows(f"SELECT time FROM events ORDER BY time LIMIT 1 OFFSET {index}")[0]["time"])

        def before(moment: float) -> int:
            earlier = f"SELECT count(*) AS n FROM events WHERE time < {protocol.double(moment)}"
            return int(self.engine.rows(earlier)[0]["n"])

        with self._timed("Cuts in time"):
            found = cuts_of(counted, at, before, self.settings.split)
        self.say(f"Training ends before {as_text(found.validation)}, test targets begin at {as_text(found.test)}.")
        return found

    def _keep(self, stage: protocol.Stage) -> None:
        """Makes the table of a stage, unless it is there, and its view."""
        folder = self.tables / stage.name
        if not folder.exists():
            aside = self.tables / f"{stage.name}.unfinished"
            shutil.rmtree(aside, ignore_errors=True)
            with self._timed(stage.told):
                self.engine.write(stage.sql, aside, stage.order)
                files.move(aside, folder)
        self.engine.view(stage.name, folder)

    @contextlib.contextmanager
    def _timed(self, told: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        if told:
            self.say(f"{told}: {time.monotonic() - start:,.1f} s.")

    def _shards(self, part: str, users: int, weighted: bool) -> None:
        folder = self.out / part
        folder.mkdir(exist_ok=True)

        def sql(condition: str) -> str:
            return protocol.shard(self.engine, part, weighted, condition)

        self.engine.write_shards(sql, users, self.options.shard_users, folder, self.say)

    def _count(self, table: str) -> int:
        return int(self.engine.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])

    def _check_left(self) -> None:
        pairs, users, items = self._count("pairs"), self._count("users"), self._count("items")
        kept, kept_items = self._count("kept_users"), self._count("kept_items")
        self.say(
            f"Distinct: {pairs:,} pairs of {users:,} users and {items:,} items. The filters leave {kept:,} users and "
            f"{kept_items:,} items."
        )
        if kept < 3:
            raise UserError(
                f"{kept:,} users are left of {users:,}, too few for training, validation and test, which need one "
                "each; lower --min_items_per_user, --min_users_per_item or --threshold, or give data of more users"
            )

    def _check_targets(self, users: Mapping[str, int]) -> None:
        if not users["train"]:
            raise UserError("no user is left to train on; lower --heldout_share, or give data of more users")
        for part in prepared.FOLDERS[1:]:
            condition = f"SELECT count(*) AS n FROM {part}_pairs WHERE is_target"
            if not self.engine.rows(condition)[0]["n"]:
                raise UserError(
                    f"no {part} user has a target: of {users[part]:,} {part} users with an item of the catalogue none "
                    f"has {MIN_ITEMS_FOR_TARGETS} of them; raise --heldout_share, or give more data"
                    if self.settings.split.split == "users"
                    else f"no {part} user has items of the catalogue before and after the cut; give another --cut"
                )

    def _about(self, cuts: Cuts | None) -> dict[str, Any]:
        if cuts is None:
            return {"by": "users", "targets": self.settings.split.targets} | later_events(None, None)
        moments = {"cut": as_text(cuts.test), "training_ends": as_text(cuts.validation)}
        later = {"training_has_later_events": False, "training_later_share": 0.0}
        return {"by": "time", "targets": "after the cut"} | moments | later
