"""Hostile requests, and what must hold of their answers, in Python and NumPy. Imports no TensorFlow."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from export.client.protos import Example
from torture.c_api import Answer, Session, Strings

LOWEST = np.finfo(np.float32).min
ATOL, RTOL = 2e-4, 2e-5  # of the scores of a history in a batch and alone
COMPARED = 0.15  # share of the requests of which rows are asked again, alone
REFUSED = {3, 5, 9, 11}  # INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, OUT_OF_RANGE


class Catalogue:
    """What a version's answers are about: its ids, and how many of them an answer has."""

    def __init__(self, version: Path):
        self.ids = (version / "assets" / "item_ids.txt").read_bytes().split(b"\n")[:-1]
        self.column_of = {item: column for column, item in enumerate(self.ids)} | {b"": -1}
        self.top_k = json.loads((version / "assets.extra" / "model_card.json").read_text())["top_k"]

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self, rows: Sequence[Sequence[bytes]]) -> np.ndarray:
        """Which items are in each row: bool [rows, items]."""
        found = np.zeros([len(rows), len(self) + 2], bool)  # the last two: unknown, and ""
        for place, row in zip(found, rows, strict=True):
            place[[self.column_of.get(item, -2) for item in row]] = True
        return found[:, :-2]

    def columns(self, ids: Strings) -> np.ndarray:
        """−1 for "", −2 for an id that the catalogue lacks."""
        return np.array([self.column_of.get(item, -2) for item in ids.values], int).reshape(ids.shape)


class Row(NamedTuple):
    """What is asked of one history."""

    history: list[bytes]
    candidates: list[bytes] = []  # noqa: RUF012
    exclude: list[bytes] = []  # noqa: RUF012
    include_history: bool = False


class Request(NamedTuple):
    """Inputs of a signature, and what is to come of them: an answer about the rows, or an error if there are none.

    With `either`, an error is as good as an answer; and without rows an answer must be a ranked list, of any items.
    """

    signature: str
    kind: str
    inputs: dict[str, Strings | np.ndarray]
    rows: list[Any] | None
    either: bool = False


# ---------------------------------------------------------------------------------------------------- requests


def request(catalogue: Catalogue, rng: random.Random) -> Request:
    """A request: a function of the generator's state."""
    signature = rng.choice(SIGNATURES)
    if rng.random() < 0.15:
        return _wrong(catalogue, signature, rng)
    batch = _batch(rng, 12 if signature == "explain" else 300)
    rows = MAKE[signature](catalogue, batch, rng)
    return Request(signature, "rows", INPUTS[signature](rows, rng), rows)


def warm_up(session: Session, catalogue: Catalogue) -> None:
    """Asks each signature, as TF Serving does before it sends users to a version; and without each of its inputs.

    TensorFlow prepares for each set of inputs that it sees, and keeps that: megabytes each.
    """
    rng = random.Random(0)
    for signature in SIGNATURES:
        rows = MAKE[signature](catalogue, 2, rng)
        inputs = INPUTS[signature](rows, rng)
        assert not session.run(signature, inputs).code
        for left_out in inputs:
            assert session.run(signature, {name: value for name, value in inputs.items() if name != left_out}).code


def _batch(rng: random.Random, most: int) -> int:
    kind = rng.random()
    if kind < 0.03:
        return 0
    if kind < 0.65:
        return 1
    if kind < 0.95:
        return rng.randint(2, 8)
    return min(most, rng.randint(9, 40 if kind < 0.99 else 300))


