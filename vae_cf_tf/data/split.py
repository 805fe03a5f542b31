"""Training, validation and test users: the published protocol's split, or one that was made already."""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse

from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.tables import BAD_FILE, Table, shown, user_errors
from vae_cf_tf.data.titles import titles_beside
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside

SPLIT_FILES = ("train.csv", "validation_tr.csv", "validation_te.csv", "test_tr.csv", "test_te.csv", "unique_sid.txt")
SPLIT_FILE = "split.npz"
_MIN_ITEMS_FOR_TARGETS = 5  # held-out users with fewer keep all of them as fold-in


@dataclass(frozen=True)
class HeldOut:
    """Held-out users: what a model sees of them, and what it should find."""

    fold_in: sparse.csr_matrix  # [users, items], float32 ones
    target: sparse.csr_matrix  # likewise; empty rows for users without targets

    def with_targets(self) -> "HeldOut":
        """The users who have targets, in order: those whom metrics judge."""
        some = np.flatnonzero(np.diff(self.target.indptr))
        return HeldOut(self.fold_in[some], self.target[some])


@dataclass(frozen=True)
class SplitOptions:
    """The protocol's settings; the defaults are those for MovieLens, with fewer held-out users."""

    threshold: float = 4.0  # a rating >= threshold counts as 1; without ratings every event does
    min_items_per_user: int = 5
    min_users_per_item: int = 0
    heldout_users: int = 0  # for validation, and as many for test; 0: a tenth of the users, at most 10,000
    fold_in_share: float = 0.8  # of a held-out user's items
    seed: int = 98765
    reseed: bool = True  # the seed anew for each part's targets, as published; False: one generator for everything


