"""Training, validation and test data, by the published protocol's split of users or by time."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from vae_cf_tf import arrays
from vae_cf_tf.data import assignment
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.text import user_errors
from vae_cf_tf.data.time_split import as_text, cuts, later_events
from vae_cf_tf.data.titles import matching
from vae_cf_tf.data.weights import pair_weights
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside
from vae_cf_tf.say import Say, silent
from vae_cf_tf.settings import SplitSettings

SPLIT_FILE = "split.npz"
PARTS = ("test", "validation")
"""The held-out users: those for the result, and those on whom epochs and settings are chosen."""
_DEFAULT = SplitSettings()
MIN_ITEMS_FOR_TARGETS = 5  # held-out users with fewer keep all of them as fold-in


@dataclass(frozen=True)
class HeldOut:
    """Held-out users: what a model sees of them, and what it should find."""

    fold_in: sparse.csr_matrix  # [users, items], float32 ones
    target: sparse.csr_matrix  # likewise; empty rows for users without targets

    def users_with_targets(self) -> np.ndarray:
        """Rows of the users whom metrics judge, int [users with targets], ascending."""
        return np.flatnonzero(np.diff(self.target.indptr))

    def with_targets(self) -> "HeldOut":
        """The users who have targets, in order: those whom metrics judge."""
        some = self.users_with_targets()
        return HeldOut(self.fold_in[some], self.target[some])


@dataclass(frozen=True)
class Split:
    """A data set, ready to train on. The matrices are csr, float32 ones, with sorted int32 indices."""

    train: sparse.csr_matrix  # [users, items]
    validation: HeldOut
    test: HeldOut
    item_ids: list[str]  # the raw id of each column
    titles: dict[str, str]  # item id -> title, {} where unknown
    about: dict[str, Any] = field(default_factory=dict)  # how it was made, as metrics.json has it; {}: not known
    weights: np.ndarray | None = None  # float32 [train.nnz], x_ui in the order of train.indices; None: all are 1

    @property
    def has_weights(self) -> bool:
        """Whether any x_ui is not 1."""
        return self.weights is not None

    def weighted_train(self) -> sparse.csr_matrix:
        """`train` with the weights in place of ones."""
        if self.weights is None:
            return self.train
        return sparse.csr_matrix((self.weights, self.train.indices, self.train.indptr), self.train.shape)

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
        texts = {"item_ids": self.item_ids, "titles": self.titles, "about": self.about}
        values = {name: _json_bytes(value) for name, value in texts.items()}
        for name, matrix in self._matrices():
            values[f"{name}_indptr"] = matrix.indptr.astype(np.int64)
            values[f"{name}_indices"] = matrix.indices
        if self.weights is not None:
            values["train_weights"] = self.weights
        with written_aside(Path(folder) / SPLIT_FILE) as aside, open(aside, "wb") as f:
            np.savez(f, allow_pickle=False, **values)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Split":
        """Reads what `save` wrote. Raises UserError where split.npz is missing or damaged."""
        path = Path(folder) / SPLIT_FILE
        try:
            with user_errors(path), arrays.opened(path) as found:
                item_ids, titles = (json.loads(found[name].tobytes()) for name in ("item_ids", "titles"))
                about = json.loads(found["about"].tobytes()) if "about" in found else {}
                weights = found.get("train_weights")
                matrices = [
                    csr(found[f"{name}_indptr"], found[f"{name}_indices"], len(item_ids))
                    for name in ("train", "validation_tr", "validation_te", "test_tr", "test_te")
                ]
        except UserError:
            raise
        except (KeyError, ValueError) as e:
            raise UserError(f"{path} is damaged ({type(e).__name__}); delete it and split again") from e
        return cls(matrices[0], HeldOut(*matrices[1:3]), HeldOut(*matrices[3:]), item_ids, titles, about, weights)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that splits of equal matrices, weights and item ids share, whatever titles and `about`
        they have."""
        digest = new_fingerprint(self.item_ids)
        for _, matrix in self._matrices():
            digest.update(np.asarray([*matrix.shape, matrix.nnz], np.int64).tobytes())
            digest.update(matrix.indptr.astype(np.int64).tobytes())
            digest.update(np.ascontiguousarray(matrix.indices, np.int32).data)
        if self.weights is not None:
            digest.update(np.ascontiguousarray(self.weights, np.float32).data)
        return digest.hexdigest()[:16]