def _ids(catalogue: Catalogue, rng: random.Random, most: int) -> list[bytes]:
    """Ids of a history or a rule: up to about `most`."""
    kind, ids = rng.random(), catalogue.ids
    if kind < 0.1:
        return []
    if kind < 0.15:
        return [b""] * rng.randint(1, 5)
    if kind < 0.2:
        return [_odd(catalogue, rng) for _ in range(rng.randint(1, 5))]
    if kind < 0.6 or most < 50:
        found = rng.choices(ids, k=rng.randint(1, min(10, most)))
    elif kind < 0.9:
        found = rng.sample(ids, min(len(ids), rng.randint(1, min(most, 60))))
    elif kind < 0.94:
        found = rng.sample(ids, min(most, len(ids)))
    elif kind < 0.97:
        found = rng.sample(ids, min(most, len(ids) - 1 - rng.randrange(3)))
    else:
        found = rng.choices(ids, k=min(most, 10_000)) + [b"%d of no catalogue" % i for i in range(min(most, 3_000))]
    if rng.random() < 0.4:  # repeats, unknown ids and padding among them
        found += rng.choices(found, k=rng.randint(0, 3)) + [_odd(catalogue, rng) for _ in range(rng.randint(0, 3))]
        found += [b""] * rng.randint(0, 2)
        rng.shuffle(found)
    return found


def _odd(catalogue: Catalogue, rng: random.Random) -> bytes:
    """An id that is hardly one of the catalogue."""
    item, kind = rng.choice(catalogue.ids), rng.random()
    if kind < 0.02:
        return (item * 30_000)[:300_000]
    return rng.choice(
        (
            item + b"\0",
            b"\0" + item,
            item + b" ",
            item.upper(),
            item[:-1],
            item + b"\n" + item,
            b"\0",
            b"\xff\xfe\x80",
            "\u2028\ufeff".encode(),
            bytes(rng.randrange(256) for _ in range(rng.choice((1, 21, 22, 23, 24)))),
            b"-1",
            b"NaN",
            b"%s%n{}",
        )
    )


def _histories(catalogue: Catalogue, batch: int, rng: random.Random) -> list[Row]:
    return [Row(_ids(catalogue, rng, _most(batch, rng))) for _ in range(batch)]


def _most(batch: int, rng: random.Random) -> int:
    return 20 if batch > 8 else 12_000 if rng.random() < 0.2 else 200


def _filtered(catalogue: Catalogue, batch: int, rng: random.Random) -> list[Row]:
    kind, few = rng.random(), rng.sample(catalogue.ids, min(len(catalogue), 8))
    rows = []
    for _ in range(batch):
        lists = [_ids(catalogue, rng, _most(batch, rng)) for _ in range(3)]
        if kind < 0.3:  # few in all rows: they are scored alone
            lists[1] = rng.choices(few, k=rng.randint(1, 8))
        elif kind < 0.5:
            lists[1] = []
        if rng.random() < 0.1:
            lists[2] = list(lists[1] or catalogue.ids)  # nothing is left
        rows.append(Row(*lists, include_history=rng.random() < 0.4))
    return rows


def _items(catalogue: Catalogue, batch: int, rng: random.Random) -> list[bytes]:
    return [rng.choice((b"", _odd(catalogue, rng), *rng.choices(catalogue.ids, k=4))) for _ in range(batch)]


def _explained(catalogue: Catalogue, batch: int, rng: random.Random) -> list[tuple[list[bytes], bytes]]:
    most = 300 if batch == 1 and rng.random() < 0.02 else 20
    histories = [_ids(catalogue, rng, most) for _ in range(batch)]
    items = _items(catalogue, batch, rng)
    return [
        (history, rng.choice(history) if history and rng.random() < 0.2 else item)
        for history, item in zip(histories, items, strict=True)
    ]


def _rectangle(lists: Sequence[Sequence[bytes]], rng: random.Random) -> Strings:
    """The lists, with "" behind, before, or between their ids."""
    width = max(map(len, lists), default=rng.randrange(3)) + rng.choice((0, 0, 0, 1, 5))
    values: list[bytes] = []
    for ids in lists:
        padding, kind = [b""] * (width - len(ids)), rng.random()
        row = [*ids, *padding] if kind < 0.6 else [*padding, *ids]
        if kind > 0.8:
            rng.shuffle(row)
        values += row
    return Strings([len(lists), width], values)


def _history_in(rows: list[Row], rng: random.Random) -> dict[str, Any]:
    return {"history": _rectangle([row.history for row in rows], rng)}


