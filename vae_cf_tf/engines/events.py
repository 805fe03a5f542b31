"""SQL of the events that count: ids as clean text, ratings, weights and times as numbers; and what is refused."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vae_cf_tf.data.events import NO_IDS
from vae_cf_tf.data.times import number_units
from vae_cf_tf.engines.base import Engine
from vae_cf_tf.engines.log import LogFiles
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import Settings

_BLANKS = "\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""What pyarrow's utf8_trim_whitespace removes."""
_WHOLE = "^-?[0-9]+([.]0)?$"
_INFINITE = "CAST('Infinity' AS DOUBLE)"


@dataclass(frozen=True)
class Events:
    """Expressions over the view `source`.

    Args:
      ids: of user_id and item_id.
      numbers: of rating and weight, where the log has them; NULL for what is no number.
      time: seconds since 1970, or the number whose unit is not known yet; None without times.
      counts: the condition under which an event counts.
    """

    ids: dict[str, str]
    numbers: dict[str, str]
    time: str | None
    counts: str

    def sql(self) -> str:
        """The query of the events that count: user_id, item_id, weight, time."""
        columns = [f"{sql} AS {name}" for name, sql in self.ids.items()]
        if "weight" in self.numbers:
            columns.append(f"CAST({self.numbers['weight']} AS DOUBLE) AS weight")
        if self.time:
            columns.append(f"{self.time} AS time")
        return f"SELECT {', '.join(columns)} FROM source WHERE {self.counts}"


def checked(engine: Engine, log: LogFiles, kinds: dict[str, str], settings: Settings) -> tuple[Events, dict[str, int]]:
    """Reads the log once, and refuses what the readers in memory refuse.

    Args:
      kinds: of the columns of `source`.

    Returns: the events, and how many rows were read and how many count.
    Raises: UserError that says how many rows have no id, rating, weight or time.
    """
    events = _events(engine, log, kinds, settings)
    bad = _faults(engine, log, kinds, events)
    columns = ["count(*) AS n", f"{_count(events.counts)} AS counted"]
    columns += [f"{_count(sql)} AS bad_{i}" for i, (_, sql) in enumerate(bad)]
    columns += [f"{_count(sql + ' LIKE ' + engine.text('%.0'))} AS decimal_{name}" for name, sql in events.ids.items()]
    if "rating" in events.numbers:
        columns.append(f"max({events.numbers['rating']}) AS highest")
    if events.time:
        columns += [f"min({events.time}) AS first_time", f"max({events.time}) AS last_time"]
        columns += [f"{_count(f'{events.time} <> floor({events.time})')} AS fractions"]
    found = engine.rows(f"SELECT {', '.join(columns)} FROM source")[0]
    where = log.paths[0] if len(log.paths) == 1 else f"the log in {log.folder or log.paths[0]}"
    if not found["n"]:
        raise UserError(f"{where} holds no rows; give a file with interactions")
    for i, (fault, _) in enumerate(bad):
        if found[f"bad_{i}"]:
            raise UserError(f"{where}: {found[f'bad_{i}']:,} of {found['n']:,} rows: {fault}; correct or drop them")
    if not found["counted"]:
        threshold, highest = settings.split.threshold, found.get("highest")
        if highest is not None and highest < threshold:
            raise UserError(f"no rating reaches {threshold:g} (the highest is {highest:g}); lower --threshold")
        raise UserError("no event counts: every weight is 0 where the rating reaches --threshold; lower it")
    events = replace(events, ids={name: _without_decimals(engine, name, events, found) for name in events.ids})
    if events.time and not _is_moment(kinds) and not log.times_are_seconds:
        events = replace(events, time=_seconds(events.time, found, engine))
    return events, {"rows": found["n"], "counted": found["counted"]}


def _events(engine: Engine, log: LogFiles, kinds: dict[str, str], settings: Settings) -> Events:
    ids = {name: _id(engine, name, kinds[name]) for name in ("user_id", "item_id")}
    numbers = {name: _number(engine, name, kinds[name]) for name in ("rating", "weight") if name in kinds}
    counts = []
    if "rating" in numbers:
        counts.append(f"{numbers['rating']} >= CAST({float(np.float32(settings.split.threshold))!r} AS FLOAT)")
    if "weight" in numbers:
        counts.append(f"{numbers['weight']} > 0")
    time = None
    if kinds.get("time") == "text" and ((log.columns and log.columns.time_is_text) or not _are_numbers(engine)):
        kinds["time"] = "moments"
    if kinds.get("time") in ("time", "moments"):
        time = f"CAST(unix_micros(TRY_CAST(time AS {engine.timestamp})) AS DOUBLE) / 1e6"
    elif "time" in kinds:
        time = f"TRY_CAST({_trimmed(engine, 'time', kinds['time'])} AS DOUBLE)"
    return Events(ids, numbers, time, " AND ".join(counts) or "true")


