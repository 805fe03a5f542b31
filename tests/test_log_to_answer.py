"""Generated logs of every form give the events and the split of the reference, or one line that names its line."""

import gzip
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reference

from vae_cf_tf.data import tables
from vae_cf_tf.data.formats import read
from vae_cf_tf.data.split import split
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import SplitSettings

USER_NAMES, ITEM_NAMES = ("userId", "user_id", "User", "UID"), ("movieId", "item_id", "Item")
RATING_NAMES = ("rating", "Stars", "user_rating")
ODD_NUMBERS = ("1_000", "1e39", "nan", "", "four", "0x4", "inf", "4 .5", "٤")
FINE_NUMBERS = ("+4", " 4.5", "4.", ".5", "5e0", "40E-1", "1e-50", "0004", "-3", "16777217")


def make_events(rng):
    """[user, item, rating] as text: a few dozen users of very different activity."""
    users, items = rng.randint(8, 40), rng.randint(6, 30)
    kind = rng.choice(("numbers", "zeros", "words", "floats", "some floats"))
    write = {
        "numbers": str,
        "zeros": lambda n: f"{n:03d}",
        "words": lambda n: rng.choice(("u", "ü ", "U-", "日本")) + str(n),
        "floats": lambda n: f"{n}.0",
        "some floats": lambda n: f"{n}.0" if n % 3 else str(n),
    }[kind]
    names = [write(n) for n in rng.sample(range(1, 200), users)]
    titles = [write(n) for n in rng.sample(range(1, 200), items)]
    return [
        [names[int(users * rng.random() ** 2)], titles[int(items * rng.random() ** 2)], f"{rng.randint(2, 10) / 2:g}"]
        for _ in range(rng.randint(60, 300))
    ]


def quoted(text, separator, rng, always=False):
    needs = separator in text or '"' in text or "\n" in text or "\r" in text
    return '"' + text.replace('"', '""') + '"' if needs or always or rng.random() < 0.1 else text


def make_text(path, rng):
    """Writes a log with a header, sound or with one fault, plain or gzipped."""
    events = make_events(rng)
    separator = rng.choice(("\t", ",", ",", ";", "|", "::"))
    end = rng.choice(("\n", "\n", "\r\n", "\r"))
    names = [rng.choice(USER_NAMES), rng.choice(ITEM_NAMES)] + (
        [rng.choice(RATING_NAMES)] if rng.random() < 0.7 else []
    )
    extra = rng.sample(("timestamp", "text", "a|b|c|d|e", "price;", "note"), rng.randint(0, 3))
    columns = [name for name in names + extra if separator not in name]
    rng.shuffle(columns)
    fault = rng.choice(("",) * 7 + ("id", "header", "columns", "number", "quote", "two quotes", "utf-8", "empty"))
    is_calm = "quote" in fault or rng.random() < 0.2  # no quotation mark but that of the fault
    if is_calm:
        columns += ["text"] * ("text" not in columns)
        rng.shuffle(columns)
    if rng.random() < 0.04:
        columns.append(rng.choice(names))
    is_quoted = separator in ",;|" or (separator == "\t" and rng.random() < 0.3)
    words = ["fine", "not bad", 'a 12" disk', "", "ça va", "x" * 60]
    if is_calm:
        words = ["fine", "not bad", ""]
    elif is_quoted:
        words += [f"so{separator}so", f"two{end}lines", f"three{end}{end}lines", '"odd" ones']
    else:
        words += ['"odd', '"', '""']

    def row(user, item, rating):
        blank = rng.choice(("", "", "", "", " ", "\t" if separator != "\t" else " "))
        if rng.random() < 0.01:
            rating = rng.choice(FINE_NUMBERS)
        roles = {names[0]: user + blank, names[1]: blank + item} | {name: rating for name in names[2:]}
        return [roles.get(name) or ("" if name in roles else rng.choice(words)) for name in columns]

    def line(fields):
        return separator.join(quoted(f, separator, rng) if is_quoted and not is_calm else f for f in fields)

    always = separator == "\t" and is_quoted
    lines = [separator.join(quoted(n, separator, rng, always) if is_quoted else n for n in columns)]
    lines += [line(row(*event)) for event in events]
    at = rng.choice((len(lines) - 1, rng.randrange(1, len(lines)), rng.randrange(1, len(lines))))
    user, item, rating = events[at - 1]
    if fault == "id":
        lines[at] = line(row(rng.choice(sorted(reference.NO_IDS)), item, rating) if at % 2 else row(user, " ", rating))
    elif fault == "header":
        lines.insert(at, lines[0])
    elif fault == "columns":
        lines[at] += rng.choice((separator + "x", separator))
    elif fault == "number":
        lines[at] = line(row(user, item, rng.choice(ODD_NUMBERS)))
    elif "quote" in fault:
        text = columns.index("text")
        fields = row(user, item, rating)
        lines[at] = separator.join('"' + f if i == text else f for i, f in enumerate(fields))
        if fault == "two quotes":
            far = min(at + rng.randint(0, 9), len(lines) - 1)
            fields = lines[far].split(separator)
            lines[far] = separator.join(f + '"' if i == text else f for i, f in enumerate(fields))
    elif fault == "utf-8":
        lines[at] = line(row(user + "\udcff", item, rating))
    elif fault == "empty":
        lines = lines[:1]
    for _ in range(rng.choice((0, 0, 2))):
        lines.insert(rng.randrange(len(lines) + 1), "")
    text = rng.choice(("", "\ufeff")) + end.join(lines) + rng.choice(("", end, end + end))
    raw = text.encode("utf-8", "surrogateescape")
    packed = rng.random()
    if packed < 0.2:
        raw = gzip.compress(raw)
    elif packed < 0.3:
        raw = gzip.compress(raw[:100]) + gzip.compress(raw[100:])
    path.write_bytes(raw)