def _filtered_in(rows: list[Row], rng: random.Random) -> dict[str, Any]:
    lists = {n: _rectangle([getattr(row, n) for row in rows], rng) for n in ("history", "candidates", "exclude")}
    return lists | {"include_history": np.array([row.include_history for row in rows], bool)}


def _examples_in(rows: list[Row], rng: random.Random) -> dict[str, Any]:
    return {"examples": Strings([len(rows)], [_example(row, rng) for row in rows])}


def _example(row: Row, rng: random.Random) -> bytes:
    """A serialized tf.Example; a feature without values may be left out, be empty or have no kind."""
    message = Example()
    feature = message.features.feature
    for name in ("history", "candidates", "exclude"):
        if getattr(row, name) or rng.random() < 0.5:
            feature[name].bytes_list.value.extend(getattr(row, name))
        elif rng.random() < 0.3:
            feature[name].SetInParent()
    if row.include_history or rng.random() < 0.3:
        feature["include_history"].int64_list.value.append(int(row.include_history))
    if rng.random() < 0.1:
        feature["of another model"].float_list.value.extend([1.5, float("nan")])
    return message.SerializeToString()


def _item_in(rows: list[bytes], rng: random.Random) -> dict[str, Any]:
    return {"item": Strings([len(rows)], rows)}


def _explained_in(rows: list[tuple[list[bytes], bytes]], rng: random.Random) -> dict[str, Any]:
    # The contributions have the places of the history: they are laid out by `_laid_out` in the same way.
    width = max([len(history) for history, _ in rows] + [1])
    values = [item for history, _ in rows for item in [*history, *[b""] * (width - len(history))]]
    return {"history": Strings([len(rows), width], values), "item": Strings([len(rows)], [item for _, item in rows])}


MAKE: dict[str, Callable] = {
    "serving_default": _histories,
    "recommend": _histories,
    "recommend_examples": _filtered,
    "recommend_filtered": _filtered,
    "embed": _histories,
    "similar_items": _items,
    "explain": _explained,
}
INPUTS: dict[str, Callable] = {
    "serving_default": _history_in,
    "recommend": _history_in,
    "recommend_examples": _examples_in,
    "recommend_filtered": _filtered_in,
    "embed": _history_in,
    "similar_items": _item_in,
    "explain": _explained_in,
}
SIGNATURES = tuple(MAKE)


def _wrong(catalogue: Catalogue, signature: str, rng: random.Random) -> Request:
    """A request that no client should send."""
    batch = rng.randint(1, 4)
    rows = MAKE[signature](catalogue, batch, rng)
    inputs = INPUTS[signature](rows, rng)
    if signature == "recommend_examples" and rng.random() < 0.8:
        return _malformed(inputs["examples"].values, rng)
    name = rng.choice(list(inputs))
    value, kind = inputs[name], rng.choice(("type", "rank", "rank", "missing", "batch", "batch"))
    if kind == "batch" and len(inputs) == 1:
        kind = "rank"
    if kind == "missing":
        del inputs[name]
    elif kind == "type":
        other = rng.choice(("float32", "int64", "bool", "string"))
        if other == "string" and isinstance(value, Strings):
            other = "int32"
        if other == "bool" and not isinstance(value, Strings):
            other = "float32"
        size = int(np.prod(value.shape))
        content = Strings(value.shape, [b"1"] * size) if other == "string" else np.ones(value.shape, other)
        inputs[name] = content
    elif kind == "rank":
        shape = list(value.shape)
        shape = rng.choice(([*shape, 1], [1, *shape], [int(np.prod(shape))] if len(shape) > 1 else [1, 1, *shape]))
        if rng.random() < 0.1:
            shape = []
        inputs[name] = _reshaped(value, shape)
    else:
        rest = list(value.shape[1:])
        count = rng.choice([n for n in (0, 1, batch + 1, batch - 1, 2 * batch) if n != batch])
        inputs[name] = _reshaped(value, [count, *rest])
    return Request(signature, kind, inputs, None)


