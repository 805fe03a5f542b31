"""The forms of data that `--data` takes: the registry, and the way from a path to what is read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vae_cf_tf.data import frames, titles
from vae_cf_tf.data.events import BadEvent, NoEvents
from vae_cf_tf.data.formats.base import Format, ReaderOptions
from vae_cf_tf.data.formats.delimited import Delimited
from vae_cf_tf.data.formats.million_song import MillionSong
from vae_cf_tf.data.formats.movielens import MovieLens
from vae_cf_tf.data.formats.netflix import Netflix
from vae_cf_tf.data.formats.parquet import Parquet
from vae_cf_tf.data.formats.prepared import PreparedSet
from vae_cf_tf.data.formats.presplit import PreSplit
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.split import Split
from vae_cf_tf.data.text import user_errors
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say, silent

__all__ = ["FORMATS", "Format", "ReaderOptions", "read", "register", "source_files"]

_DEFAULT = ReaderOptions()
FORMATS: list[Format] = [PreparedSet(), PreSplit(), Parquet(), Netflix(), MovieLens(), MillionSong(), Delimited()]
"""The known formats; the first that takes a path reads it."""


def register(format: Format) -> None:
    """Adds a format, which is asked before the known ones.

    Example:
        class JsonLines(Format):
            accepts = "*.jsonl"

            def sniff(self, path):
                return path.suffix == ".jsonl"

            def in_folder(self, folder):
                return sorted(folder.glob("*.jsonl"))

            def read(self, files, options, say):
                events = [json.loads(line) for path in files for line in path.open()]
                log = EventLog()
                log.add(pa.array([e["user"] for e in events]), pa.array([e["item"] for e in events]))
                return log.interactions()

        register(JsonLines())
    """
    FORMATS.insert(0, format)


def read(path: Any, options: ReaderOptions = _DEFAULT, say: Say = silent) -> Interactions | Split:
    """Reads a data set.

    Args:
        path: a file or a folder in one of the forms that docs/data.md lists; or a data frame, see `frames.read`.
        say: is told which files are read, and what is taken from them.

    Returns: a Split where `path` is a folder that is split already, otherwise Interactions.
    Raises: UserError, one line that names the file, and the line where one is wrong.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.csv"
        >>> _ = path.write_text("user,item\\nana,7\\nbo,7\\nana,12\\n")
        >>> log = read(str(path))
        >>> log.user_ids.tolist(), log.item_ids[log.items].tolist()
        (['ana', 'bo'], ['7', '7', '12'])
    """
    if frames.is_frame(path):
        log = frames.read(path, options, say)
        found = titles.read_matching(Path(options.item_titles), log.item_ids) if options.item_titles else {}
        return replace(log, titles=found)
    format, files, folder = _found(path, options)
    name = files[0] if len(files) == 1 else path
    try:
        data = format.read(files, options, say)
    except BadEvent as e:
        raise UserError(f"{name}, row {e.row + 1}: {e}; correct or drop the row") from e
    except NoEvents as e:
        raise UserError(f"{name} holds no rows; give a file with interactions") from e
    if options.item_titles:
        found = titles.read_matching(Path(options.item_titles), data.item_ids)
    else:
        found = titles.beside(folder, data.item_ids, say)
    return replace(data, titles=found or data.titles)


def source_files(path: str) -> list[Path]:
    """The files that `read` reads events from. Raises UserError for a path of no known format."""
    return locate(Path(path))[1]


def _found(path: str, options: ReaderOptions) -> tuple[Format, list[Path], Path]:
    format, files, folder = locate(Path(path))
    if options.named and not format.has_column_names:
        flags = " and ".join(f"--{flag}={name}" for flag, name in options.named.items())
        raise UserError(f"{path} has no column names, so {flags} means nothing here; leave it out")
    return format, files, folder


def locate(place: Path, depth: int = 0) -> tuple[Format, list[Path], Path]:
    """The format of a path, the files that it is read from, and the folder in which they were found."""
    if not place.exists():
        raise UserError(f"there is no file or folder {place}; check --data")
    if not place.is_dir() and not place.is_file():
        raise UserError(f"{place} is no regular file but a pipe or a device; a file is needed: write the data into one")
    with user_errors(place):
        for format in FORMATS:
            if files := format.files(place):
                return format, files, place if place.is_dir() else place.parent
        names = sorted(entry.name for entry in place.iterdir())
    inner = [place / name for name in names if (place / name).is_dir()]
    # An archive unpacked into a folder of its own holds one folder.
    if len(inner) == 1 and depth < 2:
        return locate(inner[0], depth + 1)
    holds = ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"
    packed = any(name.endswith((".zip", ".tar", ".tgz", ".tar.gz")) for name in names)
    hint = "; unpack the archive first" if packed else ""
    accepted = ", ".join(format.accepts for format in reversed(FORMATS))
    raise UserError(f"{place} is no data set known here{hint}: it holds {holds}. It should hold one of: {accepted}")
