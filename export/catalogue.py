"""The item ids that a SavedModel knows, and how many ids of histories are not among them. Imports no TensorFlow."""

from pathlib import Path

from vae_cf_tf.errors import UserError


def item_ids(version: Path) -> frozenset[str]:
    """The item ids of a version's catalogue."""
    return frozenset(in_order(version))


def in_order(version: Path) -> list[str]:
    """The item ids of a version's catalogue: that of each column of `scores`."""
    path = version / "assets" / "item_ids.txt"
    try:
        with open(path, encoding="utf-8", newline="\n") as file:  # an id may hold any other line separator
            return [line.rstrip("\n") for line in file]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read. Give a SavedModel that export.main wrote.") from error


def count(history: list[str], known: frozenset[str]) -> tuple[int, int]:
    """How many ids a history has, and how many of them the catalogue lacks. "" is padding and no id."""
    ids = len(history) - history.count("")
    return ids, ids - sum(map(known.__contains__, history))


def unknown_line(ids: int, unknown: int) -> str:
    """Says how many ids of the histories, repeats included, are not in the catalogue."""
    share = f", of which {unknown:,} ({unknown / ids:.2%}) are not in the catalogue" if ids else ""
    return f"Ids in the histories: {ids:,}{share}."
