"""assets.extra/titles.json: what a client prints for an item id."""

import json
from pathlib import Path

NAME = "titles.json"


def write(path: Path, titles: dict[str, str]) -> None:
    path.write_text(json.dumps(titles, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def read(version: Path) -> dict[str, str]:
    """Item id -> title of a SavedModel version; {} where it has none."""
    path = version / "assets.extra" / NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