def new_fingerprint(item_ids: Sequence[str]) -> "hashlib._Hash":
    """The digest that `Split.fingerprint` begins with."""
    return hashlib.sha256(json.dumps(list(item_ids)).encode())


def split(interactions: Interactions, settings: SplitSettings = _DEFAULT, say: Say = silent) -> Split:
    """Splits by users as Liang et al. 2018 do (arXiv 1802.05814, the notebook of dawenl/vae_cf), or by time.

    Ratings of `threshold` or more count as 1, repeated events as one. Items with few users are dropped, then users with
    few items. The users, sorted by id (as numbers where all ids are whole numbers), are permuted; the last are for
    test, those before them for validation. The catalogue is the training users' items in order of first appearance.
    Of a held-out user's n items, in the log's order, (1 - fold_in_share)·n, rounded down, are drawn as targets (none if
    n < 5), users taken by sorted id. Rows are in the permutation's order; held-out users with no item of the catalogue
    are left out. With `targets` = latest, the targets are the user's last items, by the first event of each.

    By time, events before the first of two cuts train, with the same filters (`time_split.cuts`). Validation users are
    those with an item of the catalogue before it, and another between the cuts: the items before are fold-in, the new
    items between the cuts are targets. Test users likewise, at the second cut. So events after the second cut serve
    only as test targets. Rows are in the order of the users' ids.

    With `split_by` = hash nothing depends on the order of the log: users are held out by a hash of their ids and rows
    are in its order (`assignment.by_md5`), the catalogue is in the order of the item ids as text, and the targets are
    the items with the largest `md5_of` user and item; with `targets` = latest, it only breaks ties in time.

    Args:
        say: is told how much each step leaves.

    Raises: UserError for a log that leaves too few users.

    Examples:
        >>> from vae_cf_tf.data.synthetic import synthetic_log
        >>> data = split(synthetic_log(users=60, items=40, communities=2, mean_items=8), SplitSettings(heldout_users=5))
        >>> data.train.shape, data.test.fold_in.shape
        ((50, 39), (5, 39))
    """
    if settings.needs_times and interactions.times is None:
        flag = "--targets=latest" if settings.targets == "latest" else "--half_life_days"
        flag = "--split=time" if settings.split == "time" else flag
        raise UserError(f"{flag} needs times, and the data has none; name their column with --timestamp_column")
    log, told = _counted(interactions, settings)
    made = _by_time(log, settings, told, say) if settings.split == "time" else _by_users(log, settings, told, say)
    if made.about["training_has_later_events"]:
        say(
            "Training holds events later than those it is judged on: "
            f"{made.about['training_later_share']:.0%} of its events are later than a test target, on average."
        )
    return made


def _counted(log: Interactions, settings: SplitSettings) -> tuple[Interactions, str]:
    """The events whose rating and weight count, and how many these are, for people."""
    told = f"{len(log.users):,} rows read"
    if log.ratings is not None:
        counted = log.ratings >= np.float32(settings.threshold)
        if not counted.any():
            raise UserError(
                f"no rating reaches {settings.threshold:g} (the highest is {log.ratings.max():g}); lower --threshold"
            )
        log = _some_events(replace(log, ratings=None), counted)
        told += f", {len(log.users):,} with a rating of {settings.threshold:g} or more"
    if log.weights is not None and not log.weights.all():
        log = _some_events(log, log.weights > 0)
        if not len(log.users):
            raise UserError("every weight is 0; name another --weight_column")
        told += f", {len(log.users):,} with a weight above 0"
    return log, told


