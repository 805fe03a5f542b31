"""The numbered folders of a model's versions: finding them, and writing one whole or not at all."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vae_cf_tf import files
from vae_cf_tf.errors import UserError

_LARGEST = 2**63 - 1  # that TensorFlow Serving counts
_UNFINISHED = ".unfinished-"  # no number, so no version to a server that watches the folder
_GLOB = "[]*?\\"
"""Characters that TensorFlow takes for a pattern when it looks for a SavedModel's variables."""


def check_place(export_dir: Path) -> None:
    """Raises UserError for a folder from which TensorFlow could not load a SavedModel."""
    path = str(export_dir.resolve())
    if bad := [c for c in _GLOB if c in path]:
        raise UserError(
            f"The path {path} holds {bad[0]!r}, which TensorFlow takes for a pattern: a model there could not be "
            "loaded. Give another --export_dir, or another --workdir."
        )


def of(folder: Path) -> list[Path]:
    """The versions in a model's folder, as TensorFlow Serving counts them, the newest first."""
    if not folder.is_dir():
        return []
    numbered = [path for path in folder.iterdir() if re.fullmatch(r"[0-9]+", path.name) and path.is_dir()]
    return sorted((p for p in numbered if int(p.name) <= _LARGEST), key=lambda path: -int(path.name))


def next_number(folder: Path) -> int:
    """The number of the next version.

    Raises:
      UserError: there is none.
    """
    newest = next((int(path.name) for path in of(folder)), 0)
    if newest == _LARGEST:
        raise UserError(f"{folder} holds the version {newest}, after which none can come. Remove it.")
    return newest + 1


def newest_in(folder: Path) -> Path:
    """`folder` where it is a SavedModel, else its newest version.

    Raises:
      UserError: there is neither.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    if not (numbered := of(folder)):
        raise UserError(f"{folder} is no SavedModel and holds no version of one. Give what export.main wrote.")
    return numbered[0]


@contextlib.contextmanager
def made_aside(export_dir: Path) -> Iterator[Path]:
    """A new folder in `export_dir` to build in, removed afterwards. First removes what killed exports left there."""
    is_new = not export_dir.exists()
    with contextlib.ExitStack() as held:
        with _exclusive(export_dir):  # no other export takes the new folder for a left one
            _remove_left(export_dir)
            aside = Path(tempfile.mkdtemp(dir=export_dir, prefix=_UNFINISHED))
            held.enter_context(files.locked(aside, "an export is at work here"))
        try:
            yield aside
        finally:  # what cannot be removed now, the next export removes
            with contextlib.suppress(OSError), _exclusive(export_dir):
                shutil.rmtree(aside, ignore_errors=True)
                if is_new and set(os.listdir(export_dir)) <= {files.LOCK}:  # nothing was published: leave nothing
                    shutil.rmtree(export_dir, ignore_errors=True)


def remove_left(export_dir: Path) -> None:
    """Removes what killed exports left in the folder of versions."""
    with _exclusive(export_dir):
        _remove_left(export_dir)


def _remove_left(export_dir: Path) -> None:
    for left in export_dir.glob(f"{_UNFINISHED}*"):
        # An export is at work there, or has just ended.
        with (
            contextlib.suppress(UserError, FileNotFoundError),
            files.locked(left, "an export is at work here", create=False),
        ):
            shutil.rmtree(left)


def keep_newest(export_dir: Path, count: int) -> list[Path]:
    """Removes all but the newest `count` versions; returns those that were there.

    Each is renamed aside first, so that a server sees it whole or not at all. A killed process leaves it aside for the
    next export to remove.
    """
    with _exclusive(export_dir):  # no export that has just begun takes it for a left one, and none publishes meanwhile
        old = of(export_dir)[max(count, 1) :]
        for version in old:
            aside = Path(tempfile.mkdtemp(dir=export_dir, prefix=_UNFINISHED))
            os.rename(version, aside / version.name)
            shutil.rmtree(aside)
    return old


def _exclusive(export_dir: Path) -> contextlib.AbstractContextManager[int]:
    """Holds the model's folder for a moment, as each export does to begin and to publish."""
    busy = f"Another export is held up in {export_dir}. Start this one again later, or give another --export_dir."
    return files.locked(export_dir, busy, waits=[0.1] * 300)


def published(version_aside: Path, export_dir: Path) -> Path:
    """Syncs `version_aside` to the disk and renames it to the next version, never over one that is there."""
    version_aside.chmod(0o755)
    files.sync_all(version_aside)
    with _exclusive(export_dir):
        while True:
            version = export_dir / str(next_number(export_dir))
            try:
                os.rename(version_aside, version)
            except OSError:
                if not version.exists():
                    raise  # else a process that does not use the lock took the number: count again
            else:
                files.sync(export_dir)
                return version
