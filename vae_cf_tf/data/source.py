"""The files that a run's data comes from: recorded at its first start, compared at every later one."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_cf_tf.data.download import DATASETS
from vae_cf_tf.data.formats import source_files
from vae_cf_tf.data.split import Split
from vae_cf_tf.data.synthetic import EMBEDDED
from vae_cf_tf.data.text import user_errors
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import DataSettings


def describe(settings: DataSettings) -> dict[str, Any]:
    """The data that the settings name, as JSON can hold it. Reads all files once, for their hash.

    Returns: name: what the data is called, no path of this machine; files: name, size in bytes and mtime_ns of each
        file, none for an embedded or a downloaded data set; content: a hash, or the version of such a data set.
    Raises: UserError where the data is missing.
    """
    files = _files(settings)
    return {
        "name": _name(settings),
        "files": [_entry(path, root) for path, root in files],
        "content": _content(settings, [path for path, _ in files]),
    }


def of_memory(split: Split) -> dict[str, Any]:
    """As `describe`, for data that came from memory and not from files."""
    return {"name": "data from memory", "files": [], "content": f"split:{split.fingerprint()}"}


def difference(stored: Mapping[str, Any], settings: DataSettings, moved: bool = False) -> str | None:
    """What has changed in the data since `describe` gave `stored`: one line, or None for the same data.

    Files of the same names, sizes and times are the same; others are read and compared by their hash. Also None if
    the data no longer exists: a workdir has its own copy, or names the prepared data set (`ShardedSplit`).

    Args:
      moved: whether the settings name another place than before.

    Raises: UserError if `moved` and the data does not exist.
    """
    try:
        files = _files(settings)
        now = [_entry(path, root) for path, root in files]
        if stored["files"] and stored["files"] == now:
            return None
        before, after = ({file["name"]: file["size"] for file in entries} for entries in (stored["files"], now))
        same_sizes = sorted(before.values()) == sorted(after.values())
        if same_sizes and stored["content"] == _content(settings, [path for path, _ in files]):
            return None
    except UserError:
        if moved:
            raise
        return None
    for name in before:
        if after.get(name, before[name]) != before[name]:
            return f"{name} had {before[name]:,} bytes and has {after[name]:,}"
    if set(before) != set(after) or stored["name"] != _name(settings):
        return f"the data was {_told(stored['name'], before)} and is {_told(_name(settings), after)}"
    times = {file["name"]: file["mtime_ns"] for file in stored["files"]}
    changed = [file["name"] for file in now if times[file["name"]] != file["mtime_ns"]]
    return f"the content of {', '.join(changed[:3]) or stored['name']} has changed (the size is the same)"


def _name(settings: DataSettings) -> str:
    if settings.data:
        return Path(settings.data).resolve().name
    return settings.dataset or EMBEDDED


def _files(settings: DataSettings) -> list[tuple[Path, Path]]:
    """The files and the folder that their names are relative to."""
    if not settings.data:
        return []
    root = Path(settings.data)
    return [(path, root if root.is_dir() else root.parent) for path in source_files(settings.data)]


def _entry(path: Path, root: Path) -> dict[str, Any]:
    with user_errors(path):
        status = path.stat()
    return {"name": path.relative_to(root).as_posix(), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _content(settings: DataSettings, files: Sequence[Path]) -> str:
    if not files:
        return f"md5:{DATASETS[settings.dataset]}" if settings.dataset else EMBEDDED
    digest = hashlib.sha256()
    for path in files:
        with user_errors(path), open(path, "rb") as f:
            digest.update(hashlib.file_digest(f, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def _told(name: str, sizes: Mapping[str, int]) -> str:
    names = list(sizes)
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return f"{name} ({names[0]}{more})" if names and names != [name] else name