@dataclass(frozen=True)
class Split:
    """A data set, ready to train on. The matrices are csr, float32 ones, with sorted int32 indices."""

    train: sparse.csr_matrix  # [users, items]
    validation: HeldOut
    test: HeldOut
    item_ids: list[str]  # the raw id of each column
    titles: dict[str, str]  # item id -> title, {} where unknown

    def name_of(self, column: int) -> str:
        """The item's title, or its id where there is none."""
        return self.titles.get(self.item_ids[column], self.item_ids[column])

    def _matrices(self) -> Iterator[tuple[str, sparse.csr_matrix]]:
        yield "train", self.train
        for part in ("validation", "test"):
            held_out = getattr(self, part)
            yield f"{part}_tr", held_out.fold_in
            yield f"{part}_te", held_out.target

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the split as one file, split.npz, into `folder` (made where it is missing)."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        arrays = {"item_ids": _json_bytes(self.item_ids), "titles": _json_bytes(self.titles)}
        for name, matrix in self._matrices():
            arrays[f"{name}_indptr"] = matrix.indptr.astype(np.int64)
            arrays[f"{name}_indices"] = matrix.indices
        with written_aside(Path(folder) / SPLIT_FILE) as aside, open(aside, "wb") as f:
            np.savez(f, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Split":
        """Reads what `save` wrote. Raises UserError where split.npz is missing or damaged."""
        path = Path(folder) / SPLIT_FILE
        try:
            with user_errors(path), np.load(path) as arrays:
                item_ids, titles = (json.loads(arrays[name].tobytes()) for name in ("item_ids", "titles"))
                matrices = [
                    _csr(arrays[f"{name}_indptr"], arrays[f"{name}_indices"], len(item_ids))
                    for name in ("train", "validation_tr", "validation_te", "test_tr", "test_te")
                ]
        except UserError:
            raise
        except Exception as e:  # zipfile and numpy raise many kinds for a damaged file
            raise UserError(f"{path} is damaged ({type(e).__name__}); delete it and split again") from e
        return cls(matrices[0], HeldOut(*matrices[1:3]), HeldOut(*matrices[3:]), item_ids, titles)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that splits of equal matrices and item ids share; titles do not count."""
        digest = hashlib.sha256(json.dumps(self.item_ids).encode())
        for _, matrix in self._matrices():
            digest.update(np.asarray([*matrix.shape, matrix.nnz], np.int64).tobytes())
            digest.update(matrix.indptr.astype(np.int64).tobytes())
            digest.update(np.ascontiguousarray(matrix.indices, np.int32).data)
        return digest.hexdigest()[:16]


def split(interactions: Interactions, options: SplitOptions = SplitOptions()) -> Split:
    """Splits by users as Liang et al. 2018 do (arXiv 1802.05814, the notebook of dawenl/vae_cf).

    Ratings of `threshold` or more count as 1, repeated events as one. Items with few users are dropped, then users with
    few items. The users, sorted by id (as numbers where all ids are whole numbers), are permuted; the last are for
    test, those before them for validation. The catalogue is the training users' items in order of first appearance.
    int((1 - fold_in_share)·n) of a held-out user's n items, in the log's order, are drawn as targets, users taken by
    sorted id. Rows are in the permutation's order; held-out users with no item of the catalogue are left out.

    Raises: UserError for options that make no sense, and for a log that leaves too few users.
    """
    _check(options)
    log = interactions
    users, items = log.users, log.items
    least = f"rated {options.threshold:g} or higher " if log.ratings is not None else ""
    if log.ratings is not None:
        counted = log.ratings >= np.float32(options.threshold)
        users, items = users[counted], items[counted]
        if not len(users):
            raise UserError(
                f"no rating reaches {options.threshold:g} (the highest is {log.ratings.max():g}); lower --threshold"
            )
    # [users, items] of the whole log, repeated events made one.
    seen = _matrix(users, items, (len(log.user_ids), len(log.item_ids)))
    is_kept = np.bincount(seen.indices, minlength=seen.shape[1]) >= max(options.min_users_per_item, 1)
    seen.data[:] = is_kept[seen.indices]
    seen.eliminate_zeros()
    kept = np.flatnonzero(np.diff(seen.indptr) >= max(options.min_items_per_user, 1))
    held = options.heldout_users or min(max(len(kept) // 10, 1), 10_000)
    if len(kept) <= 2 * held:
        raise UserError(
            f"{len(kept):,} users are left with at least {options.min_items_per_user} items {least}each, too few for "
            f"2 × {held:,} held-out users and some to train on; lower --heldout_users, --min_items_per_user, "
            "--min_users_per_item or --threshold"
        )

    kept = _sorted_by_id(kept, log.user_ids)
    random = np.random.RandomState(options.seed)
    permuted = kept[random.permutation(len(kept))]
    parts = np.split(permuted, [len(kept) - 2 * held, len(kept) - held])

    is_training = np.zeros(len(log.user_ids), bool)
    is_training[parts[0]] = True
    catalogue = pd.unique(items[is_training[users] & is_kept[items]])
    column = np.full(len(log.item_ids), -1, np.int32)
    column[catalogue] = np.arange(len(catalogue), dtype=np.int32)
    rows = seen[parts[0]]
    train = _csr(rows.indptr, column[rows.indices], len(catalogue))
    del seen, rows

    rank = np.full(len(log.user_ids), -1, np.int32)  # of users by id
    rank[kept] = np.arange(len(kept), dtype=np.int32)
    held_out = []
    for part in parts[1:]:
        if options.reseed:
            random = np.random.RandomState(options.seed)
        held_out.append(_held_out(users, column[items], part, rank, len(catalogue), options.fold_in_share, random))
    if not all(part.target.nnz for part in held_out):
        raise UserError(
            f"no held-out user of a part has enough items of the catalogue for a target; raise --min_items_per_user "
            f"(received {options.min_items_per_user}) or lower --fold_in_share (received {options.fold_in_share:g})"
        )
    item_ids = log.item_ids[catalogue].tolist()
    return Split(train, held_out[0], held_out[1], item_ids, _titles_of(item_ids, log.titles))


def _held_out(
    users: np.ndarray,
    columns: np.ndarray,
    part: np.ndarray,
    rank: np.ndarray,
    items: int,
    fold_in_share: float,
    random: np.random.RandomState,
) -> HeldOut:
    """Draws the targets of the users `part` from the log's `users` and `columns` (-1: not in the catalogue)."""
    row = np.full(len(rank), -1, np.int32)
    row[part] = np.arange(len(part), dtype=np.int32)
    chosen = np.flatnonzero((row[users] >= 0) & (columns >= 0))
    chosen = chosen[~pd.Series(users[chosen].astype(np.int64) * items + columns[chosen]).duplicated().to_numpy()]
    chosen = chosen[np.argsort(rank[users[chosen]], kind="stable")]  # user by user, each in the log's order
    users, columns = users[chosen], columns[chosen]
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(users) else np.zeros(0, int)
    share = round(1 - fold_in_share, 12)  # 1 - .8 is a little less than .2
    is_target = np.zeros(len(users), bool)
    for start, size in zip(starts.tolist(), np.diff(np.r_[starts, len(users)]).tolist(), strict=True):
        if size >= _MIN_ITEMS_FOR_TARGETS:
            is_target[start + random.choice(size, int(share * size), replace=False)] = True
    rows, row_count = _compact(row[users])
    fold_in, target = (_matrix(rows[m], columns[m], (row_count, items)) for m in (~is_target, is_target))
    return HeldOut(fold_in, target)


def read_split_folder(folder: str | os.PathLike) -> Split:
    """Reads a split as the published notebook writes it.

    The folder holds train.csv, validation_tr.csv (fold-in), validation_te.csv (targets), test_tr.csv and test_te.csv,
    each with the columns uid and sid (whole numbers from 0), and unique_sid.txt, whose line number sid is an item's raw
    id. A part's rows are its users in order of uid. Nothing is filtered. Titles come from the data set's own file
    (movies.csv and the like) where it lies in the folder.

    Raises: UserError for a missing file, for a number that is none, and for a sid without a line in unique_sid.txt.
    """
    folder = Path(folder)
    missing = [name for name in SPLIT_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} looks like a split, but {', '.join(missing)} is missing; a split is {SPLIT_FILES}")
    item_ids = _read_item_ids(folder / "unique_sid.txt")
    uids, sids = _read_pairs(folder / "train.csv", len(item_ids))
    rows, row_count = _compact(uids)
    train = _matrix(rows, sids, (row_count, len(item_ids)))
    held_out = []
    for part in ("validation", "test"):
        pairs = [_read_pairs(folder / f"{part}_{half}.csv", len(item_ids)) for half in ("tr", "te")]
        rows, row_count = _compact(np.concatenate([uids for uids, _ in pairs]))
        halves = np.split(rows, [len(pairs[0][0])])
        shape = (row_count, len(item_ids))
        held_out.append(HeldOut(*(_matrix(r, sids, shape) for r, (_, sids) in zip(halves, pairs, strict=True))))
    return Split(train, held_out[0], held_out[1], item_ids, _titles_of(item_ids, titles_beside(folder)))


def with_titles(data: Split, titles: dict[str, str]) -> Split:
    """The split with these titles, of its own items alone."""
    return replace(data, titles=_titles_of(data.item_ids, titles))


def _read_item_ids(path: Path) -> list[str]:
    with user_errors(path):
        text = path.read_bytes().decode("utf-8-sig")
    ids = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
    if not text.strip():
        raise UserError(f"{path} is empty; it should hold a raw item id a line")
    first: dict[str, int] = {}
    for number, item in enumerate(ids, 1):
        if not item.strip():
            raise UserError(
                f"{path}, line {number}: the item id is empty; line number sid + 1 should hold sid's raw id"
            )
        if first.setdefault(item, number) != number:
            raise UserError(
                f"{path}, line {number}: {shown(item)} stands in line {first[item]} already; ids are unique"
            )
    return ids


def _read_pairs(path: Path, items: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns uid (int64) and sid (int32) of one file of a split."""
    table = Table.open(path)
    names = [name.strip().lower() for name in table.first]
    if "uid" not in names or "sid" not in names:
        raise UserError(f"{path} should have the columns uid and sid. Found: {shown(','.join(table.first))}")
    uid, sid = names.index("uid"), names.index("sid")

    def check(fields: list[str]) -> str | None:
        for name, text in (("uid", fields[uid]), ("sid", fields[sid])):
            if not text.strip().isdecimal() or len(text.strip()) > 18:
                return f"the {name} is {shown(text)}, not a whole number from 0"
        if int(fields[sid]) >= items:
            return f"sid {fields[sid].strip()} has no line in unique_sid.txt, which has {items}"
        return None

    uids, sids = [], []
    try:
        for batch in table.batches({uid: pa.int64(), sid: pa.int64()}):
            block = [column.to_numpy() for column in batch.columns]
            if len(batch) and (block[0].min() < 0 or block[1].min() < 0 or block[1].max() >= items):
                raise ValueError("a number is out of range")
            uids.append(block[0])
            sids.append(block[1].astype(np.int32))
        return np.concatenate(uids), np.concatenate(sids)
    except BAD_FILE as e:
        raise table.fault(check, cause=e) from e


def _compact(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Renumbers labels 0, 1, … in ascending order of those present: int32, and how many there are."""
    distinct, codes = np.unique(labels, return_inverse=True)
    return codes.astype(np.int32), len(distinct)


def _matrix(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Ones at these places, however often they are named."""
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _csr(indptr: np.ndarray, indices: np.ndarray, columns: int) -> sparse.csr_matrix:
    """The matrix of ones with these index arrays, its indices sorted within a row."""
    wide = np.int32 if len(indices) < 2**31 else np.int64
    parts = (np.ones(len(indices), np.float32), indices.astype(wide, copy=False), indptr.astype(wide, copy=False))
    matrix = sparse.csr_matrix(parts, (len(indptr) - 1, columns))
    matrix.sort_indices()
    return matrix


def _sorted_by_id(users: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The users' codes in the order of their ids: of numbers where all ids of the log are such, else of text."""
    texts = ids.tolist()
    if all(len(text) < 100 and text.removeprefix("-").isdecimal() for text in texts):
        return np.array(sorted(users.tolist(), key=lambda user: (int(texts[user]), texts[user])))
    return np.array(sorted(users.tolist(), key=texts.__getitem__))


def _titles_of(item_ids: list[str], titles: dict[str, str]) -> dict[str, str]:
    return {item: titles[item] for item in item_ids if item in titles} if titles else {}


def _json_bytes(value: object) -> np.ndarray:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), np.uint8)


def _check(options: SplitOptions) -> None:
    """Raises UserError for options that make no sense."""
    if not math.isfinite(options.threshold):
        raise UserError(f"--threshold should be a finite number. Received: {options.threshold}")
    for name in ("min_items_per_user", "min_users_per_item", "heldout_users"):
        if getattr(options, name) < 0:
            raise UserError(f"--{name} should be 0 or more. Received: {getattr(options, name)}")
    if not 0 < options.fold_in_share < 1:
        raise UserError(f"--fold_in_share should lie between 0 and 1, both excluded. Received: {options.fold_in_share}")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--split_seed should lie between 0 and 2**32 - 1. Received: {options.seed}")
