"""Converts timestamps (numbers, ISO 8601 text, Arrow's own types) to seconds since 1970."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from vae_cf_tf.data.text import shown

_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""Pairs (least value, units per second) for ns, µs and ms: the unit of a log is the first whose least value its largest
number reaches. As seconds, 1e11 would be the year 5138; as milliseconds it is 1973."""
_DATES = (19000101, 21001231)
"""If all numbers of a log lie between these, they are dates written without hyphens (20030131). As seconds they would
be in August and September 1970."""


def is_time(kind: pa.DataType) -> bool:
    """Whether an Arrow column of this type may hold times."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return is_text or is_number or pa.types.is_timestamp(kind) or pa.types.is_date(kind)


def is_number(text: str) -> bool:
    """Whether the text is a finite number."""
    # Bytes that are no UTF-8 are no ASCII either.
    return text.isascii() and bool(np.isfinite(_numbers(pa.array([text.strip()], pa.string()))[0]))


def time_fault(text: str, is_text: bool) -> str | None:
    """What is wrong with a field of a time column, or None. `is_text`: the first field is text, not a number."""
    if not text.strip():
        return "the time is empty"
    if not is_text:
        return None if is_number(text) else f"the time is {shown(text)}, not a number as those before it"
    if text.isascii() and np.isfinite(_from_text(pa.array([text], pa.string()))[0]):
        return None
    return f"the time is {shown(text)}, neither a number of seconds or milliseconds nor ISO 8601 (2003-01-31T18:00:00)"


class Times:
    """Collects the timestamps of a log, block by block. Either all are numbers, or all are text or Arrow times."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._are_numbers = True

    def add(self, array: pa.Array) -> int | None:
        """Adds a block of rows. Returns the index in the block of the first row that is no time; None if all are.

        A block that has numbers where earlier ones have text, or the reverse, is refused at its row 0.
        """
        if pa.types.is_dictionary(array.type):
            values, are_numbers = self._read(array.dictionary)
            codes = array.indices.fill_null(len(values)).to_numpy()
            values = np.append(values, np.nan)[codes]
        else:
            values, are_numbers = self._read(array)
        bad = np.flatnonzero(~np.isfinite(values))
        if not len(bad) and len(values):
            if self._blocks and are_numbers != self._are_numbers:
                return 0
            self._are_numbers = are_numbers
            self._blocks.append(values)
        return int(bad[0]) if len(bad) else None

    @staticmethod
    def _read(array: pa.Array) -> tuple[np.ndarray, bool]:
        """Float64 [rows], NaN where a row is no time; and whether they are numbers whose unit is not known yet.

        If they are not such numbers, they are seconds since 1970.
        """
        kind = array.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            micro = array.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
            return pc.divide(micro.cast(pa.float64()), 1e6).fill_null(np.nan).to_numpy(zero_copy_only=False), False
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            numbers = array.cast(pa.float64(), safe=False).fill_null(np.nan)
            return numbers.to_numpy(zero_copy_only=False), True
        array = array.cast(pa.string())
        numbers = _numbers(array)
        return (numbers, True) if np.isfinite(numbers).all() else (_from_text(array), False)

    def seconds(self) -> np.ndarray:
        """All timestamps as seconds since 1970, float64 [rows]. Removes the collected blocks."""
        values = np.concatenate(self._blocks) if self._blocks else np.zeros(0)
        self._blocks.clear()
        return _in_seconds(values) if self._are_numbers and len(values) else values


def _in_seconds(numbers: np.ndarray) -> np.ndarray:
    """Seconds since 1970, float64 [rows], of numbers whose unit is inferred (`_DATES`, `_UNITS`)."""
    low, high = numbers.min(), numbers.max()
    unit = number_units(low, high, bool((numbers == np.floor(numbers)).all()))
    if unit is None:
        distinct, codes = np.unique(numbers, return_inverse=True)
        dates = _from_text(pa.array([f"{n:.0f}" for n in distinct], pa.string()))
        if np.isfinite(dates).all():
            return dates[codes]
    return numbers / (unit or 1.0)


def number_units(low: float, high: float, are_whole: bool) -> float | None:
    """Units per second of numbers from low to high. None: they may be dates without hyphens, else they are seconds."""
    if _DATES[0] <= low and high <= _DATES[1] and are_whole:
        return None
    largest = max(-low, high)
    return next((unit for least, unit in _UNITS if largest >= least), 1.0)


def _numbers(texts: pa.Array) -> np.ndarray:
    """The texts as numbers, float64 [rows]; all are NaN if any text is no number. A null is NaN."""
    try:
        numbers = pc.utf8_trim_whitespace(texts).cast(pa.float64()).fill_null(np.nan)
    except pa.ArrowInvalid:
        return np.full(len(texts), np.nan)
    return numbers.to_numpy(zero_copy_only=False)


def _from_text(texts: pa.Array) -> np.ndarray:
    """Seconds since 1970 of ISO 8601 texts, float64 [rows]; NaN for other text. A time without a zone is UTC."""
    parsed = pd.to_datetime(pd.Series(texts.to_pylist(), dtype=object), format="ISO8601", utc=True, errors="coerce")
    seconds = parsed.to_numpy("datetime64[us]").astype(np.int64) / 1e6
    return np.where(parsed.isna(), np.nan, seconds)
