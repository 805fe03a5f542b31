"""Fetches MovieLens from GroupLens."""

import os
from pathlib import Path

from vae_cf_tf.errors import UserError

_URL = "https://files.grouplens.org/datasets/movielens/{name}.zip"
# The MD5 sums that GroupLens publishes beside each archive (NAME.zip.md5).
DATASETS = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "d472be332d4daa821edc399621853b57",
}


def download(name: str, cache_dir: str = "") -> str:
    """Downloads and unpacks one of DATASETS, unless that was done before.

    Args:
        cache_dir: where to keep it; "" for Keras' own place, ~/.keras.

    Returns: the folder, for `readers.read`.
    Raises: UserError for a name that is not known, where there is no network, or where the archive's MD5 differs.
    """
    if name not in DATASETS:
        raise UserError(f"no data set {name!r} to download; known are {', '.join(DATASETS)}")
    import keras

    url = _URL.format(name=name)
    try:
        if cache_dir:
            # Keras takes another place without a word where this one does not exist.
            os.makedirs(os.path.expanduser(cache_dir), exist_ok=True)
        folder = keras.utils.get_file(
            f"{name}.zip",
            url,
            file_hash=DATASETS[name],
            extract=True,
            cache_dir=cache_dir or None,
            cache_subdir="movielens",
        )
    except Exception as e:  # Keras raises a bare Exception where it cannot connect
        reason = " ".join(str(e).split())
        raise UserError(
            f"{name} could not be downloaded ({reason}); get {url} by hand, unpack it and say --data=FOLDER"
        ) from e
    inner = Path(folder) / name
    return str(inner if inner.is_dir() else folder)
