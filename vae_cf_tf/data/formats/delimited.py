"""CSV, TSV and other text with a header line, plain or gzipped."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from vae_cf_tf.data.events import TEXT, EventLog
from vae_cf_tf.data.formats.base import Format, ReaderOptions
from vae_cf_tf.data.formats.columns import Columns, columns_of, matches
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.tables import Table
from vae_cf_tf.say import Say

_SEPARATORS = ("\t", ",", ";", "|", "::")


class Delimited(Format):
    """A header line, then a line an event. The separator is the one by which the header has the needed columns."""

    accepts = "ratings or interactions as .csv or .tsv (.gz)"

    def sniff(self, path: Path) -> bool:
        return True  # asked last: its messages say what is wrong with any other file

    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Interactions:
        table, columns = _open(files[0], options)
        say(f"Reading {table.path}: {columns.told(options.threshold)}")
        return read_table(table, columns)


def _open(path: Path, options: ReaderOptions) -> tuple[Table, Columns]:
    def worth(table: Table) -> tuple[int, int]:
        return sum(map(bool, matches(table.first, options).values())), len(table.first)

    # A wrong separator can find columns too: in `user,item;x,rating` the semicolon finds none.
    table = max((Table.open(path, separator) for separator in _SEPARATORS), key=worth)
    return table, columns_of(path, table.first, options)


def read_table(table: Table, columns: Columns) -> Interactions:
    """Reads the table's columns. Raises UserError that names the first line that is wrong."""
    types = {columns.user: TEXT, columns.item: TEXT}
    if columns.rating is not None:
        types[columns.rating] = pa.float32()

    def build(blocks) -> Interactions:
        log = EventLog(columns.ids, in_order=True)
        for block in blocks:
            log.add(*block)
        return log.interactions()

    return table.read(types, columns, build)
