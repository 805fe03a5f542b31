"""A prepared data set of which the training users stay on the disk."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from vae_cf_tf.data.prepared import TRAIN, Prepared
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import read_json, write_json

REFERENCE_FILE = "prepared.json"
"""In a workdir, in place of split.npz: which prepared data set the run learns from."""
BUFFER = 4
"""Shards that are in memory at a time, and are shuffled together."""


class Shards:
    """The training users of a prepared data set, [users, items], in place of a matrix of them.

    It has what training needs of a matrix: `shape`, `nnz`, some rows, and the sum of the columns from items.parquet.

    Args:
      prepared: the data set.
    """

    def __init__(self, prepared: Prepared):
        self.prepared = prepared
        self._shards = prepared.shards(TRAIN)
        counts = prepared.manifest["parts"][TRAIN]
        self.shape: tuple[int, int] = (counts["users"], prepared.manifest["items"])
        self.nnz: int = counts["items"]
        self.has_weights = prepared.has_weights

    def item_counts(self) -> np.ndarray:
        """Users of each item, int64 [items]."""
        return self.prepared.items["count"].to_numpy()

    def __getitem__(self, rows: np.ndarray) -> sparse.csr_matrix:
        """These users' histories, [rows, items], float32 ones. Reads the shards that hold them, one at a time."""
        numbers = np.asarray(rows) // self.prepared.manifest["shard_users"]
        order = np.argsort(numbers, kind="stable")
        found = []
        for number in np.unique(numbers):
            matrix = self.prepared.matrix([self._shards[number]])
            found.append(matrix[rows[numbers == number] - number * self.prepared.manifest["shard_users"]])
        made = sparse.csr_matrix(sparse.vstack(found))[np.argsort(order)]
        made.data[:] = 1
        return made

    def batches(self, batch_size: int, seed: int, number: int) -> Iterator[sparse.csr_matrix]:
        """The batches of one pass over all users: a function of (seed, number) alone.

        The shards are permuted, and then the users of each `BUFFER` of them. Users are in the order of a hash, so a
        shard is a random sample of them.

        Args:
          batch_size: users in a batch; the last one holds the rest.
          seed: of the permutations.
          number: of the pass.
        """
        rng = np.random.default_rng([seed, number])
        order = rng.permutation(len(self._shards))
        rest: sparse.csr_matrix | None = None
        for start in range(0, len(order), BUFFER):
            matrix = self.prepared.matrix([self._shards[shard] for shard in order[start : start + BUFFER]])
            users = rng.permutation(matrix.shape[0])
            # The first batch of a buffer begins with what is left of the buffer before it.
            first = 0 if rest is None else min(batch_size - rest.shape[0], len(users))
            if rest is not None:
                rest = sparse.vstack([rest, matrix[users[:first]]], format="csr")
                if rest.shape[0] < batch_size:
                    continue
                yield rest
                rest = None
            whole = first + (len(users) - first) // batch_size * batch_size
            for place in range(first, whole, batch_size):
                yield matrix[users[place : place + batch_size]]
            if whole < len(users):
                rest = matrix[users[whole:]]
        if rest is not None:
            yield rest


class ShardedSplit(Split):
    """A split whose training users are `Shards`. What needs all of them in memory is refused or left out."""

    @classmethod
    def of(cls, prepared: Prepared) -> "ShardedSplit":
        """The prepared data set, without reading its training users."""
        about = {**prepared.manifest["about"], "prepared": prepared.manifest["fingerprint"]}
        validation, test = (prepared.held_out(part) for part in ("validation", "test"))
        shards: Any = Shards(prepared)  # in place of a matrix
        return cls(shards, validation, test, prepared.item_ids, prepared.titles, about)

    @cached_property
    def shards(self) -> Shards:
        return self.train

    @property
    def has_weights(self) -> bool:
        return self.shards.has_weights

    def weighted_train(self) -> Any:
        """The shards: their batches have the weights."""
        return self.train

    def fingerprint(self) -> str:
        """The fingerprint in the manifest. `Split.fingerprint` of the same data in memory is equal."""
        return self.shards.prepared.manifest["fingerprint"]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes where the prepared data set lies; it is not copied."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        reference = {"folder": str(self.shards.prepared.path.resolve()), "fingerprint": self.fingerprint()}
        write_json(Path(folder) / REFERENCE_FILE, reference)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "ShardedSplit":
        """Opens what `save` named. Raises UserError where it is no longer there, or is another data set."""
        path = Path(folder) / REFERENCE_FILE
        try:
            reference = read_json(path)
            place, fingerprint = Path(reference["folder"]), reference["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error!r}); give another --workdir") from error
        prepared = Prepared(place)
        if prepared.manifest["fingerprint"] != fingerprint:
            raise UserError(
                f"{place} is not the data set that the run in {folder} learned from; give another --workdir"
            )
        return cls.of(prepared)