def make_headerless(path, rng):
    """Writes a log in MovieLens' layouts."""
    separator = rng.choice(("::", "\t"))
    size = 4 if separator == "\t" else rng.choice((3, 4))
    lines = [separator.join([*event, "97830"][:size]) for event in make_events(rng)]
    at = rng.randrange(1, len(lines))
    fault = rng.choice(("", "", "id", "number", "columns"))
    if fault:
        fields = lines[at].split(separator)
        fields[{"id": 0, "number": 2, "columns": 1}[fault]] = {"id": "NA", "number": "x", "columns": "1" + separator}[
            fault
        ]
        lines[at] = separator.join(fields)
    path.write_text("\n".join(lines) + rng.choice(("", "\n")), encoding="utf-8")


def check(path, expected, place, rng):
    """Reads `path` and compares with the reference's events, or with its refusal."""
    if isinstance(expected, reference.Refused):
        with pytest.raises(UserError) as error:
            read(str(path))
        message = str(error.value)
        assert "\n" not in message
        assert str(path) in message
        assert not expected.line or f", {place} {expected.line}: " in message, (message, expected)
        return
    log = read(str(path))
    ratings = [None] * len(log.users) if log.ratings is None else log.ratings.tolist()
    assert list(zip(log.user_ids[log.users], log.item_ids[log.items], ratings, strict=True)) == expected
    assert log.user_ids.tolist() == list(dict.fromkeys(u for u, _, _ in expected))
    assert log.item_ids.tolist() == list(dict.fromkeys(i for _, i, _ in expected))
    settings = SplitSettings(
        threshold=rng.choice((4.0, 3.5)),
        min_items_per_user=rng.choice((0, 2, 5)),
        min_users_per_item=rng.choice((0, 3)),
        heldout_users=rng.choice((0, 2, 5)),
        fold_in_share=rng.choice((0.8, 0.71, 0.5)),
        split_seed=rng.randrange(5),
        target_draws="reseeded" if rng.random() < 0.5 else "continued",
    )
    wanted = reference.split_of(expected, settings)
    if wanted is None:
        with pytest.raises(UserError, match=r"^[^\n]*$"):
            split(log, settings)
        return
    reference.assert_same_split(split(log, settings), wanted)


def run(make, seeds, place, folder, monkeypatch):
    """Makes a log for each seed, and compares; returns how many were refused."""
    refused = 0
    for seed in seeds:
        rng = random.Random(seed)
        monkeypatch.setattr(tables, "_BLOCK", rng.choice((300, 1500, 1 << 24)))
        monkeypatch.setattr(tables, "_RECORDS", rng.choice((7, 1 << 16)))
        path = folder / str(seed)
        try:
            expected = make(path, rng)
        except reference.Refused as e:
            expected = e
            refused += 1
        try:
            check(path, expected, place, rng)
        except BaseException as e:
            e.add_note(f"seed {seed}: {path}")
            raise
    return refused


def with_header(path, rng):
    make_text(path, rng)
    return reference.read_text(path)


def without_header(path, rng):
    make_headerless(path, rng)
    return reference.read_text(path, header=False)


@pytest.mark.parametrize("block", range(10))
def test_text(block, tmp_path, monkeypatch):
    refused = run(with_header, range(50 * block, 50 * block + 50), "line", tmp_path, monkeypatch)
    assert 5 < refused < 40  # both sides are tried


def test_text_without_a_header(tmp_path, monkeypatch):
    assert 20 < run(without_header, range(80), "line", tmp_path, monkeypatch) < 70


# How a column of ids can be stored, by what `make_events` writes.
WHOLE = (pa.int64(), pa.int32(), pa.uint16(), pa.float64(), pa.float32(), pa.decimal128(9, 0))
WORDS = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int16(), pa.string()))
RATINGS = (
    pa.float64(),
    pa.float32(),
    pa.float16(),
    pa.decimal128(5, 1),
    pa.string(),
    pa.dictionary(pa.int8(), pa.string()),
)