def _are_numbers(engine: Engine) -> bool:
    """Whether all texts of the column time are numbers."""
    other = f"TRY_CAST({_trimmed(engine, 'time', 'text')} AS DOUBLE) IS NULL"
    return not engine.rows(f"SELECT {_count(other)} AS others FROM source")[0]["others"]


def _is_moment(kinds: dict[str, str]) -> bool:
    return kinds["time"] in ("time", "moments")


def _trimmed(engine: Engine, name: str, kind: str) -> str:
    return f"btrim({name}, {engine.text(_BLANKS)})" if kind == "text" else name


def _id(engine: Engine, name: str, kind: str) -> str:
    if kind == "integer":
        return f"CAST({name} AS STRING)"
    if kind == "number":
        return f"CASE WHEN {name} = floor({name}) THEN CAST(CAST({name} AS BIGINT) AS STRING) END"
    if kind == "bytes":
        return f"btrim(decode_utf8({name}), {engine.text(_BLANKS)})"
    return _trimmed(engine, name, "text")


def _number(engine: Engine, name: str, kind: str) -> str:
    if kind == "boolean":
        return f"CASE WHEN {name} THEN CAST(1 AS FLOAT) WHEN NOT {name} THEN CAST(0 AS FLOAT) END"
    if kind != "text":
        return f"CAST({name} AS FLOAT)"
    text = f"btrim({name}, {engine.text(_BLANKS)})"
    number = f"TRY_CAST({text} AS FLOAT)"
    if name == "rating":
        return (
            f"CASE lower({text}) WHEN 'true' THEN CAST(1 AS FLOAT) WHEN 'false' THEN CAST(0 AS FLOAT) ELSE {number} END"
        )
    return number


def _faults(engine: Engine, log: LogFiles, kinds: dict[str, str], events: Events) -> list[tuple[str, str]]:
    """What is wrong with a row, and the condition of it."""
    found = []
    for name, sql in events.ids.items():
        what, missing = name.partition("_")[0], ", ".join(engine.text(text) for text in NO_IDS)
        whole = " or not a whole number" if kinds[name] == "number" else ""
        found.append((f"the {what} id is empty{whole}", f"{sql} IS NULL OR {sql} IN ({missing})"))
        if kinds[name] in ("text", "bytes"):
            breaks = f"instr({sql}, chr(10)) > 0 OR instr({sql}, chr(13)) > 0"
            found.append((f"the {what} id holds a line break", breaks))
    if log.columns and log.columns.ids:
        pairs = zip(events.ids.values(), log.columns.ids, strict=True)
        again = " AND ".join(f"{sql} = {engine.text(name)}" for sql, name in pairs)
        found.append(("the header line stands there again", again))
    for name, sql in events.numbers.items():
        is_number = f"{sql} IS NOT NULL AND {sql} > -{_INFINITE} AND {sql} < {_INFINITE}"
        found.append((f"the {name} is empty or not a finite number", f"NOT ({is_number})"))
    if "weight" in events.numbers:
        found.append(("the weight is below 0", f"{events.numbers['weight']} < 0"))
    if events.time:
        what = "neither a number nor ISO 8601" if _is_moment(kinds) else "not a number"
        is_time = f"{events.time} IS NOT NULL AND {events.time} > -{_INFINITE} AND {events.time} < {_INFINITE}"
        found.append((f"the time is empty or {what}", f"NOT ({is_time})"))
    return found


def _count(condition: str) -> str:
    return f"CAST(coalesce(sum(CASE WHEN {condition} THEN 1 ELSE 0 END), 0) AS BIGINT)"


def _without_decimals(engine: Engine, name: str, events: Events, found: dict[str, Any]) -> str:
    """The id without ".0" where all ids are whole numbers, as `events.clean_ids` has it."""
    sql = events.ids[name]
    if not found[f"decimal_{name}"]:
        return sql
    other = f"NOT regexp_like({sql}, {engine.text(_WHOLE)})"
    whole = f"SELECT {_count(other)} AS others FROM source"
    if engine.rows(whole)[0]["others"]:
        return sql
    return f"regexp_replace({sql}, {engine.text('[.]0$')}, '')"


def _seconds(time: str, found: dict[str, Any], engine: Engine) -> str:
    """The time in seconds, of numbers whose unit is inferred from the least and the largest."""
    unit = number_units(found["first_time"], found["last_time"], not found["fractions"])
    if unit is not None:
        return f"({time}) / {unit!r}"
    digits = f"CAST(CAST({time} AS BIGINT) AS STRING)"
    date = ", '-', ".join(f"substr({digits}, {start}, {size})" for start, size in ((1, 4), (5, 2), (7, 2)))
    moment = f"TRY_CAST(concat({date}) AS {engine.timestamp})"
    seconds = f"CAST(unix_micros({moment}) AS DOUBLE) / 1e6"
    if engine.rows(f"SELECT {_count(seconds + ' IS NULL')} AS others FROM source")[0]["others"]:
        return time  # some are no dates: then all are seconds
    return seconds
