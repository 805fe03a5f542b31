"""CSV, TSV and other text with a header line, plain or gzipped."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from vae_cf_tf.data import titles
from vae_cf_tf.data.events import TEXT, EventLog
from vae_cf_tf.data.formats.base import Format, ReaderOptions, parts_in
from vae_cf_tf.data.formats.columns import BOOLEANS, Columns, columns_of, matches, read_with_times
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.progress import Progress
from vae_cf_tf.data.tables import Table, read_tables
from vae_cf_tf.data.text import first_line
from vae_cf_tf.data.times import is_number, time_fault
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say

_SEPARATORS = ("\t", ",", ";", "|", "::")
_PART = re.compile(r"part-.*|.*\.(csv|tsv)(\.gz)?")


class Delimited(Format):
    """A header line, then a line an event. The separator is the one by which the header has the needed columns."""

    accepts = "ratings or interactions as .csv or .tsv (.gz), or such files of one header"

    def sniff(self, path: Path) -> bool:
        return True  # asked last: its messages say what is wrong with any other file

    def in_folder(self, folder: Path) -> list[Path]:
        """The parts of one table: all CSV and TSV files, if their header lines are equal."""
        files = [path for path in parts_in(folder) if _PART.fullmatch(path.name) and path.name not in titles.NAMES]
        files = [path for path in files if path.stat().st_size]
        return files if len({first_line(path)[0] for path in files}) == 1 else []

    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Interactions:
        table, columns = open_table(files[0], options)
        columns = with_kinds(table, columns, options)
        more = f" and {len(files) - 1:,} more files" if len(files) > 1 else ""
        say(f"Reading {table.path}{more}: {columns.told(options.threshold)}")
        tables = [table, *(Table.open(path, table.separator) for path in files[1:])]
        return read_log(tables, columns, options, say)


def open_table(path: Path, options: ReaderOptions) -> tuple[Table, Columns]:
    """A text table and its columns, by the separator that finds most of them."""

    def worth(table: Table) -> tuple[int, int]:
        return sum(map(bool, matches(table.first, options).values())), len(table.first)

    # A wrong separator can find columns too: in `user,item;x,rating` the semicolon finds none.
    table = max((Table.open(path, separator) for separator in _SEPARATORS), key=worth)
    return table, columns_of(path, table.first, options)


def with_kinds(table: Table, columns: Columns, options: ReaderOptions) -> Columns:
    """The columns with what the first record tells of ratings and times.

    Times that are numbers are always read: they cost little. Text, which takes as long as all other columns together,
    is read only where the options ask for times.

    Raises: UserError where times are needed and those of a usual name are none.
    """
    sample = table.sample() or [""] * len(columns.names)
    if columns.rating is not None and columns.rating < len(sample):
        columns = replace(columns, rating_is_bool=sample[columns.rating].strip().lower() in BOOLEANS)
    if columns.time is None or columns.time >= len(sample):
        return columns
    field = sample[columns.time]
    if is_number(field):
        return columns
    if not options.asks_for_times:
        return replace(columns, time=None)
    if not options.timestamp_column and (wrong := time_fault(field, is_text=True)):
        name = columns.names[columns.time].strip()
        raise UserError(f"{table.path}: column {name}: {wrong}; name the column of times with --timestamp_column")
    return replace(columns, time_is_text=True)


def read_log(tables: Sequence[Table], columns: Columns, options: ReaderOptions, say: Say) -> Interactions:
    """Reads the columns of the parts of one table.

    Times that nobody asked for and that cannot be read are left out, with a line that says so.

    Raises: UserError that names the first line that is wrong.
    """
    return read_with_times(lambda columns: _read(tables, columns, say), columns, options, say)


def _read(tables: Sequence[Table], columns: Columns, say: Say) -> Interactions:
    types = {columns.user: TEXT, columns.item: TEXT}
    if columns.rating is not None:
        types[columns.rating] = pa.bool_() if columns.rating_is_bool else pa.float32()
    if columns.weight is not None:
        types.setdefault(columns.weight, pa.float32())
    if columns.time is not None:
        types[columns.time] = TEXT if columns.time_is_text else pa.float64()

    def build(blocks) -> Interactions:
        log = EventLog(columns.ids, in_order=True)
        for block in Progress(say).passed(blocks):
            found = dict(zip(types, block, strict=True))
            more = (None if i is None else found[i] for i in (columns.rating, columns.time, columns.weight))
            log.add(found[columns.user], found[columns.item], *more)
        return log.interactions()

    return read_tables(tables, types, columns, build)
