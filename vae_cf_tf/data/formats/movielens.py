"""MovieLens' layouts without a header: `user::item::rating::time` (1M, 10M) and u.data (100K)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vae_cf_tf.data.formats.base import Format, ReaderOptions
from vae_cf_tf.data.formats.columns import Columns
from vae_cf_tf.data.formats.delimited import read_log
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.tables import Table
from vae_cf_tf.data.text import number_fault
from vae_cf_tf.data.times import is_number
from vae_cf_tf.say import Say


class MovieLens(Format):
    """User, item, rating and time, separated by `::` or by tabs. The time may lack where the separator is `::`."""

    accepts = "MovieLens' ratings.dat or u.data"
    has_column_names = False

    def sniff(self, path: Path) -> bool:
        return _open(path) is not None

    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Interactions:
        table = _open(files[0])
        assert table
        columns = Columns([f"column {i + 1}" for i in range(len(table.first))], 0, 1, 2, header=False)
        if len(table.first) > 3 and is_number(table.first[3]):
            columns = replace(columns, time=3)
        say(f"Reading {table.path} in MovieLens' layout: {columns.told(options.threshold)}")
        return read_log([table], columns, options, say)


def _open(path: Path) -> Table | None:
    for separator, numbers, sizes in (("::", (2,), (3, 4)), ("\t", (2, 3), (4,))):
        table = Table.open(path, separator, header=False)
        if len(table.first) in sizes and all(number_fault(table.first[i], "") is None for i in numbers):
            return table
    return None
