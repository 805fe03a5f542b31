"""Which columns of a table are user, item and rating."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vae_cf_tf.data.events import id_fault
from vae_cf_tf.data.formats.base import ReaderOptions
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.text import number_fault, shown, weight_fault
from vae_cf_tf.data.times import time_fault
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say

# Usual names, in lower case without punctuation; earlier ones are preferred.
_USUAL = {
    "user": (*("userid", "user", "uid", "customerid", "customer", "reviewerid", "profileid", "memberid", "visitorid"),),
    "item": (
        *("itemid", "item", "iid", "movieid", "movie", "sid", "songid", "song", "trackid", "track", "artistid"),
        *("artist", "productid", "product", "parentasin", "asin", "bookid", "isbn", "businessid", "articleid"),
        *("showid", "animeid"),
    ),
    "rating": (
        *("rating", "ratings", "userrating", "starrating", "stars", "star", "score", "userscore", "overall"),
        *("bookrating", "movierating", "itemrating", "productrating", "reviewrating", "reviewscore", "ratingscore"),
        *("ratingvalue", "rate"),
    ),
    "timestamp": (
        *("timestamp", "timestamps", "ts", "unixtimestamp", "unixtime", "unixreviewtime", "eventtimestamp"),
        *("eventtime", "datetime", "time", "date", "createdat", "createdon", "created", "eventdate", "ratingtime"),
        *("ratingdate", "reviewtime", "reviewdate"),
    ),
    "weight": (),  # only where it is named
}


BOOLEANS = ("true", "false")


@dataclass(frozen=True)
class Columns:
    """Which columns, by index, are what."""

    names: Sequence[str]  # of all columns
    user: int
    item: int
    rating: int | None
    header: bool = True  # whether the names stand in the file
    time: int | None = None
    weight: int | None = None
    rating_is_bool: bool = False  # in a text file: true and false rather than numbers
    time_is_text: bool = False  # in a text file: ISO 8601 rather than numbers

    @functools.cached_property
    def ids(self) -> tuple[str, str] | None:
        """The names of the user and the item column, as the header line has them; None without one."""
        return (self.names[self.user].strip(), self.names[self.item].strip()) if self.header else None

    @property
    def roles(self) -> dict[str, int]:
        """The index of each column that is read, by what it is."""
        found = {"user": self.user, "item": self.item, "rating": self.rating, "weight": self.weight, "time": self.time}
        return {role: i for role, i in found.items() if i is not None}

    def told(self, threshold: float) -> str:
        """What is taken from which column, what a rating is made of, and what is not used."""
        names = [shown(name.strip())[1:-1] or "(no name)" for name in self.names]
        roles = self.roles
        taken = {role: f"{role} = {names[i]}" for role, i in roles.items()}
        more = [taken.pop(role) for role in ("weight", "time") if role in taken]
        counts = "no rating column: every event counts" if self.rating is None else f"{threshold:g} or more counts"
        unused = [name for i, name in enumerate(names) if i not in roles.values()]
        rest = ", …" if len(unused) > 12 else ""
        told = ", ".join([*taken.values(), counts, *more])
        return told + (f"; not used: {', '.join(unused[:12])}{rest}" if unused else "") + "."

    def fault(self, fields: Sequence[str]) -> str | None:
        """What is wrong with a record's fields, or None."""
        user, item = fields[self.user], fields[self.item]
        if self.ids == (user.strip(), item.strip()):
            return "the header line stands here again"
        wrong = id_fault("user", user) or id_fault("item", item)
        if wrong is None and self.rating is not None:
            wrong = self._rating_fault(fields[self.rating])
        if wrong is None and self.weight is not None:
            wrong = weight_fault(fields[self.weight])
        if wrong is None and self.time is not None:
            wrong = time_fault(fields[self.time], self.time_is_text)
        return wrong

    def _rating_fault(self, text: str) -> str | None:
        if not self.rating_is_bool:
            return number_fault(text, "rating")
        is_sound = text.strip(" \t").lower() in (*BOOLEANS, "0", "1")
        return None if is_sound else f"the rating is {shown(text)}, not true or false"

    def is_record(self, fields: Sequence[str]) -> bool:
        """Whether these fields are an event and probably not one line of a longer quoted text. Without a rating column,
        ids with blanks are taken for text, since in text a blank follows a comma."""
        ids = fields[self.user] + fields[self.item]
        return self.fault(fields) is None and (self.rating is not None or not re.search(r"\s", ids))


