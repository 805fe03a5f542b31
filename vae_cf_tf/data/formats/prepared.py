"""A data set that `trainers.prepare` wrote."""

from collections.abc import Sequence
from pathlib import Path

from vae_cf_tf.data.formats.base import Format, ReaderOptions
from vae_cf_tf.data.prepared import ITEMS, MANIFEST, Prepared, is_prepared
from vae_cf_tf.data.shards import ShardedSplit
from vae_cf_tf.data.split import Split
from vae_cf_tf.say import Say


class PreparedSet(Format):
    """The folder of a prepared data set (`vae_cf_tf.data.prepared`), read into memory whole unless the options say
    otherwise.

    Its files are manifest.json, whose fingerprint stands for the content of the shards, and items.parquet.
    """

    accepts = "a data set of trainers.prepare (manifest.json, items.parquet, …)"
    has_column_names = False

    def sniff(self, path: Path) -> bool:
        return False  # a folder, never a file

    def files(self, path: Path) -> list[Path]:
        return [path / MANIFEST, path / ITEMS] if is_prepared(path) else []

    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Split:
        folder = files[0].parent
        say(f"Reading {folder}, a prepared data set: no rating, filter or split is applied.")
        prepared = Prepared(folder)
        return ShardedSplit.of(prepared) if options.train_from == "shards" else prepared.split()