def _reshaped(value: Strings | np.ndarray, shape: list[int]) -> Strings | np.ndarray:
    """Another shape, with values repeated or left out."""
    size = int(np.prod(shape))
    if not isinstance(value, Strings):
        return np.resize(value, shape)
    values = list(value.values) or [b""]
    return Strings(shape, (values * (size // len(values) + 1))[:size])


def _malformed(examples: Sequence[bytes], rng: random.Random) -> Request:
    """Examples of which one is no tf.Example, or has features of other types. What protobuf can read has rows.

    TensorFlow's parser is not protobuf's: of what no client would make it reads some that protobuf refuses, such as a
    name that is no UTF-8, and the other way round.
    """
    changed = list(examples)
    at = rng.randrange(len(changed))
    kind, good = rng.choice(("garbage", "truncated", "flipped", "types", "values", "twice")), changed[at]
    if kind == "garbage":
        changed[at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 10, 100))))
    elif kind == "truncated":
        changed[at] = good[: rng.randrange(len(good) + 1)]
    elif kind == "flipped" and good:
        place = rng.randrange(min(len(good), 200))
        changed[at] = good[:place] + bytes([good[place] ^ (1 << rng.randrange(8))]) + good[place + 1 :]
    elif kind == "twice":
        changed[at] = good * 2
    else:
        message = Example.FromString(good)
        feature = message.features.feature
        name = rng.choice(("history", "candidates", "exclude", "include_history"))
        feature[name].Clear()
        if kind == "values":
            feature["include_history"].int64_list.value[:] = rng.choice(([1, 0], [1, 1, 1], [7], [-1]))
        elif name == "include_history":
            rng.choice(
                (feature[name].bytes_list.value.append, lambda v: feature[name].float_list.value.append(len(v)))
            )(b"1")
        else:
            rng.choice((feature[name].int64_list, feature[name].float_list)).value.append(1)
        changed[at] = message.SerializeToString()
    rows = [_read(example) for example in changed]
    inputs = {"examples": Strings([len(changed)], changed)}
    either = kind in ("garbage", "flipped")
    return Request("recommend_examples", kind, inputs, None if None in rows else rows, either)


def _read(example: bytes) -> Row | None:
    """What protobuf reads in an example; None: it is malformed, or a feature has not the type of the signature."""
    try:
        feature = Example.FromString(example).features.feature
    except DecodeError:
        return None
    found: list[Any] = []
    for name in ("history", "candidates", "exclude"):
        kind = feature[name].ByteSize() and _kind(feature[name])
        if kind and kind != "bytes_list":
            return None
        found.append(list(feature[name].bytes_list.value))
    include = feature["include_history"]
    if _kind(include) not in ("", "int64_list") or (_kind(include) and len(include.int64_list.value) != 1):
        return None
    return Row(*found, include_history=any(include.int64_list.value))


def _kind(feature: Any) -> str:
    return next((name for name in ("bytes_list", "float_list", "int64_list") if feature.HasField(name)), "")


# ------------------------------------------------------------------------------------------------------ answers


def faults(asked: Request, answer: Answer, catalogue: Catalogue, session: Session, rng: random.Random) -> str:
    """What is wrong with an answer, or ""."""
    if answer.code:
        is_right = (asked.rows is None or asked.either) and answer.code in REFUSED
        return "" if is_right else f"{asked.kind}: error {answer.code}: {answer.message[:300]}"
    if asked.rows is None and not asked.either:
        return f"{asked.kind}: answered"
    try:
        if asked.rows is None:
            _hold_lists(answer.outputs, asked.inputs["examples"].shape[0], catalogue)
            return ""
        HOLD[asked.signature](asked, answer.outputs, catalogue)
        if asked.rows and rng.random() < COMPARED:
            _compare(asked, answer.outputs, catalogue, session, rng)
    except AssertionError as error:
        return f"{asked.kind}: {error}"
    return ""


