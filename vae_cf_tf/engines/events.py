"""SQL of the events that count: ids as clean text, ratings, weights and times as numbers; and what is refused.

There are far fewer ids than events, so ids are checked and cleaned in the tables of distinct ids.
"""

from collections.abc import Iterable
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
IDS = ("user_id", "item_id")
_WHOLE = "^-?[0-9]+([.]0)?$"
_INFINITE = "CAST('Infinity' AS DOUBLE)"


def raw_ids(role: str) -> str:
    """The query of the distinct ids of a column as they stand in the log: raw, and n, the rows of each."""
    return f"SELECT {role} AS raw, count(*) AS n FROM source GROUP BY {role}"


def clean_ids(engine: Engine, log: LogFiles, role: str, kind: str) -> str:
    """The SQL of an id as clean text, from `raw`; the tables raw_user_id and raw_item_id are there.

    Args:
      role: user_id or item_id.
      kind: of the column.

    Raises: UserError that says how many rows have no id.
    """
    what, sql = role.partition("_")[0], _id(engine, kind)
    missing = ", ".join(engine.text(text) for text in NO_IDS)
    whole = " or not a whole number" if kind == "number" else ""
    faults = {f"the {what} id is empty{whole}": f"{sql} IS NULL OR {sql} IN ({missing})"}
    if kind in ("text", "bytes"):
        faults[f"the {what} id holds a line break"] = f"instr({sql}, chr(10)) > 0 OR instr({sql}, chr(13)) > 0"
    decimal = f"{sql} LIKE {engine.text('%.0')}"
    columns = [*(_count(fault, "n") for fault in faults.values()), _count("true", "n"), _count(decimal)]
    counts = engine.rows(f"SELECT {_named(columns)} FROM raw_{role}")[0]
    _refuse(log, dict(zip(faults, counts.values(), strict=False)), counts[f"c{len(faults)}"])
    if counts[f"c{len(faults) + 1}"]:
        other = f"NOT regexp_like({sql}, {engine.text(_WHOLE)})"
        if not engine.rows(f"SELECT {_count(other)} AS others FROM raw_{role}")[0]["others"]:
            return f"regexp_replace({sql}, {engine.text('[.]0$')}, '')"
    return sql


def counted(engine: Engine, log: LogFiles, kinds: dict[str, str], settings: Settings) -> tuple[str, int, int]:
    """The query of the events that count: raw_user, raw_item, weight, time (seconds).

    Refuses what the readers in memory refuse. Reads the log once if it has ratings, weights or times.

    Args:
      kinds: of the columns of `source`.

    Returns: the query, how many rows were read, and how many of them count.
    Raises: UserError that says how many rows have no rating, weight or time, or that none counts.
    """
    rows = int(engine.rows(f"SELECT {_count('true', 'n')} AS n FROM raw_user_id")[0]["n"])
    if not rows:
        raise UserError(f"{_where(log)} holds no rows; give a file with interactions")
    _refuse_headers(engine, log, rows)
    numbers: dict[str, str] = {
        name: _number(engine, name, kinds[name]) for name in ("rating", "weight") if name in kinds
    }
    conditions = []
    if "rating" in numbers:
        conditions.append(f"{numbers['rating']} >= CAST({float(np.float32(settings.split.threshold))!r} AS FLOAT)")
    if "weight" in numbers:
        conditions.append(f"{numbers['weight']} > 0")
    counts = " AND ".join(conditions) or "true"
    selected = ["user_id AS raw_user", "item_id AS raw_item"]
    if "weight" in numbers:
        selected.append(f"CAST({numbers['weight']} AS DOUBLE) AS weight")
    counted_rows = rows
    if numbers or "time" in kinds:
        time, are_moments = _time(engine, log, kinds) if "time" in kinds else (None, False)
        found = _scanned(engine, log, numbers, time, counts)
        counted_rows = int(found["counted"])
        if not counted_rows:
            raise UserError(_none_counts(settings.split.threshold, found.get("highest")))
        if time:
            known = are_moments or log.times_are_seconds
            selected.append(f"{time if known else _seconds(time, found, engine)} AS time")
    return f"SELECT {', '.join(selected)} FROM source WHERE {counts}", rows, counted_rows


