"""Cuts in time, and whether training holds events later than those it is judged on."""

import datetime
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import SplitSettings


class Cuts(NamedTuple):
    """Seconds since 1970: training ends before `validation`, validation targets before `test`; test targets follow."""

    validation: float
    test: float


def cuts(times: np.ndarray, settings: SplitSettings) -> Cuts:
    """Where a log is cut: at --cut, and so much earlier that as many events lie between the cuts as after them.

    The model, its epoch and its settings are then chosen by events that all lie before the test targets, as they would
    be on the day of the cut (Meng et al. 2020, arXiv 2007.13237; Sun et al. 2023).

    Args:
        times: float64 [events], of the events that count.
        settings: with a share or a date in `cut`.

    Raises: UserError where no event lies before, between or after the cuts.
    """
    ordered = np.sort(times)
    return cuts_of(
        len(ordered),
        lambda index: float(ordered[index]),
        lambda moment: int(np.searchsorted(ordered, moment)),
        settings,
    )


def cuts_of(events: int, at: Callable[[int], float], before: Callable[[float], int], settings: SplitSettings) -> Cuts:
    """As `cuts`, of times that need not be in memory.

    Args:
        events: how many there are.
        at: gives the time of an event by its number from 0 in the order of time.
        before: gives how many events are earlier than a moment.
        settings: as in `cuts`.
    """
    share, cut = settings.cut_share, settings.cut_time
    if share is not None:
        cut = at(min(int(share * events), events - 1))
    assert cut is not None
    earlier = before(cut)
    after = events - earlier
    first, last = at(0), at(events - 1)
    span = f"the events that count are from {as_text(first)} to {as_text(last)}"
    if not 0 < earlier < events:
        side = "before" if after else "after"
        raise UserError(f"--cut={settings.cut} leaves no event {side} it: {span}; give another cut")
    validation = at(max(earlier - after, 0))
    if not first < validation < cut:
        raise UserError(
            f"--cut={settings.cut} leaves too few events before it for training and validation ({earlier:,} before, "
            f"{after:,} after): {span}; give a later cut"
        )
    return Cuts(validation, cut)


def as_text(seconds: float) -> str:
    """The moment in ISO 8601, UTC; to the second where it is whole."""
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=float(seconds))
    return moment.isoformat().replace("+00:00", "Z")


def later_events(train: np.ndarray | None, targets: np.ndarray | None) -> dict[str, Any]:
    """What metrics.json says of the order in time of training and of test targets.

    Args:
        train, targets: float64 [events], seconds; None where the log has no times.

    Returns: training_has_later_events: whether any training event is later than a target, None if unknown;
        training_later_share: the share of training events that are later than a target, a mean over targets.
    """
    if train is None or targets is None or not len(train) or not len(targets):
        return {"training_has_later_events": None, "training_later_share": None}
    later = len(train) - np.searchsorted(np.sort(train), targets, side="right")
    return {
        "training_has_later_events": bool(later.any()),
        "training_later_share": float(later.mean() / len(train)),
    }
