"""Reads what `--data` names: interaction logs in the public data sets' own formats, or a folder split already."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.split import SPLIT_FILES, Split, read_split_folder, with_titles
from vae_cf_tf.data.tables import (
    BAD_FILE,
    TEXT,
    Chunks,
    Table,
    line_fault,
    number_fault,
    parse,
    replaced,
    shown,
    unreadable,
    user_errors,
)
from vae_cf_tf.data.titles import read_titles, titles_beside
from vae_cf_tf.errors import UserError

# Column names of the public data sets, in lower case without punctuation; earlier ones are preferred.
_USER_COLUMNS = ("userid", "user", "uid", "customerid", "customer", "reviewerid", "profileid", "memberid", "visitorid")
_ITEM_COLUMNS = (
    *("itemid", "item", "iid", "movieid", "movie", "sid", "songid", "song", "trackid", "track", "artistid", "artist"),
    *("productid", "product", "parentasin", "asin", "bookid", "isbn", "businessid", "articleid", "showid", "animeid"),
)
_RATING_COLUMNS = ("rating", "ratings", "stars", "star", "score", "overall", "bookrating")

_LOG_NAMES = tuple(
    name + ending
    for name in ("ratings", "interactions")
    for ending in (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".dat", ".dat.gz")
) + ("u.data", "u.data.gz")
_ACCEPTED = (
    "ratings or interactions as .csv, .tsv (.gz) or .parquet, ratings.dat, u.data, mv_*.txt, combined_data_*.txt, "
    "train_triplets.txt, or the files of a split (train.csv, …, unique_sid.txt)"
)
_NO_ID = ("", "nan", "NaN")


@dataclass(frozen=True)
class ReaderOptions:
    """How to read a log whose columns have unusual names."""

    user_column: str = ""  # "" finds the usual names
    item_column: str = ""
    rating_column: str = ""
    item_titles: str = ""  # path of a CSV or TSV: ids in its first column, titles in the one named title, or its second


def read(path: str, options: ReaderOptions = ReaderOptions()) -> Interactions | Split:
    """Reads a data set.

    Args:
        path: a file or a folder in one of the forms that the README lists under `--data`.

    Returns: a Split where `path` is a folder that is split already, otherwise Interactions.
    Raises: UserError, one line that names the file, and the line where one is wrong.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"there is no file or folder {path}; check --data")
    titles = read_titles(Path(options.item_titles).expanduser()) if options.item_titles else {}
    if place.is_dir():
        data = _read_folder(place, options)
    else:
        data = dataclasses.replace(_read_file(place, options), titles=titles or titles_beside(place.parent))
    if not titles:
        return data
    return with_titles(data, titles) if isinstance(data, Split) else dataclasses.replace(data, titles=titles)


def _read_folder(folder: Path, options: ReaderOptions, depth: int = 0) -> Interactions | Split:
    with user_errors(folder):
        names = sorted(entry.name for entry in folder.iterdir())
    if "unique_sid.txt" in names or len(set(SPLIT_FILES) & set(names)) > 1:
        return read_split_folder(folder)
    log = next((folder / name for name in _LOG_NAMES if name in names), None)
    triplets = sorted(
        (n for n in names if re.fullmatch(r".*triplets.*\.txt(\.gz)?", n)), key=lambda n: ("train" not in n, n)
    )
    netflix = _netflix_files(folder)
    if log:
        data = _read_file(log, options)
    elif netflix:
        data = _read_netflix(netflix)
    elif triplets:
        data = _read_file(folder / triplets[0], options)
    else:
        inner = [folder / name for name in names if (folder / name).is_dir()]
        # An archive unpacked into a folder of its own holds one folder.
        if len(inner) == 1 and depth < 2:
            return _read_folder(inner[0], options, depth + 1)
        found = ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"
        hint = (
            "; unpack the archive first" if any(n.endswith((".zip", ".tar", ".tgz", ".tar.gz")) for n in names) else ""
        )
        raise UserError(
            f"{folder} is no data set known here{hint}: it holds {found}. It should hold one of: {_ACCEPTED}"
        )
    return dataclasses.replace(data, titles=titles_beside(folder))


def _read_file(path: Path, options: ReaderOptions) -> Interactions:
    with user_errors(path), open(path, "rb") as f:
        magic = f.read(4)
    if magic == b"PAR1":
        return _read_parquet(path, options)
    if path.suffix in (".parquet", ".pq"):
        raise UserError(f"{path} is not a Parquet file; name it .csv or .tsv if it is text")
    if magic[:2] == b"PK":
        raise UserError(f"{path} is a zip archive; unpack it and give the folder")
    table = Table.open(path)
    if re.fullmatch(r"\d+:", table.first[0].strip()) and len(table.first) == 1:
        return _read_netflix([path])
    return _read_table(table, options)


# --- one file of rows and columns


