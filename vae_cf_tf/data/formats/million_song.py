"""The taste profile of the Million Song Dataset: `user<TAB>song<TAB>play count`, without a header."""

import re
from collections.abc import Sequence
from pathlib import Path

from vae_cf_tf.data.formats.base import Format, ReaderOptions
from vae_cf_tf.data.formats.columns import Columns
from vae_cf_tf.data.formats.delimited import read_log
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.tables import Table
from vae_cf_tf.data.text import number_fault
from vae_cf_tf.say import Say


class MillionSong(Format):
    """Triplets, known by the form of a song's id or by the file's name. A play count is no rating."""

    accepts = "train_triplets.txt"
    has_column_names = False

    def sniff(self, path: Path) -> bool:
        first = Table.open(path, "\t", header=False).first
        if len(first) != 3 or number_fault(first[2], ""):
            return False
        return bool(re.fullmatch(r"SO[0-9A-Z]{16}", first[1])) or "triplets" in path.name

    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Interactions:
        columns = Columns(["column 1", "column 2", "column 3 (play count)"], 0, 1, None, header=False)
        say(f"Reading {files[0]}, a Million Song taste profile: {columns.told(options.threshold)}")
        return read_log([Table.open(files[0], "\t", header=False)], columns, options, say)

    def in_folder(self, folder: Path) -> list[Path]:
        files = [path for path in folder.iterdir() if re.fullmatch(r".*triplets.*\.txt(\.gz)?", path.name)]
        return sorted(files, key=lambda path: ("train" not in path.name, path.name))[:1]