def _scanned(engine: Engine, log: LogFiles, numbers: dict[str, str], time: str | None, counts: str) -> dict[str, Any]:
    """Counts and extremes over all rows of the log. Raises UserError for a number or time that is missing or not
    finite, and for a weight below 0."""
    checked = numbers | ({"time": time} if time else {})
    faults = {
        f"the {name} is empty or not {'a time' if name == 'time' else 'a finite number'}": (
            f"NOT ({sql} IS NOT NULL AND {sql} > -{_INFINITE} AND {sql} < {_INFINITE})"
        )
        for name, sql in checked.items()
    }
    if "weight" in numbers:
        faults["the weight is below 0"] = f"{numbers['weight']} < 0"
    facts = {"n": "count(*)", "counted": _count(counts)}
    if "rating" in numbers:
        facts["highest"] = f"max({numbers['rating']})"
    if time:
        facts |= {"first_time": f"min({time})", "last_time": f"max({time})"}
        facts["fractions"] = _count(f"{time} <> floor({time})")
    columns = [f"{sql} AS {name}" for name, sql in facts.items()]
    found = engine.rows(f"SELECT {', '.join(columns)}, {_named(map(_count, faults.values()))} FROM source")[0]
    _refuse(log, {fault: found[f"c{i}"] for i, fault in enumerate(faults)}, found["n"])
    return found


def _named(columns: Iterable[str]) -> str:
    return ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(columns))


def _refuse(log: LogFiles, faults: dict[str, int], rows: int) -> None:
    """Raises UserError for the first fault that rows have."""
    for fault, count in faults.items():
        if count:
            raise UserError(f"{_where(log)}: {count:,} of {rows:,} rows: {fault}; correct or drop them")


def _refuse_headers(engine: Engine, log: LogFiles, rows: int) -> None:
    """Raises UserError where the header line stands among the rows, too."""
    if not (log.columns and log.columns.ids):
        return
    user, item = (engine.text(name) for name in log.columns.ids)
    if log.is_text and engine.rows(f"SELECT 1 AS n FROM raw_user_id WHERE raw = {user}"):
        again = engine.rows(f"SELECT count(*) AS n FROM source WHERE user_id = {user} AND item_id = {item}")
        _refuse(log, {"the header line stands there again": again[0]["n"]}, rows)


def _where(log: LogFiles) -> str:
    return log.paths[0] if len(log.paths) == 1 else f"the log in {log.folder or log.paths[0]}"


def _none_counts(threshold: float, highest: float | None) -> str:
    if highest is not None and highest < threshold:
        return f"no rating reaches {threshold:g} (the highest is {highest:g}); lower --threshold"
    return "no event counts: every weight is 0 where the rating reaches --threshold; name another --weight_column"


def _time(engine: Engine, log: LogFiles, kinds: dict[str, str]) -> tuple[str, bool]:
    """The time of a row, and whether it is in seconds: otherwise the unit is not known yet."""
    is_text = kinds["time"] == "text"
    if kinds["time"] == "time" or (
        is_text and ((log.columns and log.columns.time_is_text) or not _are_numbers(engine))
    ):
        return f"CAST(unix_micros(TRY_CAST(time AS {engine.timestamp})) AS DOUBLE) / 1e6", True
    return f"TRY_CAST({_trimmed(engine, 'time') if is_text else 'time'} AS DOUBLE)", False


def _are_numbers(engine: Engine) -> bool:
    """Whether all texts of the column time are numbers."""
    other = f"TRY_CAST({_trimmed(engine, 'time')} AS DOUBLE) IS NULL"
    return not engine.rows(f"SELECT {_count(other)} AS others FROM source")[0]["others"]


def _trimmed(engine: Engine, sql: str) -> str:
    return f"btrim({sql}, {engine.text(_BLANKS)})"


def _id(engine: Engine, kind: str) -> str:
    """The id as text without blanks around it; NULL for a number that is not whole."""
    if kind == "integer":
        return "CAST(raw AS STRING)"
    if kind == "number":
        return "CASE WHEN raw = floor(raw) THEN CAST(CAST(raw AS BIGINT) AS STRING) END"
    return _trimmed(engine, "decode_utf8(raw)" if kind == "bytes" else "raw")


def _number(engine: Engine, name: str, kind: str) -> str:
    if kind == "boolean":
        return f"CASE WHEN {name} THEN CAST(1 AS FLOAT) WHEN NOT {name} THEN CAST(0 AS FLOAT) END"
    if kind != "text":
        return f"CAST({name} AS FLOAT)"
    text = _trimmed(engine, name)
    number = f"TRY_CAST({text} AS FLOAT)"
    if name == "rating":
        return (
            f"CASE lower({text}) WHEN 'true' THEN CAST(1 AS FLOAT) WHEN 'false' THEN CAST(0 AS FLOAT) ELSE {number} END"
        )
    return number


def _count(condition: str, weight: str = "1") -> str:
    return f"CAST(coalesce(sum(CASE WHEN {condition} THEN {weight} ELSE 0 END), 0) AS BIGINT)"


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
