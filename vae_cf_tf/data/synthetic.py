"""Made-up data: the embedded data set, and bare logs and matrices of a data set's shape for benchmarks."""

import numpy as np
from scipy import sparse

from vae_cf_tf.data.interactions import Interactions

EMBEDDED = "the embedded data set, version 1"
"""What `synthetic_log(seed=0)` is called; another version makes other data."""
_GENRES = (
    *("Ambient", "Baroque", "Bluegrass", "Blues", "Bossa Nova", "Chanson", "Country", "Disco", "Dub", "Electro"),
    *("Fado", "Flamenco", "Folk", "Funk", "Gospel", "Grunge", "Hip-Hop", "House", "Jazz", "Klezmer", "Latin", "Metal"),
    *("Opera", "Polka", "Punk", "Ragtime", "Reggae", "Rock", "Salsa", "Samba", "Ska", "Soul", "Swing", "Tango"),
    *("Techno", "Zydeco"),
)
_GENRES_PER_COMMUNITY = 5
_BLOCK = 1 << 20  # interactions drawn at a time
_SCORES = 10_000_000  # of users and items at a time


def synthetic_log(
    seed: int = 0,
    users: int = 6000,
    items: int = 1500,
    communities: int = 12,
    mean_items: float = 40.0,
    own_taste: float = 0.7,
) -> Interactions:
    """A small music-like log with tastes to be found.

    Each item belongs to a genre and has a Zipf popularity. Each community of users likes a few genres, which
    communities share, and within a genre has favourites of its own. A user belongs to one community and likes its
    genres to a degree of his own; his number of items is log-normal, at least 5. Items are drawn without repeats from
    the resulting distribution. There are no ratings: every event counts.

    Args:
        mean_items: the mean number of a user's items, about.
        own_taste: how much users of a community differ: scale of the Gumbel noise that a user adds to the log-weight
            of each genre. 0: the community is all that there is to know of a user.

    Returns: the log, its events in random order, with titles such as "Jazz 012".
    """
    random = np.random.default_rng(seed)
    genres = min(len(_GENRES), 2 * communities, items)
    genre = np.sort(random.integers(genres, size=items))  # [items]
    genre[:genres] = np.arange(genres)  # none is empty
    genre.sort()
    popularity = random.permutation(1.0 / (10 + np.arange(items)) ** 0.8)  # [items]

    liking = np.full((communities, genres), 0.02)
    for community in range(communities):
        liked = random.permutation(genres)[:_GENRES_PER_COMMUNITY]
        liking[community, liked] += random.dirichlet(np.full(len(liked), 2.0))
    favourites = random.lognormal(0.0, 1.0, (communities, items))
    weight = np.log(liking[:, genre] * favourites * popularity).astype(np.float32)  # [communities, items]

    of_user = random.integers(communities, size=users)
    sigma = 0.8
    sizes = random.lognormal(np.log(max(mean_items - 5, 1)) - sigma**2 / 2, sigma, users)
    sizes = np.minimum(5 + sizes.astype(int), max(items // 3, 1))
    # The items with the largest log-weight + Gumbel noise are a sample without repeats.
    of_genres = random.gumbel(size=(users, genres)).astype(np.float32)
    step = max(1, _SCORES // items)
    chosen = []
    for start in range(0, users, step):
        some = slice(start, min(start + step, users))
        scores = of_genres[some][:, genre] * np.float32(own_taste)
        scores += weight[of_user[some]]
        scores += random.gumbel(size=scores.shape)
        top = np.argpartition(-scores, sizes.max() - 1, axis=1)[:, : sizes.max()]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
        top = np.take_along_axis(top, order, axis=1)
        chosen.append(top[np.arange(top.shape[1]) < sizes[some, None]].astype(np.int32))

    user_codes = np.repeat(np.arange(users, dtype=np.int32), sizes)
    events = random.permutation(len(user_codes))
    number = np.arange(items) - np.searchsorted(genre, genre) + 1  # within the genre
    item_ids = [f"song{i:04d}" for i in range(items)]
    titles = {
        item: f"{_GENRES[g]} {n:03d}" for item, g, n in zip(item_ids, genre.tolist(), number.tolist(), strict=True)
    }
    return Interactions(
        users=user_codes[events],
        items=np.concatenate(chosen)[events],
        user_ids=np.array([f"user{i:05d}" for i in range(users)], object),
        item_ids=np.array(item_ids, object),
        ratings=None,
        titles=titles,
    )


def synthetic_events(
    users: int, items: int, events: int, seed: int = 0, part: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """One part of a log of any size, without any taste in it: the user and the item of each event, in random order.

    A part is a function of the arguments alone, so a large log is made part by part. A pair may come more than once.
    Item i's popularity is that of `synthetic_matrix`; user u's activity is about proportional to u^-0.5.

    Returns: int64 [events], int64 [events].
    """
    random = np.random.default_rng([seed, part])
    return _popular(random.random(events), users, 0.5), _popular(random.random(events), items, 1.0)


def synthetic_matrix(
    users: int, items: int, interactions: int, seed: int = 0, zipf: float = 1.0, sigma: float = 1.0
) -> sparse.csr_matrix:
    """A users × items matrix of ones of a data set's shape, without any taste in it: for benchmarks.

    Item i's popularity is about proportional to (i + items/1000 + 1)^-zipf; the users' numbers of items are log-normal
    (`sigma`: of their logarithm), at least 1 and at most half of all items.

    Returns: csr, float32, [users, items], exactly `interactions` entries, sorted int32 indices.
    Raises: ValueError where so many do not fit.
    """
    most = max(items // 2, 1)
    if not users <= interactions <= users * most:
        raise ValueError(
            f"interactions should lie between users ({users}) and users × items/2 ({users * most}). "
            f"Received: {interactions}"
        )
    random = np.random.default_rng(seed)
    sizes = _sizes(random.lognormal(0.0, sigma, users), interactions, most)
    ends = np.cumsum(np.r_[0, sizes])
    indices = np.empty(interactions, np.int32)
    start = 0
    while start < users:
        stop = max(int(np.searchsorted(ends, ends[start] + _BLOCK, side="right")) - 1, start + 1)
        indices[ends[start] : ends[stop]] = _draw(random, sizes[start:stop], items, zipf)
        start = stop
    indptr = ends.astype(np.int32 if interactions < 2**31 else np.int64)
    return sparse.csr_matrix((np.ones(interactions, np.float32), indices, indptr), (users, items))


def _sizes(activity: np.ndarray, total: int, most: int) -> np.ndarray:
    """Numbers between 1 and `most`, about proportional to `activity`, that sum to `total`."""
    sizes = np.ones(len(activity), np.int64)
    # What the limit and the rounding leave over goes to those who still have room.
    while (rest := total - int(sizes.sum())) > 0:
        share = np.where(sizes < most, activity, 0.0)
        more = np.minimum((share * (rest / share.sum())).astype(np.int64), most - sizes)
        if not more.any():
            more = np.zeros_like(sizes)
            more[np.argsort(-share, kind="stable")[: min(rest, np.count_nonzero(share))]] = 1
        sizes += more
    return sizes


def _draw(random: np.random.Generator, sizes: np.ndarray, items: int, zipf: float) -> np.ndarray:
    """Draws sizes[u] distinct items for each user u: int32 [sum of sizes], sorted within a user."""
    lacking, keys = sizes, np.zeros(0, np.int64)  # key = user · items + item, sorted
    attempt = 0
    while lacking.any():
        owner = np.repeat(np.arange(len(sizes)), lacking)
        # From some round on items are drawn evenly: a heavy user has the popular ones already.
        item = _popular(random.random(len(owner)), items, zipf if attempt < 6 else 0.0)
        new = owner * items + item
        new.sort()
        new = new[np.diff(new, prepend=-1) > 0]
        place = np.searchsorted(keys, new)
        if len(keys):
            is_new = keys[np.minimum(place, len(keys) - 1)] != new
            place, new = place[is_new], new[is_new]
        keys = np.insert(keys, place, new)
        lacking = lacking - np.bincount(new // items, minlength=len(sizes))
        attempt += 1
    return (keys % items).astype(np.int32)


def _popular(uniform: np.ndarray, items: int, zipf: float) -> np.ndarray:
    """The items at these quantiles of a power law: the inverse of its continuous distribution function."""
    first, last = items / 1000 + 1, items + items / 1000 + 1
    if zipf == 1:
        x = first * (last / first) ** uniform
    else:
        power = 1 - zipf
        x = (first**power + uniform * (last**power - first**power)) ** (1 / power)
    return np.clip((x - first).astype(np.int64), 0, items - 1)