def _some_events(log: Interactions, chosen: np.ndarray) -> Interactions:
    of_events = ("users", "items", "times", "weights")
    arrays = {name: getattr(log, name) for name in of_events}
    return replace(log, **{name: a[chosen] for name, a in arrays.items() if a is not None})


def _by_users(log: Interactions, settings: SplitSettings, told: str, say: Say) -> Split:
    users, items = log.users, log.items
    # [users, items] of the whole log, repeated events made one.
    seen = ones(users, items, (len(log.user_ids), len(log.item_ids)))
    say(f"{told}; distinct: {_size(seen)}.")
    steps = [len(log.user_ids), _rows(seen)]
    is_kept, kept = _filtered(seen, settings, say)
    steps.append(_rows(seen))
    held = settings.heldout_users or min(max(len(kept) // 10, 1), 10_000)
    if len(kept) <= 2 * held:
        raise UserError(_too_few_users([*steps, len(kept)], settings))

    kept = _sorted_by_id(kept, log.user_ids)
    random = np.random.RandomState(settings.split_seed)
    if settings.split_by == "hash":
        parts = assignment.by_md5(kept, log.user_ids, settings.split_seed, settings.heldout_share)
    elif settings.user_draws == "hashed":
        parts = assignment.by_hash(kept, log.user_ids, settings.split_seed)
    else:
        permuted = kept[random.permutation(len(kept))]
        parts = np.split(permuted, [len(kept) - 2 * held, len(kept) - held])

    is_training = np.zeros(len(log.user_ids), bool)
    is_training[parts[0]] = True
    trains = is_training[users] & is_kept[items]  # [events]
    catalogue = _catalogue(log, trains, settings)
    column = np.full(len(log.item_ids), -1, np.int32)
    column[catalogue] = np.arange(len(catalogue), dtype=np.int32)
    rows = seen[parts[0]]
    train = csr(rows.indptr, column[rows.indices], len(catalogue))
    del seen, rows
    weights = _weights(log, settings, trains, train, parts[0], column)

    rank = np.full(len(log.user_ids), -1, np.int32)  # of users by id
    rank[kept] = np.arange(len(kept), dtype=np.int32)
    held_out, target_events = [], np.zeros(0, np.int64)
    latest = log.times if settings.targets == "latest" else None
    hashes = _hashes(log, settings)
    for part in parts[1:]:
        if settings.target_draws == "reseeded":
            random = np.random.RandomState(settings.split_seed)
        made, target_events = _held_out(
            users, column[items], part, rank, len(catalogue), settings.fold_in_share, random, latest, hashes
        )
        held_out.append(made)
    if lost := sum(map(len, parts[1:])) - sum(h.target.shape[0] for h in held_out):
        say(f"Left out: {lost:,} held-out users of whose items no training user has any.")
    for name, held_out_part in zip(("validation", "test"), held_out, strict=True):
        if not held_out_part.target.nnz:
            raise UserError(_no_targets(name, held_out_part, settings))
    times = (None, None) if log.times is None else (log.times[trains], log.times[target_events])
    about = {"by": "users", "targets": settings.targets} | later_events(*times)
    return Split(train, held_out[0], held_out[1], *_ids_and_titles(log, catalogue), about, weights)


def _weights(
    log: Interactions,
    settings: SplitSettings,
    trains: np.ndarray,
    train: sparse.csr_matrix,
    of_rows: np.ndarray,
    column: np.ndarray,
) -> np.ndarray | None:
    """x_ui of `train`, whose rows are the users `of_rows`, from the events that `trains`; None where all are 1."""
    if log.weights is None and settings.repeats == "once" and not settings.half_life_days:
        return None
    row = np.full(len(log.user_ids), -1, np.int64)
    row[of_rows] = np.arange(len(of_rows))
    weights, times = (None if array is None else array[trains] for array in (log.weights, log.times))
    return pair_weights(train, row[log.users[trains]], column[log.items[trains]], weights, times, settings)


def _by_time(log: Interactions, settings: SplitSettings, told: str, say: Say) -> Split:
    users, items, times = log.users, log.items, log.times
    assert times is not None
    shape = (len(log.user_ids), len(log.item_ids))
    at = cuts(times, settings)
    say(f"{told}. Training ends before {as_text(at.validation)}, test targets begin at {as_text(at.test)}.")
    trains = times < at.validation  # [events]
    seen = ones(users[trains], items[trains], shape)
    say(f"Before the first cut, distinct: {_size(seen)}.")
    is_kept, kept = _filtered(seen, settings, say)
    if not len(kept):
        raise UserError(
            f"no user has {settings.min_items_per_user:,} items before {as_text(at.validation)}, where training ends; "
            "lower --min_items_per_user or give a later --cut"
        )
    is_training = np.zeros(shape[0], bool)
    is_training[kept] = True
    trains &= is_training[users] & is_kept[items]
    catalogue = _catalogue(log, trains, settings)
    column = np.full(shape[1], -1, np.int32)
    column[catalogue] = np.arange(len(catalogue), dtype=np.int32)
    kept = _in_order(kept, log.user_ids, settings)
    rows = seen[kept]
    train = csr(rows.indptr, column[rows.indices], len(catalogue))
    weights = _weights(log, settings, trains, train, kept, column)
    known = column[items] >= 0
    held_out, target_events = [], np.zeros(0, np.int64)
    for name, start, end in (("validation", at.validation, at.test), ("test", at.test, np.inf)):
        before, after = known & (times < start), known & (times >= start) & (times < end)
        wide = (shape[0], len(catalogue))
        fold_in, target = (ones(users[m], column[items[m]], wide) for m in (before, after))
        target = (target - target.multiply(fold_in)).tocsr()
        target.eliminate_zeros()
        has_both = (np.diff(fold_in.indptr) > 0) & (np.diff(target.indptr) > 0)
        judged = np.flatnonzero(has_both)
        active = len(np.unique(users[(times >= start) & (times < end)]))
        if not len(judged):
            raise UserError(
                f"no {name} user: of {active:,} who are active from {as_text(start)} on, none has an item of the "
                "catalogue before and another one after; give another --cut"
            )
        say(
            f"{name.capitalize()}: {len(judged):,} of the {active:,} users who are active from {as_text(start)} on "
            "have an item of the catalogue before it and another one after it."
        )
        ordered = _in_order(judged, log.user_ids, settings)
        held_out.append(HeldOut(*(csr(m.indptr, m.indices, wide[1]) for m in (fold_in[ordered], target[ordered]))))
        events = np.flatnonzero(after)
        target_events = events[np.asarray(target[users[events], column[items[events]]]).ravel() > 0]
    about = {"by": "time", "targets": "after the cut", "cut": as_text(at.test), "training_ends": as_text(at.validation)}
    about |= later_events(times[trains], times[target_events])
    return Split(train, held_out[0], held_out[1], *_ids_and_titles(log, catalogue), about, weights)


def _filtered(seen: sparse.csr_matrix, settings: SplitSettings, say: Say) -> tuple[np.ndarray, np.ndarray]:
    """Drops items with few users from `seen`, [users, items]; returns which items are kept, bool [items], and the users
    who then have enough items."""
    is_kept = np.bincount(seen.indices, minlength=seen.shape[1]) >= max(settings.min_users_per_item, 1)
    seen.data[:] = is_kept[seen.indices]
    seen.eliminate_zeros()
    if settings.min_users_per_item > 1:
        say(f"Dropped items of fewer than {settings.min_users_per_item:,} users; left: {_size(seen)}.")
    kept = np.flatnonzero(np.diff(seen.indptr) >= max(settings.min_items_per_user, 1))
    if settings.min_items_per_user > 1:
        say(f"Dropped users of fewer than {settings.min_items_per_user:,} items; left: {_size(seen[kept])}.")
    return is_kept, kept


def _ids_and_titles(log: Interactions, catalogue: np.ndarray) -> tuple[list[str], dict[str, str]]:
    item_ids = log.item_ids[catalogue].tolist()
    return item_ids, {item: log.titles[item] for item in item_ids if item in log.titles}


def target_counts(sizes: Sequence[int], fold_in_share: float) -> list[int]:
    """How many targets held-out users of so many items have: (1 - fold_in_share)·size, rounded down, exactly."""
    share = 1 - Fraction(str(float(fold_in_share)))  # of .71 exactly .29, and .29·100 is 29
    above, below = share.as_integer_ratio()
    return [size * above // below if size >= MIN_ITEMS_FOR_TARGETS else 0 for size in sizes]


def _rows(matrix: sparse.csr_matrix) -> int:
    """How many rows are not empty."""
    return int(np.count_nonzero(np.diff(matrix.indptr)))


def _size(matrix: sparse.csr_matrix) -> str:
    items = np.count_nonzero(np.bincount(matrix.indices, minlength=1))
    return f"{matrix.nnz:,} pairs of {_rows(matrix):,} users and {items:,} items"


def _too_few_users(left: Sequence[int], settings: SplitSettings) -> str:
    """The error text. `left`: users in the data, with an event that counts, with a kept item, and with enough items."""
    filters = ("threshold", "min_users_per_item", "min_items_per_user")
    took = {name: left[i] - left[i + 1] for i, name in enumerate(filters) if left[i] > left[i + 1]}
    because = " and ".join(f"--{name}={getattr(settings, name):g} took {users:,}" for name, users in took.items())
    because = f" (of {left[0]:,} in the data {because})" if took else ""
    held = settings.heldout_users
    if held:
        needed = f"2 × {held:,} held-out users and some to train on"
    else:
        needed = "training, validation and test, which need one each"
    remedy = " or ".join(f"--{name}" for name in (*(["heldout_users"] if held else []), *took))
    remedy = f"lower {remedy}" if remedy else "give data of more users"
    return f"{left[-1]:,} users are left{because}, too few for {needed}; {remedy}"


def _no_targets(name: str, part: HeldOut, settings: SplitSettings) -> str:
    most = int((np.diff(part.fold_in.indptr) + np.diff(part.target.indptr)).max(initial=0))
    if most >= MIN_ITEMS_FOR_TARGETS:
        remedy = f"lower --fold_in_share (received {settings.fold_in_share:g})"
    else:
        flag = "--heldout_share" if settings.split_by == "hash" else "--heldout_users"
        remedy = f"{MIN_ITEMS_FOR_TARGETS} are needed: hold out more users with {flag}, or give more data"
    return f"no {name} user has a target: the most items of the catalogue that one has are {most}; {remedy}"


def _held_out(
    users: np.ndarray,
    columns: np.ndarray,
    part: np.ndarray,
    rank: np.ndarray,
    items: int,
    fold_in_share: float,
    random: np.random.RandomState,
    times: np.ndarray | None = None,
    hashes: Callable[[np.ndarray], list[str]] | None = None,
) -> tuple[HeldOut, np.ndarray]:
    """Chooses the targets of the users `part`. Also returns the indices of the targets' events.

    With `times`, the targets are a user's latest items. Otherwise they are the items with the largest hash, if `hashes`
    is given, or random ones.

    Args:
      users, columns: int [events], the log; column -1: not in the catalogue.
      hashes: gives a text for each of these events, a function of the ids of user and item.
    """
    row = np.full(len(rank), -1, np.int32)
    row[part] = np.arange(len(part), dtype=np.int32)
    chosen = np.flatnonzero((row[users] >= 0) & (columns >= 0))
    if times is not None:
        chosen = chosen[np.argsort(times[chosen], kind="stable")]
    chosen = chosen[~pd.Series(users[chosen].astype(np.int64) * items + columns[chosen]).duplicated().to_numpy()]
    if hashes is not None:
        chosen = chosen[np.argsort(np.array(hashes(chosen), object), kind="stable")]
        if times is not None:
            chosen = chosen[np.argsort(times[chosen], kind="stable")]
    by_rank = times is not None or hashes is not None
    chosen = chosen[np.argsort(rank[users[chosen]], kind="stable")]  # user by user, each in the log's order
    users, columns = users[chosen], columns[chosen]
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(users) else np.zeros(0, int)
    is_target = np.zeros(len(users), bool)
    sizes = np.diff(np.r_[starts, len(users)]).tolist()
    for start, size, count in zip(starts.tolist(), sizes, target_counts(sizes, fold_in_share), strict=True):
        if size >= MIN_ITEMS_FOR_TARGETS:
            last = np.arange(size - count, size)
            is_target[start + (last if by_rank else random.choice(size, count, replace=False))] = True
    rows, row_count = _compact(row[users])
    fold_in, target = (ones(rows[m], columns[m], (row_count, items)) for m in (~is_target, is_target))
    return HeldOut(fold_in, target), chosen[is_target]


def with_titles(data: Split, titles: Mapping[str, str]) -> Split:
    """The split with the titles of its own items. Raises UserError as `titles.matching`."""
    return replace(data, titles=matching(titles, data.item_ids))


def _catalogue(log: Interactions, trains: np.ndarray, settings: SplitSettings) -> np.ndarray:
    """The items of the events that train: in order of first appearance, or of their ids with `split_by` = hash."""
    found = pd.unique(log.items[trains])
    if settings.split_by == "hash":
        found = found[np.argsort(log.item_ids[found], kind="stable")]
    return found


def _in_order(users: np.ndarray, ids: np.ndarray, settings: SplitSettings) -> np.ndarray:
    """The users in the order of their ids, or of the hash with `split_by` = hash."""
    if settings.split_by == "hash":
        return assignment.in_md5_order(users, ids, settings.split_seed)
    return _sorted_by_id(users, ids)


def _hashes(log: Interactions, settings: SplitSettings) -> Callable[[np.ndarray], list[str]] | None:
    """For `_held_out`; None where `random` draws the targets."""
    if settings.split_by != "hash":
        return None
    return lambda events: [
        assignment.md5_of(settings.split_seed, log.user_ids[user], log.item_ids[item])
        for user, item in zip(log.users[events].tolist(), log.items[events].tolist(), strict=True)
    ]


def with_training_users(data: Split, users: int, seed: int, say: Say = silent) -> Split:
    """The split with `users` of its training users, in their order; all else is the same, the catalogue too.

    They are the first of a permutation by the seed, so a smaller number gives a subset of a larger one's.

    Raises: UserError where there are fewer.
    """
    total = data.train.shape[0]
    if users > total:
        raise UserError(
            f"--training_users={users:,}, and the data has {total:,} training users; give fewer, or 0 for all"
        )
    kept = np.sort(np.random.RandomState(seed).permutation(total)[:users])
    train = data.train[kept]
    without = int(np.sum(np.bincount(train.indices, minlength=train.shape[1]) == 0))
    say(f"Training on {users:,} of {total:,} training users, who have no event of {without:,} of the items.")
    weights = None if data.weights is None else data.weighted_train()[kept].data
    return replace(data, train=train, weights=weights)


def _compact(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Renumbers labels 0, 1, … in ascending order of those present: int32, and how many there are."""
    distinct, codes = np.unique(labels, return_inverse=True)
    return codes.astype(np.int32), len(distinct)


def ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """A float32 csr matrix of ones at these places, however often they are named, with sorted indices."""
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def csr(indptr: np.ndarray, indices: np.ndarray, columns: int) -> sparse.csr_matrix:
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


def _json_bytes(value: object) -> np.ndarray:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), np.uint8)