@dataclass(frozen=True)
class _Columns:
    """Which columns, by index, are what."""

    user: int
    item: int
    rating: int | None

    def fault(self, fields: list[str]) -> str | None:
        for what, index in (("user", self.user), ("item", self.item)):
            if fields[index].strip() in _NO_ID:
                return f"the {what} id is {shown(fields[index])}"
        return number_fault(fields[self.rating], "rating") if self.rating is not None else None


def _read_table(table: Table, options: ReaderOptions) -> Interactions:
    columns = _columns_without_header(table) if not _is_named(options) else None
    header = columns is None
    columns = columns or _columns_of(table.path, table.first, options)
    types = {columns.user: TEXT, columns.item: TEXT}
    if columns.rating is not None:
        types[columns.rating] = pa.float32()
    log = _Log()
    try:
        for batch in table.batches(types, header):
            log.add(*batch.columns)
        return log.interactions()
    except BAD_FILE as e:
        raise table.fault(columns.fault, header, cause=e) from e


def _is_named(options: ReaderOptions) -> bool:
    return bool(options.user_column or options.item_column or options.rating_column)


def _columns_without_header(table: Table) -> _Columns | None:
    """The columns of the known layouts that have no header, None for anything else."""
    first = table.first
    if len(first) in (3, 4) and _is_number(first[2]):
        if table.separator == "::" or (table.separator == "\t" and len(first) == 4 and _is_number(first[3])):
            return _Columns(0, 1, 2)  # MovieLens: user, item, rating, time
        song = re.fullmatch(r"SO[0-9A-Z]{16}", first[1]) or "triplets" in table.path.name
        if table.separator == "\t" and len(first) == 3 and song:
            return _Columns(0, 1, None)  # Million Song: user, song, play count, which is no rating
    return None


def _columns_of(path: Path, names: list[str], options: ReaderOptions) -> _Columns:
    found = f"Found: {', '.join(shown(n)[1:-1] for n in names[:20])}"
    if len(names) < 2:
        raise UserError(f"{path} has a single column; give CSV, TSV or `::` with a user and an item column. {found}")

    def index_of(flag: str, name: str, usual: tuple[str, ...]) -> int | None:
        if name:
            for candidates in (names, [n.strip().lower() for n in names]):
                for wanted in (name, name.lower()):
                    if wanted in candidates:
                        return candidates.index(wanted)
            raise UserError(f"{path} has no column named by --{flag}={name}. {found}")
        # "user_id:token" is RecBole's way to write a type.
        plain = [re.sub(r"[^a-z]", "", n.lower().partition(":")[0]) for n in names]
        return next((plain.index(u) for u in usual if u in plain), None)

    user = index_of("user_column", options.user_column, _USER_COLUMNS)
    item = index_of("item_column", options.item_column, _ITEM_COLUMNS)
    rating = index_of("rating_column", options.rating_column, _RATING_COLUMNS)
    if user is None or item is None:
        if user is None and item is None and any(_is_number(n) for n in names):
            wrong = "seems to have no header line; put one first, such as userId,itemId,rating, and"
        else:
            missing = " and ".join(w for w, i in (("user", user), ("item", item)) if i is None)
            wrong = f"has no {missing} column of a usual name;"
        raise UserError(f"{path} {wrong} name its columns with --user_column, --item_column, --rating_column. {found}")
    if len({user, item, rating}) < 3:
        raise UserError(f"{path}: user, item and rating must be three columns, not the same one twice. {found}")
    return _Columns(user, item, rating)


def _is_number(text: str) -> bool:
    return number_fault(text, "") is None


def _read_parquet(path: Path, options: ReaderOptions) -> Interactions:
    with user_errors(path):
        names = pa.parquet.read_schema(path).names
    columns = _columns_of(path, names, options)
    wanted = [names[i] for i in (columns.user, columns.item, columns.rating) if i is not None]
    log, rows = _Log(), 0
    with user_errors(path), pa.parquet.ParquetFile(path, read_dictionary=wanted[:2]) as file:
        for batch in file.iter_batches(batch_size=1 << 20, columns=wanted):
            arrays = [_as_text(path, batch.column(name), name) for name in wanted[:2]]
            if len(wanted) == 3:
                arrays.append(_as_rating(path, batch.column(wanted[2]), wanted[2]))
            for array, name in zip(arrays, wanted, strict=True):
                if array.null_count:
                    row = rows + int(np.flatnonzero(array.is_null())[0]) + 1
                    raise UserError(f"{path}, row {row}: the {name} is empty or not a number; correct or drop the row")
            log.add(*arrays)
            rows += len(batch)
        if not rows:
            raise UserError(f"{path} holds no rows; give a file with interactions")
        return log.interactions()


def _as_text(path: Path, array: pa.Array, name: str) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    kind = array.type.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{path}: column {name} is of type {kind}; ids are text or integers")
    indices, ids = array.indices.cast(pa.int32()), array.dictionary.cast(pa.string())
    is_none = pc.is_in(pc.utf8_trim_whitespace(ids), pa.array(_NO_ID))
    if pc.any(is_none).as_py():
        indices = pc.if_else(is_none.take(indices), None, indices)
    return pa.DictionaryArray.from_arrays(indices, ids)


