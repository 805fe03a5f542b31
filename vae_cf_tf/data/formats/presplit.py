"""A folder that is split already, as the published notebook writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from vae_cf_tf.data.formats.base import Format, ReaderOptions
from vae_cf_tf.data.split import HeldOut, Split, ones
from vae_cf_tf.data.tables import Table
from vae_cf_tf.data.text import shown, user_errors
from vae_cf_tf.data.time_split import later_events
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say

ITEM_IDS = "unique_sid.txt"
SPLIT_FILES = ("train.csv", "validation_tr.csv", "validation_te.csv", "test_tr.csv", "test_te.csv", ITEM_IDS)
_PAIRS = SPLIT_FILES[:5]


class PreSplit(Format):
    """A folder of train.csv, validation_tr.csv (fold-in), validation_te.csv (targets), test_tr.csv and test_te.csv,
    each with the columns uid and sid, and unique_sid.txt.

    A sid is the zero-based number of a line of unique_sid.txt: sid 0 is the item whose raw id stands in the first line.
    A uid is any whole number from 0, and belongs to one user over all files: no user is in two parts. A part's rows are
    its users in order of uid. Nothing is filtered, and the raw ids stay as they are.
    """

    accepts = "the files of a split (train.csv, …, unique_sid.txt)"
    has_column_names = False

    def sniff(self, path: Path) -> bool:
        return False  # a folder, never a file

    def files(self, path: Path) -> list[Path]:
        files = [path / name for name in SPLIT_FILES if (path / name).is_file()]
        return files if len(files) > 1 or (path / ITEM_IDS) in files else []

    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Split:
        folder = files[0].parent
        missing = [name for name in SPLIT_FILES if folder / name not in files]
        if missing:
            raise UserError(
                f"{folder} looks like a split, but {', '.join(missing)} is missing; a split is {', '.join(SPLIT_FILES)}"
            )
        say(f"Reading {folder}, which is split already: no rating, filter or split is applied.")
        item_ids = _read_item_ids(folder / ITEM_IDS)
        pairs = {name: _read_pairs(folder / name, len(item_ids)) for name in _PAIRS}
        _check_users(folder, {name: uids for name, (uids, _) in pairs.items()})
        sids = [sids for _, sids in pairs.values()]
        if min(s.min() for s in sids) > 0 and max(s.max() for s in sids) == len(item_ids) - 1:
            say(
                f"Do the sids of {folder} count from 1? None is 0, and the largest is that of the last line of "
                f"{ITEM_IDS}. A sid is the zero-based number of its line: count from 0, or every item has another's id."
            )
        matrices = []
        for names in (_PAIRS[:1], _PAIRS[1:3], _PAIRS[3:]):
            uids, rows = np.unique(np.concatenate([pairs[name][0] for name in names]), return_inverse=True)
            ends = np.cumsum([len(pairs[name][0]) for name in names])[:-1]
            shape = (len(uids), len(item_ids))
            halves = zip(np.split(rows.astype(np.int32), ends), names, strict=True)
            matrices.append([ones(r, pairs[name][1], shape) for r, name in halves])
            if len(names) == 2:
                _check_targets(folder, names, matrices[-1], uids)
        about = {"by": "given"} | later_events(None, None)
        return Split(matrices[0][0], HeldOut(*matrices[1]), HeldOut(*matrices[2]), item_ids, {}, about)


def write_split(split: Split, folder: Path) -> None:
    """Writes the files of a split as `PreSplit` reads them, without titles.

    Args:
      split: every user has an item.
      folder: exists.
    """
    (folder / ITEM_IDS).write_text("".join(f"{item}\n" for item in split.item_ids), encoding="utf-8", newline="\n")
    held_out = ((part.fold_in, part.target) for part in (split.validation, split.test))
    files, first_uid = iter(_PAIRS), 0
    for matrices in ((split.train,), *held_out):
        for matrix in matrices:
            uids = np.repeat(first_uid + np.arange(matrix.shape[0]), np.diff(matrix.indptr))
            pairs = pa.table({"uid": uids, "sid": matrix.indices})
            csv.write_csv(pairs, folder / next(files), csv.WriteOptions(quoting_header="none"))
        first_uid += matrices[0].shape[0]


def _check_users(folder: Path, uids: dict[str, np.ndarray]) -> None:
    """Raises UserError where training, validation and test share a user."""
    parts = (_PAIRS[:1], _PAIRS[1:3], _PAIRS[3:])
    for k, names in enumerate(parts[1:], 1):
        for name in names:
            for other in [other for earlier in parts[:k] for other in earlier]:
                shared = np.intersect1d(uids[name], uids[other])
                if len(shared):
                    raise UserError(
                        f"{folder / name}: {_users(shared)} also in {other}; training, validation and test users must "
                        "be different ones: drop them from one of the files, or number the users over all files"
                    )


def _users(uids: np.ndarray) -> str:
    return f"uid {uids[0]} is" if len(uids) == 1 else f"{len(uids):,} users, uid {uids[0]} among them, are"


def _check_targets(folder: Path, names: Sequence[str], halves: Sequence, uids: np.ndarray) -> None:
    """Raises UserError where a user's fold-in and targets share an item."""
    rows, sids = halves[0].multiply(halves[1]).nonzero()
    if len(rows):
        raise UserError(
            f"{folder / names[1]}: sid {sids[0]} of uid {uids[rows[0]]} stands in {names[0]} too ({len(rows):,} such "
            "pairs); a target must not be an item that the model is shown: drop each pair from one of the two files"
        )


