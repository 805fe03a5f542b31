"""The files of a prepared data set: what `trainers.prepare` writes and training reads.

OUT/manifest.json   protocol, counts, fingerprint, and sizes and checksums of all other files; written last
OUT/items.parquet   id (text), count (training users that have it), title (text or null), in the order of item numbers
OUT/train/          part-00000.parquet, …: user (raw id), items (list of item numbers), weights (list, if there are any)
OUT/validation/     likewise: user, fold_in, target (lists of item numbers)
OUT/test/           likewise

The lists are ascending, the users are in the order of the split. A shard has `shard_users` users, the last one fewer.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from vae_cf_tf.data.split import HeldOut, Split, csr, new_fingerprint
from vae_cf_tf.data.text import user_errors
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import read_json, sha256, write_json

MANIFEST, ITEMS, TRAIN = "manifest.json", "items.parquet", "train"
SCHEMA_VERSION = 3
"""Of the files. Version 1 was a split in CSV files with a manifest; version 2 had no checksums."""
SHARD_USERS = 20_000
FOLDERS = (TRAIN, "validation", "test")
MATRICES = ((TRAIN, "items"), *((part, half) for part in FOLDERS[1:] for half in ("fold_in", "target")))
"""Folder and column of each matrix, in the order in which `Split` names them."""
_LISTS = {"items": pa.int32(), "fold_in": pa.int32(), "target": pa.int32(), "weights": pa.float32()}


class Shard(NamedTuple):
    """A file of users, and how many they are."""

    path: Path
    users: int


class Prepared:
    """A prepared data set on the disk. A file is compared with its checksum when it is first read.

    Args:
      folder: where manifest.json lies.

    Raises:
      UserError: it is no prepared data set, one of another version, or not whole.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder)
        self.manifest = _manifest(self.path / MANIFEST)
        self._whole: set[Path] = set()  # files that have been compared with their checksums

    @cached_property
    def items(self) -> pa.Table:
        """items.parquet. Raises UserError where it is damaged."""
        self._check(self.path / ITEMS)
        with user_errors(self.path / ITEMS):
            return pq.read_table(self.path / ITEMS)

    @property
    def item_ids(self) -> list[str]:
        return self.items["id"].to_pylist()

    @property
    def titles(self) -> dict[str, str]:
        """Item id -> title, of items that have one."""
        pairs = zip(self.item_ids, self.items["title"].to_pylist(), strict=True)
        return {item: title for item, title in pairs if title is not None}

    @property
    def has_weights(self) -> bool:
        return bool(self.manifest["weights"])

    def shards(self, part: str) -> list[Shard]:
        """The files of train, validation or test, in order. Raises UserError where one is missing or not of the
        manifest's size."""
        users, size = self.manifest["parts"][part]["users"], self.manifest["shard_users"]
        names = sorted(name for name in self.manifest["files"] if name.startswith(f"{part}/"))
        for name in names:
            self._check_size(self.path / name)
        return [Shard(self.path / name, min(size, users - number * size)) for number, name in enumerate(names)]

    def matrix(self, shards: Sequence[Shard], column: str = "items") -> sparse.csr_matrix:
        """The users of these shards as rows, [users, items]: float32, the values 1 or the weights of column items."""
        names = [column, "weights"] if column == "items" and self.has_weights else [column]
        for shard in shards:
            self._check(shard.path)
        lists = [_lists(shard.path, names) for shard in shards]
        sizes = [np.diff(found[column].offsets.to_numpy()) for found in lists]
        indices = [found[column].flatten().to_numpy() for found in lists]
        indptr = np.r_[0, np.cumsum(np.concatenate([*sizes, np.zeros(0, np.int64)]), dtype=np.int64)]
        made = csr(indptr, np.concatenate([*indices, np.zeros(0, np.int32)]), self.manifest["items"])
        if len(names) > 1:
            made.data[:] = np.concatenate([found["weights"].flatten().to_numpy() for found in lists])
        return made

    def held_out(self, part: str) -> HeldOut:
        """The users of validation or test."""
        shards = self.shards(part)
        return HeldOut(self.matrix(shards, "fold_in"), self.matrix(shards, "target"))

    def split(self) -> Split:
        """The whole data set in memory."""
        train = self.matrix(self.shards(TRAIN))
        weights = None if (train.data == 1).all() else train.data.copy()
        train.data[:] = 1
        about = {**self.manifest["about"], "prepared": self.manifest["fingerprint"]}
        validation, test = (self.held_out(part) for part in FOLDERS[1:])
        return Split(train, validation, test, self.item_ids, self.titles, about, weights)

    def _check(self, path: Path) -> None:
        """Raises UserError unless the file is as it was written. It is read for that once."""
        if path in self._whole:
            return
        self._check_size(path)
        with user_errors(path):
            digest = sha256(path)
        if digest != self._described(path)["sha256"]:
            raise _damaged(path)
        self._whole.add(path)

    def _check_size(self, path: Path) -> None:
        with user_errors(path):
            size = path.stat().st_size
        if size != self._described(path)["bytes"]:
            raise _damaged(path)

    def _described(self, path: Path) -> dict[str, Any]:
        """What the manifest says of a file."""
        return self.manifest["files"][path.relative_to(self.path).as_posix()]