def _finite(value: np.ndarray, shape: tuple[int, ...]) -> None:
    assert value.dtype == np.float32, value.dtype
    assert value.shape == shape, f"shape {value.shape}, not {shape}"
    assert np.isfinite(value).all(), "not finite"


def _hold_scores(asked: Request, outputs: dict[str, Any], catalogue: Catalogue) -> None:
    _finite(outputs["scores"], (len(asked.rows), len(catalogue)))
    sums = np.exp(outputs["scores"].astype(float)).sum(axis=1)
    assert (abs(sums - 1) < 1e-3).all(), f"probabilities add up to {sums}"


def _hold_embedding(asked: Request, outputs: dict[str, Any], catalogue: Catalogue) -> None:
    value = outputs["embedding"]
    _finite(value, (len(asked.rows), *value.shape[1:]))
    assert value.ndim == 2


def _hold_recommended(asked: Request, outputs: dict[str, Any], catalogue: Catalogue) -> None:
    rows = asked.rows
    never = catalogue.mask([[*row.exclude, *(() if row.include_history else row.history)] for row in rows])
    listed, any_listed = catalogue.mask([row.candidates for row in rows]), [any(row.candidates) for row in rows]
    allowed = (listed | ~np.array(any_listed, bool)[:, None]) & ~never
    _hold_ranked(outputs, allowed, catalogue)
    if "unknown_ids" in outputs:
        known = catalogue.column_of
        unknown = [len({item for item in row.history if item not in known}) for row in rows]
        assert outputs["unknown_ids"].dtype == np.int32
        assert outputs["unknown_ids"].tolist() == unknown, f"unknown_ids {outputs['unknown_ids']}, not {unknown}"


def _hold_similar(asked: Request, outputs: dict[str, Any], catalogue: Catalogue) -> None:
    own = catalogue.mask([[item] for item in asked.rows])
    _hold_ranked(outputs, ~own & own.any(axis=1, keepdims=True), catalogue)


def _hold_ranked(outputs: dict[str, Any], allowed: np.ndarray, catalogue: Catalogue) -> None:
    """The lists hold the items that are allowed, bool [rows, items], and no others."""
    columns = _hold_lists(outputs, len(allowed), catalogue)
    counts = np.minimum(allowed.sum(axis=1), catalogue.top_k)
    assert ((columns >= 0).sum(axis=1) == counts).all(), f"not {counts} items"
    rows, places = np.nonzero(columns >= 0)
    assert allowed[rows, columns[rows, places]].all(), "a seen, excluded or other item that is not allowed"


def _hold_lists(outputs: dict[str, Any], batch: int, catalogue: Catalogue) -> np.ndarray:
    """The lists hold items of the catalogue, each once, best first, then padding. Returns their columns, or −1."""
    shape = (batch, catalogue.top_k)
    scores, columns = outputs["scores"], catalogue.columns(outputs["item_ids"])
    _finite(scores, shape)
    assert columns.shape == shape, f"item_ids have shape {columns.shape}, not {shape}"
    assert (columns >= -1).all(), "an item that the catalogue lacks"
    assert ((scores > LOWEST) == (columns >= 0)).all(), "padding with a score, or an item without one"
    assert (np.diff(scores, axis=1) <= 0).all(), "not in order"
    rows, places = np.nonzero(columns >= 0)
    cells = rows * len(catalogue) + columns[rows, places]
    assert len(np.unique(cells)) == len(cells), "an item twice"
    return columns


def _hold_contributions(asked: Request, outputs: dict[str, Any], catalogue: Catalogue) -> None:
    width = max([len(history) for history, _ in asked.rows] + [1])
    value = outputs["contributions"]
    _finite(value, (len(asked.rows), width))
    for (history, item), row in zip(asked.rows, value, strict=True):
        first = {item: place for place, item in reversed(list(enumerate(history)))}
        known = [catalogue.column_of.get(item, -2) >= 0 and first[item] == place for place, item in enumerate(history)]
        may = np.array([*known, *[False] * (width - len(history))]) & (catalogue.column_of.get(item, -2) >= 0)
        assert (row[~may] == 0).all(), "padding, an unknown id or a repeat contributes"


