"""Reading .npz files so that no damage goes unnoticed."""

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an uncompressed .npz by name. Each is read when it is asked for.

    An array is read to the end of its entry, because zipfile compares the checksum only there. NumPy alone stops early
    if damage has made the shape in the header smaller. Raises ValueError for a damaged entry.
    """

    def __init__(self, archive: zipfile.ZipFile):
        self.entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        self._archive = archive
        for entry in self.entries.values():
            archive.open(entry).close()  # compares its name with the one before its content
            if entry.compress_type or entry.file_size != entry.compress_size or entry.comment:
                raise ValueError(f"{entry.filename} is not as it was written")

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        with _damage_told(), self._archive.open(entry) as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                raise ValueError(f"{entry.filename} is longer than its array")
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Arrays]:
    """The arrays of a file that `np.savez` or `checkpoints.save` wrote.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged; also raised where an array is read.
    """
    with contextlib.ExitStack() as stack:
        with _damage_told():
            archive = stack.enter_context(zipfile.ZipFile(path))
            arrays = Arrays(archive)
        yield arrays


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    """Turns what zipfile and NumPy raise for a damaged file, of many kinds, into a ValueError."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
