"""The protocol of `vae_cf_tf.data.split` with `split_by` = hash, as SQL that every engine reads.

Users and items get numbers, u and i, so that the large tables hold integers only: u in the order of `md5_of` the
user's id, i in the order of the item ids. The largest table is `pairs`: a row for each user and item that an event
which counts has. `place` is a user's row in its part, `col` an item's number in the catalogue.

Each stage is a query over the stages before it. `stages` gives them in order.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from vae_cf_tf.data.assignment import bounds
from vae_cf_tf.data.split import MIN_ITEMS_FOR_TARGETS
from vae_cf_tf.data.time_split import Cuts
from vae_cf_tf.engines.base import Engine
from vae_cf_tf.settings import SplitSettings


class Stage(NamedTuple):
    """A table that is kept.

    Args:
      name: of the table.
      sql: its query.
      told: what it does, for people.
      order: columns by which it is read in ranges.
    """

    name: str
    sql: str
    told: str
    order: str = ""


def has_weights(settings: SplitSettings, has_column: bool) -> bool:
    """Whether the items of training users may have weights other than 1."""
    return has_column or settings.repeats == "sum"


def stages(
    settings: SplitSettings, has_column: bool, cuts: Cuts | None, ids: dict[str, str], engine: Engine
) -> Iterator[Stage]:
    """The stages from `events` (raw_user, raw_item, weight, time), raw_user_id and raw_item_id on.

    Args:
      settings: with `split_by` = hash.
      has_column: whether events have weights of their own.
      cuts: of --split=time, else None.
      ids: the SQL of a clean id from `raw`, by user_id and item_id.
    """
    seed = engine.text(f"{settings.split_seed}:")
    weighted, timed = has_weights(settings, has_column), settings.needs_times
    yield Stage(
        "user_hashes",
        f"SELECT user_id, md5(concat({seed}, user_id)) AS h FROM (SELECT DISTINCT {ids['user_id']} AS user_id "
        "FROM raw_user_id) AS t",
        "",
    )
    numbered = _numbered("user_hashes", "h, user_id", "substr(h, 1, 3)")
    yield Stage("users", f"SELECT n AS u, user_id, h FROM ({numbered}) AS t", "")
    yield Stage(
        "items",
        "SELECT CAST(row_number() OVER (ORDER BY item_id) - 1 AS INT) AS i, item_id "
        f"FROM (SELECT DISTINCT {ids['item_id']} AS item_id FROM raw_item_id) AS t",
        "",
    )
    for code, table in (("u", "user"), ("i", "item")):
        found = f"SELECT raw, {ids[f'{table}_id']} AS {table}_id FROM raw_{table}_id"
        yield Stage(
            f"{table}_codes",
            f"SELECT r.raw, t.{code} FROM ({found}) AS r JOIN {table}s AS t ON r.{table}_id = t.{table}_id",
            f"Numbers of {table}s",
        )
    more = ""
    if weighted:
        one = "e.weight" if has_column else "CAST(1 AS DOUBLE)"
        one = one if cuts is None else f"CASE WHEN e.time < {double(cuts.validation)} THEN {one} END"
        more += f", {'sum' if settings.repeats == 'sum' else 'max'}({one}) AS weight"
    if timed:
        more += ", min(e.time) AS time"
    yield Stage(
        "pairs",
        f"SELECT users.u, items.i{more} FROM events AS e JOIN user_codes AS users ON e.raw_user = users.raw "
        "JOIN item_codes AS items ON e.raw_item = items.raw GROUP BY users.u, items.i",
        "Pairs of a user and an item",
    )
    # Filters: drop items with few users, then users with few items. By time, only events before the first cut count.
    seen = "pairs" if cuts is None else f"(SELECT * FROM pairs WHERE time < {double(cuts.validation)})"
    least = max(settings.min_users_per_item, 1)
    yield Stage("kept_items", f"SELECT i FROM {seen} AS p GROUP BY i HAVING count(*) >= {least}", "")
    yield Stage(
        "kept_users",
        f"SELECT p.u, count(*) AS n FROM {seen} AS p JOIN kept_items AS k ON p.i = k.i GROUP BY p.u "
        f"HAVING count(*) >= {max(settings.min_items_per_user, 1)}",
        "Filters",
    )
    part = "'train'"
    if cuts is None:
        test, validation = (engine.text(bound) for bound in bounds(settings.heldout_share))
        part = f"CASE WHEN users.h < {test} THEN 'test' WHEN users.h >= {validation} THEN 'validation' ELSE 'train' END"
    yield Stage("parts", f"SELECT users.u, {part} AS part FROM users JOIN kept_users AS k ON users.u = k.u", "Parts")
    yield Stage(
        "train_seen",
        f"SELECT p.* FROM {seen} AS p JOIN kept_items AS k ON p.i = k.i "
        "JOIN parts ON p.u = parts.u WHERE parts.part = 'train'",
        "",
    )
    yield Stage(
        "catalogue",
        "SELECT CAST(row_number() OVER (ORDER BY c.i) - 1 AS INT) AS col, c.i, c.n, items.item_id FROM "
        "(SELECT i, count(*) AS n FROM train_seen GROUP BY i) AS c JOIN items ON c.i = items.i",
        "Catalogue",
    )
    yield Stage("train_users", _places("train_seen", "'train'"), "", "place")
    weight = f", {_scaled('p.weight', settings)} AS weight" if weighted else ""
    yield Stage(
        "train_pairs",
        f"SELECT r.place, c.col{weight} FROM train_seen AS p JOIN catalogue AS c ON p.i = c.i "
        "JOIN train_users AS r ON p.u = r.u",
        "Training users",
        "place, col",
    )
    if cuts is None:
        yield Stage("held_pairs", _drawn(settings, engine), "Held-out users")
    else:
        yield Stage("held_pairs", _by_time(cuts), "Held-out users")
    for name in ("validation", "test"):
        yield Stage(f"{name}_users", _places("held_pairs", f"'{name}'"), "", "place")
        yield Stage(
            f"{name}_pairs",
            f"SELECT r.place, p.col, p.is_target FROM held_pairs AS p JOIN {name}_users AS r ON p.u = r.u "
            f"WHERE p.part = '{name}'",
            "",
            "place, col",
        )


def shard(engine: Engine, part: str, weighted: bool, condition: str) -> str:
    """The query of a part's users that meet a condition on `place`: place, user and their lists, in order of place."""
    if part == "train":
        columns = {"items": engine.listed("p.col", "p.col")}
        if weighted:
            columns["weights"] = engine.listed("p.weight", "p.col")
    else:
        halves = {"fold_in": "NOT p.is_target", "target": "p.is_target"}
        columns = {name: engine.listed(f"CASE WHEN {half} THEN p.col END", "p.col") for name, half in halves.items()}
    lists = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    where = condition.replace("place", "p.place")
    return (
        f"SELECT p.place AS place, r.user_id AS user, {lists} FROM {part}_pairs AS p JOIN "
        f"(SELECT * FROM {part}_users WHERE {condition}) AS r ON p.place = r.place "
        f"WHERE {where} GROUP BY p.place, r.user_id ORDER BY place"
    )


