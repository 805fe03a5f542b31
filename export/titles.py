"""assets.extra/titles.json: what a client prints for an item id."""

import json
from pathlib import Path

from vae_cf_tf.errors import UserError

NAME = "titles.json"


def write(path: Path, titles: dict[str, str]) -> None:
    path.write_text(json.dumps(titles, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def read(version: Path) -> dict[str, str]:
    """Item id -> title of a SavedModel version; {} where it has none."""
    path = version / "assets.extra" / NAME
    if not path.is_file():
        return {}
    try:
        titles = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}). Export the model again.") from error
    if not isinstance(titles, dict):
        raise UserError(f"{path} is damaged: it is no object of titles by item id. Export the model again.")
    return titles