def matches(names: Sequence[str], options: ReaderOptions) -> dict[str, list[int]]:
    """By role: indices of the columns with the name that the options give, or with the first usual name found."""
    # "user_id:token" is RecBole's way to write a type.
    plain = [re.sub(r"[^a-z]", "", name.lower().partition(":")[0]) for name in names]
    lower = [name.strip().lower() for name in names]
    found = {}
    for role, usual in _USUAL.items():
        name = getattr(options, f"{role}_column")
        if name:
            exact = [i for i, other in enumerate(names) if other == name]
            found[role] = exact or [i for i, other in enumerate(lower) if other == name.strip().lower()]
        else:
            first = next((plain.index(u) for u in usual if u in plain), None)
            # "rating" and "rating2" are two names, "rating" and "Rating" one.
            found[role] = [] if first is None else [i for i, other in enumerate(lower) if other == lower[first]]
    return found


def columns_of(path: Path | str, names: Sequence[str], options: ReaderOptions) -> Columns:
    """The columns, by the options' names or by the usual ones.

    Raises: UserError for a column that is missing, or of which there are two, or that would be two things.
    """
    found = f"Found: {', '.join(shown(n)[1:-1] for n in names[:20])}"
    if len(names) < 2:
        raise UserError(f"{path} has a single column; give CSV, TSV or `::` with a user and an item column. {found}")
    places = matches(names, options)
    for flag, name in options.named.items():
        if not places[flag.removesuffix("_column")]:
            raise UserError(f"{path} has no column named by --{flag}={name}. {found}")
    missing = [role for role in ("user", "item") if not places[role]]
    if missing:
        if len(missing) == 2 and any(number_fault(name, "") is None for name in names):
            wrong = "seems to have no header line; put one first, such as userId,itemId,rating, and"
        else:
            wrong = f"has no {' and '.join(missing)} column of a usual name;"
        raise UserError(f"{path} {wrong} name its columns with --user_column, --item_column, --rating_column. {found}")
    if not options.timestamp_column:
        places["timestamp"] = places["timestamp"][:1]  # two of a usual name are no error where none was asked for
    for role, indices in places.items():
        if len(indices) > 1:
            raise UserError(
                f"{path} has {len(indices)} columns named {names[indices[0]].strip()}; rename or drop all but one, "
                f"or name another with --{role}_column. {found}"
            )
    user, item = places["user"][0], places["item"][0]
    rating = places["rating"][0] if places["rating"] else None
    if len({user, item, rating}) < 3:
        raise UserError(f"{path}: user, item and rating must be three columns, not the same one twice. {found}")
    weight = places["weight"][0] if places["weight"] else None
    if weight in {user, item}:
        raise UserError(f"{path}: --weight_column={options.weight_column} is the user or the item column. {found}")
    time = places["timestamp"][0] if places["timestamp"] else None
    if time in {user, item, rating, weight}:
        if options.timestamp_column:
            raise UserError(f"{path}: --timestamp_column={options.timestamp_column} is another column already. {found}")
        time = None
    if time is None and options.needs_times:
        raise UserError(f"{path} has no column of times of a usual name; name it with --timestamp_column. {found}")
    return Columns(names, user, item, rating, time=time, weight=weight)


def read_with_times(
    read: Callable[[Columns], Interactions], columns: Columns, options: ReaderOptions, say: Say
) -> Interactions:
    """What `read` gives for these columns. Times that nobody asked for and that cannot be read are left out, with a
    line that says so.

    Raises: UserError as `read` does.
    """
    try:
        return read(columns)
    except UserError as e:
        if columns.time is None or options.asks_for_times:
            raise
        data = read(replace(columns, time=None))
        say(f"The times are left out: {e}")
        return data