def _numbered(table: str, order: str, bucket: str) -> str:
    """The rows of a table with n, their number from 0 in this order. Each bucket is numbered on its own, so that no
    engine sorts the whole table in one place; `bucket` must not decrease in this order."""
    return (
        f"SELECT t.*, CAST(s.first_n + row_number() OVER (PARTITION BY {bucket} ORDER BY {order}) - 1 AS INT) AS n "
        f"FROM {table} AS t JOIN (SELECT b, sum(m) OVER (ORDER BY b) - m AS first_n FROM "
        f"(SELECT {bucket} AS b, count(*) AS m FROM {table} GROUP BY {bucket}) AS c) AS s ON {bucket} = s.b"
    )


def double(number: float) -> str:
    """The SQL literal of a 64-bit number, exactly."""
    return f"CAST('{float(number)!r}' AS DOUBLE)"


def _bucket(u: str) -> str:
    return f"{u} - {u} % 65536"


def _places(table: str, part: str) -> str:
    """The users of a part that have pairs, in the order of u: place, u, user_id."""
    condition = "" if table == "train_seen" else f" WHERE part = {part}"
    users = f"(SELECT DISTINCT u FROM {table}{condition})"
    numbered = _numbered(users, "u", _bucket("u"))
    return f"SELECT t.n AS place, t.u, users.user_id FROM ({numbered}) AS t JOIN users ON t.u = users.u"


def _scaled(weight: str, settings: SplitSettings) -> str:
    """Steps 3 and 4 of `weights.pair_weights`."""
    if settings.weight_scale == "log":
        weight = f"log2(1 + {weight})"
    if settings.weight_cap:
        weight = f"least({weight}, {double(settings.weight_cap)})"
    return f"CAST({weight} AS FLOAT)"


def _drawn(settings: SplitSettings, engine: Engine) -> str:
    """The held-out users' pairs with items of the catalogue; targets are those of the largest hash, or the latest."""
    above, below = (1 - Fraction(str(float(settings.fold_in_share)))).as_integer_ratio()
    seed, colon = engine.text(f"{settings.split_seed}:"), engine.text(":")
    time, latest = (", p.time", "time DESC, ") if settings.targets == "latest" else ("", "")
    found = (
        f"SELECT parts.part, p.u, c.col{time}, md5(concat({seed}, users.user_id, {colon}, c.item_id)) AS h "
        "FROM pairs AS p JOIN parts ON p.u = parts.u JOIN catalogue AS c ON p.i = c.i JOIN users ON p.u = users.u "
        "WHERE parts.part <> 'train'"
    )
    ranked = (
        "SELECT part, u, col, count(*) OVER (PARTITION BY u) AS n, "
        f"row_number() OVER (PARTITION BY u ORDER BY {latest}h DESC) AS k FROM ({found}) AS f"
    )
    product = f"CAST(n AS BIGINT) * {above}"
    targets = f"CASE WHEN n < {MIN_ITEMS_FOR_TARGETS} THEN 0 ELSE ({product} - ({product}) % {below}) / {below} END"
    return f"SELECT part, u, col, k <= {targets} AS is_target FROM ({ranked}) AS r"


def _by_time(cuts: Cuts) -> str:
    """The pairs of held-out users with items of the catalogue: fold-in before a cut, targets after it.

    Only users who have both are kept. A pair's time is that of its first event, so an item that the user had before the
    cut is no target.
    """
    parts = []
    for name, start, end in (("validation", cuts.validation, cuts.test), ("test", cuts.test, None)):
        until = "" if end is None else f" WHERE p.time < {double(end)}"
        is_target = f"p.time >= {double(start)} AS is_target"
        pairs = f"SELECT p.u, c.col, {is_target} FROM pairs AS p JOIN catalogue AS c ON p.i = c.i{until}"
        counts = "sum(CASE WHEN is_target THEN 1 ELSE 0 END) OVER (PARTITION BY u) AS targets"
        both = f"SELECT u, col, is_target, count(*) OVER (PARTITION BY u) AS n, {counts} FROM ({pairs}) AS p"
        parts.append(f"SELECT '{name}' AS part, u, col, is_target FROM ({both}) AS b WHERE targets > 0 AND targets < n")
    return " UNION ALL ".join(parts)