def is_prepared(folder: Path) -> bool:
    """Whether the folder looks like a prepared data set."""
    return (folder / MANIFEST).is_file() and (folder / ITEMS).is_file()


def _manifest(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
        version = values["schema_version"]
        if version == SCHEMA_VERSION:
            _ = values["fingerprint"] + "", values["items"] + values["shard_users"], {**values["about"]}
            _ = values["files"][ITEMS], [file["sha256"] + "" for file in values["files"].values()]
            _ = {**values["protocol"]}, values["weights"], [values["parts"][part]["users"] for part in FOLDERS]
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}; make the data set with trainers.prepare") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); prepare the data again") from error
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} is of version {version} and this is {SCHEMA_VERSION}; prepare the data again")
    return values


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: it is not the file that {MANIFEST} describes; prepare the data again")


def _shards_in(folder: Path) -> list[Shard]:
    """The shards in a folder, in order. Raises UserError where one is damaged."""

    def users(path: Path) -> int:
        with user_errors(path):
            return pq.read_metadata(path).num_rows

    return [Shard(path, users(path)) for path in sorted(folder.glob("part-*.parquet"))]


def _lists(path: Path, columns: Sequence[str]) -> dict[str, pa.ListArray]:
    """List columns of a shard, each as one array without nulls."""
    with user_errors(path):
        table = pq.read_table(path, columns=list(columns))
    return {name: table[name].combine_chunks().cast(pa.list_(_LISTS[name])) for name in columns}


def fingerprint(
    item_ids: Sequence[str], parts: Mapping[str, Sequence[Shard]], weights: bool
) -> tuple[str, dict[str, dict[str, int]], bool]:
    """`Split.fingerprint` of these files, with counts over all of them. Holds one file in memory at a time.

    Returns: the fingerprint; by part, the number of users, and of users with targets, and of entries by column; whether
        any weight is not 1.
    """
    digest = new_fingerprint(item_ids)
    counts: dict[str, dict[str, int]] = {part: {"users": sum(s.users for s in parts[part])} for part in parts}
    for part, column in MATRICES:
        entries = 0
        with_entries = 0
        for shard, sizes in _sizes(parts[part], column):
            if len(sizes) != shard.users:
                raise UserError(f"{shard.path} changed while it was read; start the command again")
            entries += int(sizes.sum())
            with_entries += int(np.count_nonzero(sizes))
        counts[part][column] = entries
        if column == "target":
            counts[part]["users_with_targets"] = with_entries
        digest.update(np.asarray([counts[part]["users"], len(item_ids), entries], np.int64).tobytes())
        digest.update(np.zeros(1, np.int64).tobytes())
        start = 0
        for _, sizes in _sizes(parts[part], column):
            ends = start + np.cumsum(sizes, dtype=np.int64)
            digest.update(ends.tobytes())
            start = int(ends[-1]) if len(ends) else start
        for shard in parts[part]:
            digest.update(
                np.ascontiguousarray(_lists(shard.path, [column])[column].flatten().to_numpy(), np.int32).data
            )
    weights = weights and any((found != 1).any() for found in _weights(parts[TRAIN]))
    if weights:
        for found in _weights(parts[TRAIN]):
            digest.update(found.data)
    return digest.hexdigest()[:16], counts, weights


