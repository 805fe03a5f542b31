"""What a caller asks about, as the signatures take it: lists, arrays or frames of ids become padded texts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vae_cf_tf.data import frames
from vae_cf_tf.errors import UserError

CELLS = 1 << 22
"""Scores and ids of a request, at most: some 100 MB."""
_LISTS = (list, tuple, set, frozenset, np.ndarray, pd.Series, pd.Index)


class Histories(NamedTuple):
    """Histories of item ids, with what their rows are called in the answer."""

    labels: list[Any]
    ids: list[list[str]]


def histories(given: Any) -> Histories:
    """The histories that a caller means.

    Args:
      given: a list of ids, which is one history; a list of such lists, called 0, 1, …; a dict of lists, or a frame with
        a user and an item column, whose rows are called by the users.

    Raises:
      UserError: anything else, or an id that is missing.
    """
    if frames.is_frame(given):
        users, items = frames.id_columns(given)
        found: dict[str, list[str]] = {}
        for user, item in zip(users, items, strict=True):
            found.setdefault(user, []).append(item)
        return Histories(list(found), list(found.values()))
    if isinstance(given, Mapping):
        return Histories(list(given), _texts([_listed(ids, "A history") for ids in given.values()]))
    lists = _nested(given, "histories")
    return Histories(list(range(len(lists))), lists)


def item_lists(given: Any, rows: int, name: str) -> list[list[str]]:
    """A list of ids for each row. `given` is one list for all rows or a list per row. Errors as `histories`."""
    lists = _nested(given, name)
    if len(lists) == 1:
        return lists * rows
    if len(lists) != rows:
        raise UserError(
            f"{name} takes one list, or one for each of the {rows} histories. Received: {len(lists)} lists."
        )
    return lists


def items(given: Any) -> list[str]:
    """One id, or several, as a list. Raises UserError for an id that is missing."""
    return frames.id_texts(_listed(given, "items") if isinstance(given, _LISTS) else [given])


def padded(lists: Sequence[Sequence[str]]) -> np.ndarray:
    """Object array [rows, length] of the lists, padded with "" to one length, at least 1."""
    table = np.full((len(lists), max([1, *map(len, lists)])), "", object)
    for row, ids in enumerate(lists):
        table[row, : len(ids)] = ids
    return table


def blocks(inputs: Mapping[str, Sequence[Any]], rows: int, scores: int) -> Iterator[slice]:
    """Slices of the rows, so that the scores and the padded ids of a request are no more than CELLS.

    Args:
      inputs: by name a list of ids, or a single value, for each row.
      rows: of all of them.
      scores: numbers that the answer to a row takes.
    """
    width = scores + sum(max((len(v) for v in values if isinstance(v, list)), default=0) for values in inputs.values())
    at_once = max(1, CELLS // width)
    yield from (slice(start, start + at_once) for start in range(0, rows, at_once))


def _nested(given: Any, name: str) -> list[list[str]]:
    """Lists of texts. A list that holds no list is one of them."""
    values = _listed(given, name)
    inner = [isinstance(value, _LISTS) for value in values]
    if any(inner) and not all(inner):
        raise UserError(f"{name} holds lists beside single ids. Give one list of ids, or a list of such lists.")
    return _texts([_listed(value, name) for value in values] if any(inner) else [values])


def _listed(given: Any, name: str) -> list[Any]:
    if not isinstance(given, _LISTS):
        raise UserError(
            f"{name} takes a list of item ids, a list of such lists, a dict of them, or a DataFrame with a user and an "
            f"item column. Received: {type(given).__name__}."
        )
    return list(given)


def _texts(lists: Sequence[Sequence[Any]]) -> list[list[str]]:
    """All ids together as text: whether "10.0" is the number 10 is told by all of them."""
    flat = iter(frames.id_texts(value for values in lists for value in values))
    return [[next(flat) for _ in values] for values in lists]
