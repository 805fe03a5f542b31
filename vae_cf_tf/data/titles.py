"""Item titles, from the small files that lie beside a log."""

import csv
from pathlib import Path

from vae_cf_tf.data.tables import open_bytes, user_errors
from vae_cf_tf.errors import UserError

_NAMES = ("movies.csv", "movies.dat", "u.item", "movie_titles.txt", "movie_titles.csv")
_TITLE_COLUMNS = ("title", "name", "movietitle", "itemtitle", "itemname", "booktitle")


def titles_beside(folder: Path) -> dict[str, str]:
    """The titles of the public data sets' own files in `folder`, {} where there is none of them."""
    return next((read_titles(folder / name) for name in _NAMES if (folder / name).is_file()), {})


def read_titles(path: Path) -> dict[str, str]:
    """Reads item titles.

    Knows MovieLens' movies.dat (`id::title::…`) and u.item (`id|title|…`), Netflix' movie_titles (`id,year,title`,
    where the title may hold commas), and any CSV or TSV with the id in its first column and a column named title (or
    else the title in its second). Text that is not UTF-8 is taken as Latin-1, which those of 2009 and before are in.

    Returns: item id -> title. Lines with fewer columns are left out.
    Raises: UserError for a file that is missing, or in which no title is found.
    """
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
        try:
            rows = list(csv.reader(lines, delimiter="\t" if "\t" in first else ","))
        except csv.Error as e:
            raise UserError(f"{path}: no item titles can be read from it ({e}); give a CSV or TSV: id, title") from e
        names = ["".join(c for c in name.lower() if c.isalpha()) for name in (rows[0] if rows else [])]
        named = [names.index(name) for name in _TITLE_COLUMNS if name in names]
        if named:
            title, rows = named[0], rows[1:]
    titles = {row[0].strip(): row[title].strip() for row in rows if len(row) > title}
    if not titles:
        raise UserError(f"{path} holds no item titles; give a CSV or TSV with the id first and a title column")
    return titles
