"""The versions in a model's folder, and what a client reads of one. Imports no TensorFlow."""

from pathlib import Path

from vae_cf_tf.errors import UserError

_LARGEST = 2**63 - 1  # TF Serving reads a version's name as an int64


def version_in(folder: Path) -> Path:
    """`folder` where it is a SavedModel, else its newest version.

    Raises:
      UserError: there is neither.
    """
    version = folder if is_saved_model(folder) else newest_version(folder)
    if version is None:
        raise UserError(f"{folder} is no SavedModel and holds no version of one. Give what export.main wrote.")
    if not is_saved_model(version):
        raise UserError(f"{version} is the newest version but holds no saved_model.pb. Complete or remove it.")
    return version


def newest_version(folder: Path) -> Path | None:
    """The subfolder that TF Serving would take: of the largest number from 0 to 2⁶³ − 1. None where there is none."""
    found = [path for path in folder.iterdir() if _is_version(path)] if folder.is_dir() else []
    return max(found, key=lambda path: int(path.name), default=None)


def _is_version(path: Path) -> bool:
    name = path.name
    return name.isascii() and name.isdecimal() and len(name) < 20 and int(name) <= _LARGEST and path.is_dir()


def is_saved_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file()


def item_ids(version: Path) -> frozenset[str]:
    """The item ids of a version's catalogue."""
    path = version / "assets" / "item_ids.txt"
    try:
        with open(path, encoding="utf-8", newline="\n") as file:  # an id may hold any other line separator
            return frozenset(line.rstrip("\n") for line in file)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read. Give a SavedModel that export.main wrote.") from error


def count_ids(history: list[str], known: frozenset[str]) -> tuple[int, int]:
    """How many ids a history has, and how many of them the catalogue lacks. "" is padding and no id."""
    ids = len(history) - history.count("")
    return ids, ids - sum(map(known.__contains__, history))


def unknown_line(ids: int, unknown: int) -> str:
    """Says how many ids of the histories, repeats included, are not in the catalogue."""
    share = f", of which {unknown:,} ({unknown / ids:.2%}) are not in the catalogue" if ids else ""
    return f"Ids in the histories: {ids:,}{share}."
