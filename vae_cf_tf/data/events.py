"""From blocks of events to one log: ids as clean text, and the first event that is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.times import Times

NO_IDS = ("", "nan", "NaN", "NULL", "null", "None", "NA", "N/A", "<NA>")
"""What programs write for a missing value."""

TEXT = pa.dictionary(pa.int32(), pa.string())


class NoEvents(Exception):
    """A log without any event."""


class BadEvent(Exception):
    """An event that is refused.

    Args:
        row: its number in the log, from 0.
        reason: what is wrong with it.
    """

    def __init__(self, row: int, reason: str):
        super().__init__(reason)
        self.row = row


def id_fault(what: str, text: str) -> str | None:
    """What is wrong with an id (blanks around it do not count); `what` is "user" or "item"."""
    text = text.strip()
    if text in NO_IDS:
        return f"the {what} id is {text!r}" if text else f"the {what} id is empty"
    return f"the {what} id {text[:40]!r} holds a line break" if "\n" in text or "\r" in text else None


def clean_ids(ids: pa.StringArray) -> pa.StringArray:
    """The distinct ids of a column without surrounding blanks; where all are whole numbers, "10.0" becomes "10"."""
    ids = pc.utf8_trim_whitespace(ids)
    if not pc.any(pc.ends_with(ids, ".0")).as_py():
        return ids
    if pc.all(pc.match_substring_regex(ids, r"^-?[0-9]+(\.0)?$")).as_py():
        ids = pc.replace_substring_regex(ids, r"\.0$", "")
    return ids


class EventLog:
    """Gathers blocks of events into one log.

    Args:
        header: names of the user and the item column; an event with these two as its ids is refused, since it is the
            header line once more.
        in_order: whether each dictionary that is added holds only ids in use, in order of first appearance, as from
            pyarrow's CSV reader. If not, each is brought into this form, which takes a tenth of the reading time.
    """

    def __init__(self, header: tuple[str, str] | None = None, in_order: bool = False):
        self._header = header
        self._in_order = in_order
        self._users: list[pa.DictionaryArray] = []
        self._items: list[pa.DictionaryArray] = []
        self._ratings: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
        self._times: Times | None = None
        self._rows = 0

    def add(
        self,
        users: pa.Array,
        items: pa.Array,
        ratings: pa.Array | None = None,
        times: pa.Array | None = None,
        weights: pa.Array | None = None,
    ) -> None:
        """Takes a block of events.

        Args:
            users: ids: text or whole numbers, a dictionary (category) of these or not.
            items: likewise.
            ratings: numbers; None for a log without ratings, and then for every block of it.
            weights: numbers of at least 0; None likewise.
            times: numbers, ISO 8601 text, timestamps or dates; None likewise.

        Raises: BadEvent for an id, rating, weight or time that is missing or not finite, an id that is not whole, a
            weight below 0; pyarrow's errors for other types.
        """
        coded = self._as_text(users, "user"), self._as_text(items, "item")
        if ratings is not None:
            self._ratings.append(self._numbers(ratings, "rating"))
        if weights is not None:
            numbers = self._numbers(weights, "weight")
            if len(below := np.flatnonzero(numbers < 0)):
                raise BadEvent(self._rows + int(below[0]), f"the weight is {numbers[below[0]]:g}, below 0")
            self._weights.append(numbers)
        if times is not None:
            self._times = self._times or Times()
            if (row := self._times.add(times)) is not None:
                received = times[row].as_py()
                raise BadEvent(self._rows + row, f"the time is {received!r}" if received else "the time is empty")
        self._users.append(coded[0])
        self._items.append(coded[1])
        self._rows += len(users)

    def interactions(self) -> Interactions:
        """The whole log; empties this one. Raises BadEvent or NoEvents."""
        if not self._rows:
            raise NoEvents
        ratings = np.concatenate(self._ratings) if self._ratings else None
        weights = np.concatenate(self._weights) if self._weights else None
        self._ratings, self._weights = [], []
        times = self._times.seconds() if self._times else None
        self._times = None
        users, user_ids = _coded(self._users, "user")
        items, item_ids = _coded(self._items, "item")
        if self._header and self._header[0] in set(user_ids) and self._header[1] in set(item_ids):
            user, item = (
                ids.tolist().index(name) for ids, name in zip((user_ids, item_ids), self._header, strict=True)
            )
            rows = np.flatnonzero((users == user) & (items == item))
            if len(rows):
                raise BadEvent(int(rows[0]), "the header line stands here again")
        return Interactions(users, items, user_ids, item_ids, ratings, weights=weights, times=times)

    def _numbers(self, array: pa.Array, what: str) -> np.ndarray:
        """Float32 [rows]. Raises BadEvent for the first that is no finite number."""
        numbers = array.cast(pa.float32(), safe=False)
        is_number = pc.fill_null(pc.is_finite(numbers), False)
        if not pc.all(is_number, min_count=0).as_py():
            raise BadEvent(self._rows + _first(pc.invert(is_number)), f"the {what} is empty or not a finite number")
        return numbers.to_numpy(zero_copy_only=False)

    def _as_text(self, array: pa.Array, what: str) -> pa.DictionaryArray:
        """Ids as text; the dictionary holds those in use alone, in order of first appearance."""
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        ids, indices = coded.dictionary, coded.indices
        if pa.types.is_floating(ids.type) or pa.types.is_decimal(ids.type):
            ids = pc.if_else(pc.is_finite(ids), ids, None)
            is_whole = pc.equal(ids, pc.floor(ids)).fill_null(True).take(indices).fill_null(True)
            if not pc.all(is_whole, min_count=0).as_py():
                row = _first(pc.invert(is_whole))
                raise BadEvent(self._rows + row, f"the {what} id is {array[row]}; numbers are ids if they are whole")
            ids = ids.cast(pa.int64())
        ids = ids.cast(pa.string())
        if ids.null_count:
            indices = pc.if_else(pc.is_null(ids).take(indices), None, indices)
        if indices.null_count:
            raise BadEvent(self._rows + _first(indices.is_null()), f"the {what} id is empty")
        if coded is array and not self._in_order:
            order = pd.unique(indices.to_numpy())
            place = np.zeros(len(ids), np.int32)
            place[order] = np.arange(len(order), dtype=np.int32)
            indices, ids = pa.array(place[indices.to_numpy()]), ids.take(pa.array(order))
        return pa.DictionaryArray.from_arrays(indices.cast(pa.int32()), ids)


def _first(is_bad: pa.BooleanArray) -> int:
    return int(np.flatnonzero(is_bad.to_numpy(zero_copy_only=False))[0])


def _coded(blocks: list[pa.DictionaryArray], what: str) -> tuple[np.ndarray, np.ndarray]:
    """One code per id over all blocks, in order of first appearance: int32 [events] and the ids. Empties `blocks`."""
    column = pa.chunked_array(blocks).unify_dictionaries()
    blocks.clear()
    raw = column.chunk(0).dictionary
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    ids = clean_ids(raw)
    is_bad = pc.or_(pc.is_in(ids, pa.array(NO_IDS)), pc.match_substring_regex(ids, r"[\r\n]"))
    if pc.any(is_bad).as_py():
        row = int(np.flatnonzero(is_bad.to_numpy(zero_copy_only=False)[codes])[0])
        raise BadEvent(row, id_fault(what, ids[int(codes[row])].as_py()) or "")
    if not ids.equals(raw):
        encoded = ids.dictionary_encode()
        codes, ids = encoded.indices.to_numpy()[codes], encoded.dictionary
    return codes, ids.to_numpy(zero_copy_only=False)
