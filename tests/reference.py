"""A slow, strict reader of text logs and a splitter in plain Python: what the fast ones are held against."""

import csv
import gzip
import io
import re
from fractions import Fraction

import numpy as np

NO_IDS = {"", "nan", "NaN", "NULL", "null", "None", "NA", "N/A", "<NA>"}
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
USERS, ITEMS, RATINGS = {"userid", "user", "uid"}, {"itemid", "item", "movieid"}, {"rating", "stars", "userrating"}


class Refused(Exception):
    """The log is refused because of this line (from 1), or row of Parquet; 0: because of the whole file."""

    def __init__(self, line):
        super().__init__(f"line {line}")
        self.line = line


def read_text(path, header=True):
    """The events of a text log: [(user, item, rating or None)]. Raises Refused."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    text = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text)
    first = next((i for i, line in enumerate(lines) if line.strip("\r\n")), None)
    if first is None:
        raise Refused(0)
    line = lines[first].strip("\r\n")
    if not header:
        separator = "::" if "::" in line else "\t"
        return _events(_unquoted(lines[first:], separator, first + 1), len(line.split(separator)), (0, 1, 2), ())
    for separator in ("\t", ",", ";", "|", "::"):
        quoted = len(separator) == 1 and (separator != "\t" or '"' in line)
        names = next(csv.reader([line], delimiter=separator)) if quoted else line.split(separator)
        plain = [re.sub("[^a-z]", "", name.lower()) for name in names]
        places = [[i for i, name in enumerate(plain) if name in usual] for usual in (USERS, ITEMS, RATINGS)]
        if places[0] and places[1]:
            break
    else:
        raise Refused(0)
    if any(len(place) > 1 for place in places):
        raise Refused(0)
    columns = tuple(place[0] if place else None for place in places)
    rest = (lines[first + 1 :], separator, first + 2)
    records = _quoted(*rest, len(names), columns) if quoted else _unquoted(*rest)
    return _events(records, len(names), columns, (names[columns[0]].strip(), names[columns[1]].strip()))


def _unquoted(lines, separator, number):
    for at, line in enumerate(lines, number):
        if line.strip("\r\n"):
            yield at, line.strip("\r\n").split(separator)


def _quoted(lines, separator, number, size, columns):
    """Records of RFC 4180. Raises Refused where a quotation mark is not closed, or closed far behind."""
    k = 0
    while k < len(lines):
        if not lines[k].strip("\r\n"):
            k += 1
            continue
        count = 1
        while _is_open("".join(lines[k : k + count]), separator):
            if k + count == len(lines):
                raise Refused(number + k)
            count += 1
        text = "".join(lines[k : k + count])
        if count > 1:
            try:
                fields = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
            except csv.Error:
                raise Refused(number + k) from None
            alone = [_alone(line.strip("\r\n"), separator) for line in lines[k : k + count] if line.strip("\r\n")]
            if sum(len(fields) == size and _is_no_text(fields, columns) for fields in alone) > len(alone) / 2:
                raise Refused(number + k)  # these lines are records: one of them has a quotation mark too many
        else:
            fields = next(csv.reader([text.strip("\r\n")], delimiter=separator))
        yield number + k, fields
        k += count


def _alone(line, separator):
    """The fields of a line in which a quotation mark without its partner is a character like others."""
    fields = []
    while True:
        end = 0
        if line.startswith('"'):
            end = line.find('"', 1)
            while end > 0 and line[end + 1 : end + 2] == '"':
                end = line.find('"', end + 2)
        if end > 0 and line[end + 1 : end + 2] in ("", separator):
            field, rest = line[1:end].replace('""', '"'), line[end + 1 :]
        else:
            field, rest = (line.split(separator, 1)[0], line[len(line.split(separator, 1)[0]) :])
        fields.append(field)
        if not rest:
            return fields
        line = rest[1:]


def _is_open(text, separator):
    """Whether a quoted field goes on behind the text; only a field that begins with a quotation mark is quoted."""
    state = "start"
    for character in text:
        if state == "inside":
            if character == '"':
                state = "perhaps closed"
        elif state in ("start", "perhaps closed") and character == '"':
            state = "inside"
        else:
            is_end = character == separator or character in "\r\n"
            state = "start" if is_end else "plain"
    return state == "inside"


def _event(fields, columns, header):
    """The event, or None for one that is refused."""
    user, item = fields[columns[0]].strip(), fields[columns[1]].strip()
    rating = None if columns[2] is None else fields[columns[2]].strip(" \t")
    if {user, item} & NO_IDS or (user, item) == header or re.search("[\r\n\udc80-\udcff]", user + item):
        return None
    if rating is not None:
        if not NUMBER.fullmatch(rating):
            return None
        with np.errstate(over="ignore"):
            rating = np.float32(rating)
        if not np.isfinite(rating):
            return None
    return user, item, rating


def _is_no_text(fields, columns):
    """Whether the fields are an event and hardly a line of a text: no rating is a word, and texts have blanks."""
    ids = fields[columns[0]] + fields[columns[1]]
    return _event(fields, columns, ()) is not None and (columns[2] is not None or not re.search(r"\s", ids))


def _events(records, size, columns, header):
    events = []
    for number, fields in records:
        event = _event(fields, columns, header) if len(fields) == size else None
        if event is None:
            raise Refused(number)
        events.append(event)
    if not events:
        raise Refused(0)
    return whole_numbers(events)


def whole_numbers(events):
    """Where every id of a column is a whole number, 10.0 is 10."""
    for place in (0, 1):
        if all(re.fullmatch(r"-?[0-9]+(\.0)?", event[place]) for event in events):
            events = [tuple(v.removesuffix(".0") if i == place else v for i, v in enumerate(e)) for e in events]
    return events


def split_of(events, options):
    """The notebook's steps: training histories, (fold-in, targets) of validation and of test, and the catalogue.

    Args:
        events: [(user, item, rating or None)].
        options: SplitSettings.

    Returns: sets of item ids by user, in the order of the permutation; None where too few users are left.
    """
    least = np.float32(options.threshold)
    rows = list(dict.fromkeys((user, item) for user, item, rating in events if rating is None or rating >= least))

    def keep(rows, place, least):
        counts = {}
        for row in rows:
            counts[row[place]] = counts.get(row[place], 0) + 1
        return [row for row in rows if counts[row[place]] >= least]

    rows = keep(rows, 1, options.min_users_per_item)
    rows = keep(rows, 0, options.min_items_per_user)
    numeric = all(re.fullmatch("-?[0-9]+", user) for user, _, _ in events)
    order = (lambda user: (int(user), user)) if numeric else str
    users = sorted({user for user, _ in rows}, key=order)
    n, held = len(users), options.heldout_users or min(max(len(users) // 10, 1), 10_000)
    if n <= 2 * held:
        return None
    random = np.random.RandomState(options.split_seed)
    users = [users[k] for k in random.permutation(n)]
    training = set(users[: n - 2 * held])
    train = [row for row in rows if row[0] in training]
    catalogue = list(dict.fromkeys(item for _, item in train))
    in_catalogue = set(catalogue)
    parts = []
    for members in (users[n - 2 * held : n - held], users[n - held :]):
        if options.target_draws == "reseeded":
            random = np.random.RandomState(options.split_seed)
        fold_in, target = {}, {}
        for user in sorted(members, key=order):
            own = [item for u, item in rows if u == user and item in in_catalogue]
            if not own:
                continue
            drawn = []
            if len(own) >= 5:
                count = int((1 - Fraction(str(options.fold_in_share))) * len(own))
                drawn = random.choice(len(own), size=count, replace=False).tolist()
            target[user] = {own[k] for k in drawn}
            fold_in[user] = set(own) - target[user]
        members = [u for u in members if u in fold_in]
        parts.append(([fold_in[u] for u in members], [target[u] for u in members]))
        if not any(target.values()):
            return None
    histories = [{item for u, item in train if u == user} for user in users[: n - 2 * held]]
    return histories, parts[0], parts[1], catalogue


def assert_same_split(data, wanted):
    """Compares a Split with what `split_of` returned."""
    train, validation, test, catalogue = wanted
    assert data.item_ids == catalogue
    assert _sets(data.train, catalogue) == train
    for part, (fold_in, target) in ((data.validation, validation), (data.test, test)):
        assert _sets(part.fold_in, catalogue) == fold_in
        assert _sets(part.target, catalogue) == target


def _sets(matrix, item_ids):
    """Each row as the set of its items' ids."""
    return [{item_ids[c] for c in matrix.indices[a:b]} for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False)]