def _sizes(shards: Sequence[Shard], column: str) -> Iterator[tuple[Shard, np.ndarray]]:
    """Of each shard the lengths of its lists."""
    for shard in shards:
        yield shard, np.diff(_lists(shard.path, [column])[column].offsets.to_numpy())


def _weights(shards: Sequence[Shard]) -> Iterator[np.ndarray]:
    """Of each shard the weights, float32 [entries]."""
    for shard in shards:
        yield np.ascontiguousarray(_lists(shard.path, ["weights"])["weights"].flatten().to_numpy(), np.float32)


def write_items(folder: Path, item_ids: Sequence[str], counts: np.ndarray, titles: Mapping[str, str]) -> None:
    """Writes items.parquet.

    Args:
      folder: exists.
      item_ids: in the order of item numbers.
      counts: int64 [items], training users that have the item.
      titles: item id -> title.
    """
    columns = {
        "id": pa.array(item_ids, pa.string()),
        "count": pa.array(counts, pa.int64()),
        "title": pa.array([titles.get(item) for item in item_ids], pa.string()),
    }
    pq.write_table(pa.table(columns), folder / ITEMS, compression="zstd")


def finish(
    folder: Path,
    protocol: Mapping[str, Any],
    about: Mapping[str, Any],
    shard_users: int,
    made_by: str,
    job: str = "",
) -> dict[str, Any]:
    """Writes manifest.json into a folder that has all other files, and returns it.

    Args:
      folder: holds the other files.
      protocol: the settings of the split.
      about: what a `Split` of these data says of itself.
      shard_users: users in a shard.
      made_by: the engine and its version.
      job: names the command that made the folder, so that the same command knows later that it is done; "": none.
    """
    with user_errors(folder / ITEMS):
        item_ids = pq.read_table(folder / ITEMS, columns=["id"])["id"].to_pylist()
    parts = {part: _shards_in(folder / part) for part in FOLDERS}
    has_weights = bool(parts[TRAIN]) and "weights" in pq.read_schema(parts[TRAIN][0].path).names
    digits, counts, weights = fingerprint(item_ids, parts, has_weights)
    columns = ("items", "fold_in", "target")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": digits,
        "users": sum(found["users"] for found in counts.values()),
        "items": len(item_ids),
        "interactions": sum(found.get(column, 0) for found in counts.values() for column in columns),
        "protocol": dict(protocol),
        "about": dict(about),
        "parts": counts,
        "weights": weights,
        "shard_users": shard_users,
        "made_by": made_by,
        "job": job,
        "files": {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in (folder / ITEMS, *(shard.path for part in FOLDERS for shard in parts[part]))
        },
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def write_split(split: Split, folder: Path, shard_users: int = SHARD_USERS) -> None:
    """Writes the files of a split in memory but for manifest.json. Column user is null: a split knows no user ids."""
    write_items(folder, split.item_ids, np.bincount(split.train.indices, minlength=len(split.item_ids)), split.titles)
    held_out = {part: getattr(split, part) for part in FOLDERS[1:]}
    columns = {TRAIN: {"items": split.train}}
    columns |= {part: {"fold_in": found.fold_in, "target": found.target} for part, found in held_out.items()}
    for part, matrices in columns.items():
        (folder / part).mkdir()
        users = next(iter(matrices.values())).shape[0]
        for number, start in enumerate(range(0, users, shard_users)):
            stop = min(start + shard_users, users)
            arrays = {"user": pa.nulls(stop - start, pa.string())}
            for name, matrix in matrices.items():
                ends = matrix.indptr[start : stop + 1]
                offsets = pa.array((ends - ends[0]).astype(np.int32))
                arrays[name] = pa.ListArray.from_arrays(offsets, pa.array(matrix.indices[ends[0] : ends[-1]]))
                if part == TRAIN and split.weights is not None:
                    of_items = pa.array(split.weights[ends[0] : ends[-1]])
                    arrays["weights"] = pa.ListArray.from_arrays(offsets, of_items)
            pq.write_table(pa.table(arrays), folder / part / shard_name(number), compression="zstd")


def shard_name(number: int) -> str:
    return f"part-{number:05d}.parquet"