def column(texts, kind, rng):
    if pa.types.is_dictionary(kind):
        array = pa.array(texts, pa.string()).dictionary_encode()
        unused = rng.choice(([], [""], ["not used"]))
        ids = pa.array([*unused, *array.dictionary.to_pylist()], pa.string())
        return pa.DictionaryArray.from_arrays(
            pa.array([None if i is None else i + len(unused) for i in array.indices.to_pylist()], pa.int16()), ids
        )
    if pa.types.is_decimal(kind):
        return pa.array(texts, pa.string()).cast(kind)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pa.array([None if text is None else float(text) for text in texts]).cast(kind)
    return pa.array([None if text is None else text.encode() for text in texts], pa.binary()).cast(kind)


def parquet(path, rng):
    """Writes a Parquet file, sound or with one fault."""
    events = make_events(rng)
    fault = rng.choice(("",) * 4 + ("null", "id", "header", "number", "empty"))
    row = rng.randrange(len(events))
    kinds = [rng.choice(WHOLE + WORDS if all(e[i].isdigit() for e in events) else WORDS) for i in (0, 1)]
    kinds += [rng.choice(RATINGS)] if rng.random() < 0.8 else []
    names = [rng.choice(USER_NAMES), rng.choice(ITEM_NAMES), rng.choice(RATING_NAMES)][: len(kinds)]
    place = rng.randrange(len(kinds))
    if fault == "null":
        events[row][place] = None
    elif fault == "id" and kinds[place % 2] in WORDS:
        events[row][place % 2] = rng.choice(sorted(reference.NO_IDS))
    elif fault == "header" and kinds[0] in WORDS and kinds[1] in WORDS:
        events[row][:2] = names[:2]
    elif fault == "number" and len(kinds) == 3:
        events[row][2] = "nan" if not pa.types.is_decimal(kinds[2]) else None
    elif fault == "empty":
        events = []
    columns = [(name, column([e[i] for e in events], kinds[i], rng)) for i, name in enumerate(names)]
    n = len(events)
    extra = [("meta", pa.array([{"user": "x", "n": 1}] * n, pa.struct([("user", pa.string()), ("n", pa.int8())])))]
    extra += [("tags", pa.array([["a", "b"]] * n, pa.list_(pa.string()))), ("tags", pa.array(range(n), pa.int64()))]
    columns += rng.sample(extra, rng.randint(0, 3))
    rng.shuffle(columns)
    table = pa.Table.from_arrays([array for _, array in columns], [name for name, _ in columns])
    pq.write_table(table, path, row_group_size=rng.choice((7, 100, 1000)))
    if not events:
        raise reference.Refused(0)
    found = []
    for k, event in enumerate(events, 1):
        user, item = (
            text if kind in WORDS or text is None else str(int(text))
            for text, kind in zip(event[:2], kinds[:2], strict=True)
        )
        rating = np.float32(event[2] or "nan") if len(kinds) == 3 else None
        is_none = None in (user, item) or {user.strip(), item.strip()} & reference.NO_IDS
        if is_none or (user, item) == tuple(names[:2]) or (rating is not None and not np.isfinite(rating)):
            raise reference.Refused(k)
        found.append((user.strip(), item.strip(), rating))
    return reference.whole_numbers(found)


def test_parquet(tmp_path, monkeypatch):
    assert 40 < run(parquet, range(200), "row", tmp_path, monkeypatch) < 120


def netflix(path, rng):
    """Writes a file, or a folder of files, of the Netflix Prize; some with one fault."""
    events = [
        [str(rng.randrange(99)), str(rng.randrange(30)), str(rng.randint(1, 5))] for _ in range(rng.randint(80, 300))
    ]
    events.sort(key=lambda event: (len(event[1]), event[1]))
    at = rng.randrange(len(events))
    fault = rng.choice(("", "", "user", "rating", "columns"))
    files, place, refused = [[]], (0, 0), False
    for k, (user, item, rating) in enumerate(events):
        if k == 0 or item != events[k - 1][1]:
            if files[-1] and len(files) < 4 and rng.random() < 0.2:
                files.append([])
            files[-1].append(f"{item}:")
        if k == at and fault:
            refused = True
            user, rating = (
                ("NA", rating) if fault == "user" else (user, "1_0") if fault == "rating" else (user + ",", rating)
            )
            place = len(files), len(files[-1]) + 1
        files[-1].append(f"{user},{rating},2005-09-06")
    path.mkdir()
    for number, lines in enumerate(files, 1):
        (path / f"combined_data_{number}.txt").write_text("\n".join(lines) + rng.choice(("", "\n")))
    if refused:
        raise reference.Refused(place[1])
    return [(user, item, np.float32(rating)) for user, item, rating in events]


def test_netflix(tmp_path, monkeypatch):
    assert 10 < run(netflix, range(40), "line", tmp_path, monkeypatch) < 35
