"""What a data format is."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.split import Split
from vae_cf_tf.say import Say

_LOG_NAMES = tuple(
    name + ending
    for name in ("ratings", "interactions")
    for ending in (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".dat", ".dat.gz")
) + ("u.data", "u.data.gz")

COLUMN_FLAGS = ("user_column", "item_column", "rating_column", "timestamp_column", "weight_column")


@dataclass(frozen=True)
class ReaderOptions:
    """How to read a log."""

    user_column: str = ""  # "" finds the usual names
    item_column: str = ""
    rating_column: str = ""
    item_titles: str = ""  # path of a CSV or TSV: ids in its first column, titles in the one named title, or its second
    threshold: float = 4.0  # the rating from which an event counts; it is only told, the split applies it
    timestamp_column: str = ""  # "" finds the usual names
    weight_column: str = ""  # "": none
    needs_times: bool = False  # whether a log without readable timestamps is an error
    train_from: str = "memory"  # or "shards": the training users of a prepared data set stay on the disk

    @property
    def asks_for_times(self) -> bool:
        """Whether times that cannot be read are an error; otherwise they are left out."""
        return bool(self.timestamp_column) or self.needs_times

    @property
    def named(self) -> dict[str, str]:
        """The columns that are named, by their flag."""
        flags = {name: getattr(self, name) for name in COLUMN_FLAGS}
        return {flag: name for flag, name in flags.items() if name}


def parts_in(folder: Path) -> list[Path]:
    """The files of a folder and of its hive partitions (folders such as day=3), in order of their paths; without names
    that begin with a dot or an underscore, which Spark and others write beside the data."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_file():
            found.append(path)
        elif "=" in path.name and path.is_dir():
            found += parts_in(path)
    return found


class Format(abc.ABC):
    """One form of data: which files are of it, and how they are read.

    A format is a subclass, and an instance of it in the registry: `formats.register(MyFormat())`.
    """

    accepts: str
    """What `--data` may be, for the message about a folder of no known format, such as "ratings.dat"."""
    has_column_names = True
    """Whether --user_column, --item_column and the like mean anything here."""

    @abc.abstractmethod
    def sniff(self, path: Path) -> bool:
        """Whether this file is of the format, by its content. Raises UserError for a file that none can read."""

    @abc.abstractmethod
    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Interactions | Split:
        """Reads the files.

        Args:
            files: what `files` found.
            say: is told which files are read, and what is taken from them.

        Returns: a Split if the data is split already.
        Raises: UserError, one line that names the file, and the line where one is wrong; BadEvent for a row without a
            line, and NoEvents, as `EventLog` does.
        """

    def in_folder(self, folder: Path) -> list[Path]:
        """The files of this format in a folder without a log of a usual name (ratings.csv and the like)."""
        return []

    def files(self, path: Path) -> list[Path]:
        """The files that a file or a folder of this format is read from; [] where it is of another format."""
        if path.is_dir():
            log = next((path / name for name in _LOG_NAMES if (path / name).is_file()), None)
            files = [log] if log else self.in_folder(path)
        else:
            files = [path]
        return files if files and self.sniff(files[0]) else []
