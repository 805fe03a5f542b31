"""Item titles, from the small files that lie beside a log."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from vae_cf_tf.data.events import clean_ids
from vae_cf_tf.data.text import open_bytes, user_errors
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say

NAMES = ("movies.csv", "movies.dat", "u.item", "movie_titles.txt", "movie_titles.csv")
TITLE_COLUMNS = ("title", "name", "movietitle", "itemtitle", "itemname", "booktitle")


def beside(folder: Path, item_ids: Sequence[str] | np.ndarray, say: Say) -> dict[str, str]:
    """The titles of these items from a public data set's own file in `folder`; {} and a line where it is of no use."""
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        return read_matching(path, item_ids)
    except UserError as e:
        say(f"No titles: {e}")
        return {}


def read_matching(path: Path, item_ids: Sequence[str] | np.ndarray) -> dict[str, str]:
    """Reads the titles of these items. Raises UserError as `read_titles` and `matching` do."""
    try:
        return matching(read_titles(path), item_ids)
    except _NoMatch as e:
        raise UserError(f"{path}: {e}") from e


class _NoMatch(UserError):
    """No title is that of an item."""


def matching(titles: Mapping[str, str], item_ids: Sequence[str] | np.ndarray) -> dict[str, str]:
    """The titles of these items: item id -> title. Raises UserError if there are titles, but none of these items."""
    cleaned = clean_ids(pa.array(item_ids, pa.string())).to_pylist()
    found = {str(item): titles[key] for item, key in zip(item_ids, cleaned, strict=True) if key in titles}
    if titles and not found:
        raise _NoMatch(
            f"none of the {len(titles):,} ids with a title is an item's: they are such as {next(iter(titles))!r}, "
            f"items such as {str(item_ids[0])!r}; the first column should hold the item ids"
        )
    return found


def read_titles(path: Path) -> dict[str, str]:
    """Reads item titles.

    Knows MovieLens' movies.dat (`id::title::…`) and u.item (`id|title|…`), Netflix' movie_titles (`id,year,title`,
    where the title may hold commas), and any CSV, TSV or text separated by semicolons with the id in its first column
    and a column named title (or else the title in its second). Text that is not UTF-8 is taken as Latin-1, which those
    of 2009 and before are in.

    Returns: item id -> title, both without surrounding blanks. Lines with fewer columns are left out.
    Raises: UserError for a file that is missing, or in which no title is found.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a folder or a pipe; a file of item titles is needed")
    with user_errors(path), open_bytes(path) as f:
        raw = f.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    lines = text.replace("\r\n", "\n").split("\n")
    first = lines[0]
    title = 1
    if path.name.startswith("movie_titles"):
        rows, title = [line.split(",", 2) for line in lines], 2
    elif "::" in first:
        rows = [line.split("::") for line in lines]
    elif "|" in first and path.name == "u.item":
        rows = [line.split("|") for line in lines]
    else:
        # The separator is the first that follows the id.
        separator = re.match(r'(?:"[^"]*"|[^"\t,;|])*([\t,;|])', first)
        try:
            rows = list(csv.reader(lines, delimiter=separator[1] if separator else ","))
        except csv.Error as e:
            raise UserError(f"{path}: no item titles can be read from it ({e}); give a CSV or TSV: id, title") from e
        names = ["".join(c for c in name.lower() if c.isalpha()) for name in (rows[0] if rows else [])]
        named = [names.index(name) for name in TITLE_COLUMNS if name in names]
        if named:
            title, rows = named[0], rows[1:]
    rows = [row for row in rows if len(row) > title and row[0].strip()]
    if not rows:
        raise UserError(f"{path} holds no item titles; give a CSV or TSV with the id first and a title column")
    ids = clean_ids(pa.array([row[0] for row in rows], pa.string())).to_pylist()
    return {item: row[title].strip() for item, row in zip(ids, rows, strict=True)}
