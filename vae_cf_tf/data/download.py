"""Fetches MovieLens from GroupLens."""

import hashlib
import http.client
import itertools
import os
import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

from vae_cf_tf.errors import UserError
from vae_cf_tf.files import home_expanded, locked, move, written_aside
from vae_cf_tf.say import Say, silent

_URL = "https://files.grouplens.org/datasets/movielens/{name}.zip"
# The MD5 sums that GroupLens publishes beside each archive (NAME.zip.md5).
DATASETS = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "d472be332d4daa821edc399621853b57",
}


def download(name: str, cache_dir: str = "", say: Say = silent) -> str:
    """Downloads and unpacks one of DATASETS, unless that was done before.

    Args:
        cache_dir: where to keep it; "" for Keras' own place, $KERAS_HOME or ~/.keras.
        say: is told that a download starts, and how large it is.

    Returns: the folder, for `formats.read`.
    Raises: UserError for a name that is not known, where there is no network, or where the archive's MD5 differs.
    """
    if name not in DATASETS:
        raise UserError(f"no data set {name!r} to download; known are {', '.join(DATASETS)}")
    url = _URL.format(name=name)
    place = Path(home_expanded(cache_dir or os.environ.get("KERAS_HOME", "~/.keras"))) / "movielens"
    archive, folder = place / f"{name}.zip", place / name
    try:
        if not folder.is_dir():
            busy = f"another process has been downloading {name} to {place} for half an hour; wait for its end"
            with locked(place / f".{name}", busy, _half_an_hour(say, name)):
                if folder.is_dir():  # the other process did it
                    return str(folder)
                if not archive.is_file() or _md5(archive) != DATASETS[name]:
                    _fetch(url, archive, DATASETS[name], say)
                _unpack(archive, folder)
    except (OSError, http.client.HTTPException, zipfile.BadZipFile, ValueError) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise UserError(
            f"{name} could not be downloaded to {place} ({reason}); get {url} by hand, unpack it and say --data=FOLDER"
        ) from e
    return str(folder)


def _half_an_hour(say: Say, name: str) -> Iterator[float]:
    """Seconds to wait before each further try; the first wait is told."""
    say(f"Another process is downloading {name}: waiting for it …")
    yield from itertools.repeat(0.2, 9000)


def _fetch(url: str, archive: Path, md5: str, say: Say) -> None:
    with urllib.request.urlopen(url, timeout=60) as response, written_aside(archive) as aside:
        say(f"Downloading {url} ({int(response.headers.get('Content-Length', 0)) / 1e6:,.0f} MB) …")
        with open(aside, "wb") as f:
            shutil.copyfileobj(response, f, 1 << 20)
        if _md5(aside) != md5:
            raise ValueError("the archive is incomplete or corrupt: its MD5 differs from the published one")


def _md5(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks into `folder`, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside, zipfile.ZipFile(archive) as packed:
        packed.extractall(aside)
        inner = Path(aside) / folder.name
        move(inner if inner.is_dir() else Path(aside), folder)