def _as_rating(path: Path, array: pa.Array, name: str) -> pa.Array:
    try:
        array = array.cast(pa.float32(), safe=False)
    except pa.ArrowException as e:
        raise UserError(f"{path}: column {name} is of type {array.type}; ratings are numbers") from e
    return pc.if_else(pc.is_finite(array), array, None)


# --- the Netflix Prize


def _netflix_files(folder: Path) -> list[Path]:
    for pattern in ("mv_*.txt", "training_set/mv_*.txt", "combined_data_*.txt"):
        if files := sorted(folder.glob(pattern)):
            return files
    return []


def _read_netflix(files: list[Path]) -> Interactions:
    """Reads files in which a line `item:` stands before that item's lines `user,rating,date`."""
    for path in files:
        with user_errors(path), open(path, "rb") as f:
            if not re.match(rb"\d+:\s", f.read(32)):
                raise UserError(f"{path} does not start with a movie's line such as 1:; is it a Netflix Prize file?")

    def chunks() -> Iterator[bytes]:
        for path in files:
            with open(path, "rb") as f:
                while chunk := f.read(1 << 20):
                    yield chunk
            yield b"\n"

    log = _Log()
    item = None
    try:
        # With `1:` made `1:,,` every line has three columns.
        source = Chunks(replaced(chunks(), b":", b":,,"))
        for users, ratings in (b.columns for b in parse(source, ",", 3, {0: TEXT, 1: pa.float32()}, quoted=False)):
            codes = users.indices.to_numpy()
            is_item = pc.ends_with(users.dictionary, ":").to_numpy(zero_copy_only=False)
            starts = is_item[codes]
            ids = [name[:-1] for name in users.filter(pa.array(starts)).to_pylist()]
            ids.insert(0, ids[0] if item is None else item)  # the item that the block before left open
            item = ids[-1]
            encoded = pa.array(ids, pa.string()).dictionary_encode()
            rows = np.flatnonzero(~starts)
            if len(rows) == 0:
                continue
            users = pa.DictionaryArray.from_arrays(
                (np.cumsum(~is_item, dtype=np.int32) - 1)[codes[rows]], users.dictionary.filter(pa.array(~is_item))
            )
            items = encoded.indices.take(pa.array(np.cumsum(starts)[rows]))
            log.add(users, pa.DictionaryArray.from_arrays(items, encoded.dictionary), ratings.take(pa.array(rows)))
        return log.interactions()
    except BAD_FILE as e:
        raise next(filter(None, (line_fault(p, _netflix_fault) for p in files)), unreadable(files[0], e)) from e


def _netflix_fault(line: str) -> str | None:
    if re.fullmatch(r"\d+:\s*", line):
        return None
    fields = line.split(",")
    if ":" in line:
        return "it is neither an item's line such as 1: nor user,rating,date"
    if len(fields) != 3:
        return f"{len(fields)} columns where user,rating,date are expected"
    return _Columns(0, 0, 1).fault(fields)


# --- from blocks to one log


class _Log:
    """Gathers blocks of events, whose ids are coded block by block, into one log."""

    def __init__(self) -> None:
        self._users: list[pa.DictionaryArray] = []
        self._items: list[pa.DictionaryArray] = []
        self._ratings: list[np.ndarray] = []

    def add(self, users: pa.DictionaryArray, items: pa.DictionaryArray, ratings: pa.Array | None = None) -> None:
        """Takes a block of events. Raises ValueError for a rating that is missing or not finite."""
        self._users.append(users)
        self._items.append(items)
        if ratings is not None:
            if ratings.null_count or not pc.all(pc.is_finite(ratings), min_count=0).as_py():
                raise ValueError("a rating is missing or not finite")
            self._ratings.append(ratings.to_numpy())

    def interactions(self) -> Interactions:
        """The whole log; empties this one. Raises ValueError where it has no events, or an id that is none."""
        if not sum(map(len, self._users)):
            raise ValueError("no rows")
        ratings = np.concatenate(self._ratings) if self._ratings else None
        self._ratings = []
        users, user_ids = _coded(self._users)
        items, item_ids = _coded(self._items)
        return Interactions(users, items, user_ids, item_ids, ratings)


def _coded(blocks: list[pa.DictionaryArray]) -> tuple[np.ndarray, np.ndarray]:
    """One code per id over all blocks, in order of first appearance: int32 [events] and the ids. Empties `blocks`."""
    column = pa.chunked_array(blocks).unify_dictionaries()
    blocks.clear()
    ids = column.chunk(0).dictionary
    if pc.any(pc.is_in(pc.utf8_trim_whitespace(ids), pa.array(_NO_ID))).as_py():
        raise ValueError("an id is empty or NaN")
    if pc.any(pc.match_substring_regex(ids, r"[\r\n]")).as_py():
        raise ValueError("an id holds a line break")
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    return codes, ids.to_numpy(zero_copy_only=False)