HOLD: dict[str, Callable] = {
    "serving_default": _hold_scores,
    "recommend": _hold_recommended,
    "recommend_examples": _hold_recommended,
    "recommend_filtered": _hold_recommended,
    "embed": _hold_embedding,
    "similar_items": _hold_similar,
    "explain": _hold_contributions,
}


def _compare(asked: Request, outputs: dict[str, Any], catalogue: Catalogue, session: Session, rng: random.Random):
    """One row again, alone, its history as the catalogue orders it and without what changes nothing."""
    at = rng.randrange(len(asked.rows))
    row = asked.rows[at]
    if asked.signature == "similar_items":
        alone = session.run("similar_items", {"item": Strings([1], [row])})
        _equal(outputs["scores"][at], alone.outputs["scores"][0])
    elif asked.signature == "embed":
        alone = session.run("embed", {"history": _plain(row.history, catalogue)})
        _equal(outputs["embedding"][at], alone.outputs["embedding"][0])
    elif asked.signature == "explain":
        _compare_contributions(row, outputs["contributions"][at], catalogue, session, rng)
    else:
        scores = session.run("serving_default", {"history": _plain(row.history, catalogue)}).outputs["scores"][0]
        if asked.signature == "serving_default":
            _equal(outputs["scores"][at], scores)
        else:
            _compare_ranked(row, {name: value for name, value in outputs.items()}, at, scores, catalogue)


def _compare_ranked(row: Row, outputs: dict[str, Any], at: int, scores: np.ndarray, catalogue: Catalogue) -> None:
    wanted, allowed = scores.astype(float), np.ones(len(catalogue), bool)
    if any(row.candidates):
        allowed = catalogue.mask([row.candidates])[0]
        if allowed.any():
            largest = wanted[allowed].max()
            wanted = wanted - largest - np.log(np.exp(wanted[allowed] - largest).sum())
    never = [*row.exclude, *(() if row.include_history else row.history)]
    wanted = np.where(allowed & ~catalogue.mask([never])[0], wanted, -np.inf)
    best = np.sort(wanted)[::-1][: catalogue.top_k]
    ids = outputs["item_ids"].values[at * catalogue.top_k : (at + 1) * catalogue.top_k]
    count = int(np.isfinite(best).sum())
    columns = [catalogue.column_of[item] for item in ids[:count]]
    _equal(outputs["scores"][at][:count], best[:count])
    _equal(outputs["scores"][at][:count], wanted[columns])


def _compare_contributions(
    row: tuple[list[bytes], bytes], values: np.ndarray, catalogue: Catalogue, session: Session, rng: random.Random
) -> None:
    history, item = row
    target = catalogue.column_of.get(item, -2)
    places = [place for place, item in enumerate(history) if catalogue.column_of.get(item, -2) >= 0]
    if target < 0 or not places:
        return
    left_out = history[rng.choice(places)]
    place = history.index(left_out)
    scores = [
        session.run("serving_default", {"history": _plain(ids, catalogue)}).outputs["scores"][0, target]
        for ids in (history, [item for item in history if item != left_out])
    ]
    _equal(values[place], scores[0] - scores[1], size=abs(scores[0]))


def _plain(history: Sequence[bytes], catalogue: Catalogue) -> Strings:
    """The history, without what changes nothing."""
    known = sorted({column for item in history if (column := catalogue.column_of.get(item, -2)) >= 0})
    return Strings([1, len(known)], [catalogue.ids[column] for column in known])


def _equal(found: Any, wanted: Any, size: Any = 0.0) -> None:
    bound = ATOL + RTOL * np.maximum(abs(np.asarray(wanted, float)), size)
    difference = abs(np.asarray(found, float) - wanted)
    assert (difference <= bound).all(), f"differs from the answer to this history alone by {difference.max():.3g}"
