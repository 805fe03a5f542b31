"""The interaction log, as every format gives it and the split takes it."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Interactions:
    """An interaction log, coded: one row an event, in the order of the log.

    Examples:
        >>> log = Interactions(np.int32([0, 0, 1]), np.int32([0, 1, 1]), np.array(["ana", "bo"]), np.array(["7", "12"]))
        >>> log.item_ids[log.items[log.users == 0]].tolist()
        ['7', '12']
    """

    users: np.ndarray  # int32 [events], index into user_ids
    items: np.ndarray  # int32 [events], index into item_ids
    user_ids: np.ndarray  # str objects [users], raw ids in order of first appearance
    item_ids: np.ndarray  # str objects [items], likewise
    ratings: np.ndarray | None = None  # float32 [events], None where the log has no rating: every event counts
    titles: dict[str, str] = field(default_factory=dict)  # item id -> title, {} where unknown
    weights: np.ndarray | None = None  # float32 [events], at least 0, None where all are 1
    times: np.ndarray | None = None  # float64 [events], seconds since 1970, None where they are not known
