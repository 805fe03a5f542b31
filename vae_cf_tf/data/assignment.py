"""Which users are held out, where that must not change as the log grows."""

import hashlib
from fractions import Fraction

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


def md5_of(seed: int, *ids: str) -> str:
    """32 hexadecimal digits of the seed and the ids: md5 of "seed:id:id" as UTF-8, which SQL engines have too."""
    return hashlib.md5(":".join((str(seed), *ids)).encode(), usedforsecurity=False).hexdigest()


def bounds(share: float) -> tuple[str, str]:
    """Where test ends and validation begins, among the values of `md5_of`, which are compared as text."""
    below = int(Fraction(str(float(share))) * 2**128)
    return f"{below:032x}", f"{2**128 - below:032x}"


def by_md5(users: np.ndarray, ids: np.ndarray, seed: int, share: float) -> list[np.ndarray]:
    """The training, validation and test users among `users`, each in the order of `md5_of` their ids.

    A user's part is a function of id, seed and share alone: test where the value, as a number in [0, 1), is below the
    share, validation from 1 − share. In `by_hash` it also depends on the number of users.

    Args:
      users: codes.
      ids: raw id of each code.
      seed: of `md5_of`.
      share: of the users, held out for each of validation and test.
    """
    users = in_md5_order(users, ids, seed)
    h = np.array([md5_of(seed, str(ids[user])) for user in users.tolist()], object)
    test, validation = (int(np.searchsorted(h, bound)) for bound in bounds(share))
    return [users[test:validation], users[validation:], users[:test]]


def in_md5_order(users: np.ndarray, ids: np.ndarray, seed: int) -> np.ndarray:
    """The codes of users in the order of `md5_of` their ids."""
    return np.array(sorted(users.tolist(), key=lambda user: (md5_of(seed, str(ids[user])), ids[user])), users.dtype)