def _read_item_ids(path: Path) -> list[str]:
    with user_errors(path):
        text = path.read_bytes().decode("utf-8-sig")
    ids = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
    if not text.strip():
        raise UserError(f"{path} is empty; it should hold a raw item id a line")
    first: dict[str, int] = {}
    for number, item in enumerate(ids, 1):
        if not item.strip():
            raise UserError(f"{path}, line {number}: the item id is empty; this line should hold sid {number - 1}'s id")
        if first.setdefault(item, number) != number:
            raise UserError(
                f"{path}, line {number}: {shown(item)} stands in line {first[item]} already; ids are unique"
            )
    return ids


@dataclass(frozen=True)
class _Checks:
    """The checks of a file of pairs whose columns are these, by index."""

    uid: int
    sid: int
    items: int

    def fault(self, fields: list[str]) -> str | None:
        for name, text in (("uid", fields[self.uid]), ("sid", fields[self.sid])):
            # ASCII digits, fewer than 64 bits can hold
            if not (text.strip(" \t").isdecimal() and text.isascii()) or len(text.strip()) > 18:
                return f"the {name} is {shown(text)}, not a whole number from 0"
        if int(fields[self.sid]) >= self.items:
            lines = f"whose {self.items:,} lines are sid 0 to {self.items - 1:,}"
            return f"sid {fields[self.sid].strip()} has no line in {ITEM_IDS}, {lines}"
        return None

    def is_record(self, fields: list[str]) -> bool:
        return self.fault(fields) is None


def _read_pairs(path: Path, items: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns uid (int64) and sid (int32) of one file of a split."""
    table = max((Table.open(path, separator) for separator in (",", "\t", ";")), key=lambda table: len(table.first))
    names = [name.strip().lower() for name in table.first]
    if "uid" not in names or "sid" not in names:
        raise UserError(f"{path} should have the columns uid and sid. Found: {shown(','.join(table.first))}")
    uid, sid = names.index("uid"), names.index("sid")

    def build(blocks) -> tuple[np.ndarray, np.ndarray]:
        uids, sids = [], []
        for block in blocks:
            us, ss = (column.to_numpy() for column in block)
            if len(us) and (us.min() < 0 or ss.min() < 0 or ss.max() >= items):
                raise ValueError("a number is out of range")
            uids.append(us)
            sids.append(ss.astype(np.int32))
        if not uids:
            raise ValueError("no rows")
        return np.concatenate(uids), np.concatenate(sids)

    return table.read({uid: pa.int64(), sid: pa.int64()}, _Checks(uid, sid, items), build)
