"""Which users are held out, where that must not change as the log grows."""

import hashlib

import numpy as np

_SHARE, _MOST = 0.1, 10_000
"""Share of the users in each held-out part; it is halved while that would be more than so many users."""


def by_hash(users: np.ndarray, ids: np.ndarray, seed: int) -> list[np.ndarray]:
    """The training, validation and test users among `users`, each in their order.

    A user's part follows from h, a number in [0, 1) that depends on id and seed alone: test below the share, validation
    from 1 − share. Where a growing log halves the share, some who were held out become training users, and never the
    other way round.

    Args:
      users: codes.
      ids: raw id of each code.
      seed: of the hash.
    """
    share = _SHARE
    while share * len(users) > _MOST:
        share /= 2
    key = str(seed).encode()
    digests = (hashlib.blake2b(ids[user].encode(), digest_size=6, key=key).digest() for user in users.tolist())
    h = np.fromiter((int.from_bytes(digest) / 2**48 for digest in digests), np.float64, len(users))
    is_test, is_validation = h < share, h >= 1 - share
    return [users[~is_test & ~is_validation], users[is_validation], users[is_test]]
