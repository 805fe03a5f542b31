"""Recommendations for a Spark DataFrame of histories, by a SavedModel on the executors."""

import atexit
import functools
import itertools
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from pyspark import SparkContext, SparkFiles, TaskContext
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import ArrayType, FloatType, StringType, StructField, StructType

from export import catalogue, versions
from export.scoring import history_files, job, parts, recommendation_files
from export.scoring.history_files import Row
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.errors import UserError

if TYPE_CHECKING:
    from export.scoring import loaded_model
else:
    loaded_model = LazyModule("export.scoring.loaded_model")

PART, POSITION = "_part", "_position"
"""Columns of rows with a number: the part of the output, and the place of the row in the whole."""
THREADS = "TF_NUM_INTRAOP_THREADS"
_RECOMMENDED = [StructField("item_ids", ArrayType(StringType())), StructField("scores", ArrayType(FloatType()))]


def recommend(dataframe: DataFrame, model: str | os.PathLike, k: int = 0, batch_size: int = 256) -> DataFrame:
    """Recommends for the rows of a DataFrame, partition by partition.

    The executors need this package and its dependencies. The model is sent to them, and each of their Python processes
    loads it once.

    A request holds rows of one partition. The last bits of a score depend on the number of rows in its request, so the
    same row may differ by about 3e-6 where it lies in another partition.

    Args:
      dataframe: a row a user, with `history` and perhaps `user`, `candidates`, `exclude` and `include_history`, as a
        file of histories has them. Other columns are left out.
      model: a SavedModel version, or the folder of versions, of which the newest is taken: on the driver's machine.
      k: recommendations of a row, at most the model's --top_k; 0: as many.
      batch_size: histories in a request, at most.

    Returns: `user`, where there is one, `item_ids` and `scores`, best first.

    Raises: UserError for other columns, or a model that is none; and from the executors for a row that is wrong.
    """
    version = versions.newest_in(Path(model))
    job.check_k(version, k)
    read = history_files.check_columns("The DataFrame", to_arrow_schema(dataframe.schema))
    has_rules = bool(set(read) - {"user", "history"})
    served = ship(dataframe.sparkSession.sparkContext, version, batch_size, has_rules, k)
    schema = schema_of([dataframe.schema["user"]] if "user" in read else [])
    return dataframe.select(read).mapInArrow(Scored(served, "The DataFrame"), schema)


def schema_of(users: list[StructField]) -> StructType:
    return StructType([*users, *_RECOMMENDED])


class Served(NamedTuple):
    """A SavedModel that was sent to the executors, and how it is asked."""

    archive: str
    items: int  # size of its catalogue
    batch_size: int
    has_rules: bool
    k: int

    @property
    def version(self) -> Path:
        """Where it lies on this executor."""
        return Path(SparkFiles.get(self.archive))

    def known(self) -> frozenset[str]:
        """The catalogue; read once for each Python process."""
        return _known(self.version)

    def recommender(self) -> tuple[Callable, int]:
        """See `loaded_model.recommender`; loaded once for each Python process."""
        if self not in _loaded:
            os.environ.setdefault(THREADS, str(task().cpus()))
            _loaded[self] = loaded_model.recommender(self.version, self.items, self.batch_size, self.has_rules, self.k)
        return _loaded[self]


_known = functools.lru_cache(1)(catalogue.item_ids)


def task() -> TaskContext:
    """The task that runs in this process, on an executor."""
    context = TaskContext.get()
    assert context is not None
    return context


_loaded: dict[Served, tuple[Callable, int]] = {}
_shipped: set[tuple[str, str]] = set()  # applications, and archives that they have


def ship(context: SparkContext, version: Path, batch_size: int, has_rules: bool, k: int) -> Served:
    """Sends a SavedModel to the executors, once for each Spark application."""
    name = f"vae_cf_{job.facts_of(version)['model_checksum']}"
    if (context.applicationId, name) not in _shipped:
        folder = tempfile.mkdtemp(prefix="vae_cf_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:  # weights hardly shrink
            for file in sorted(version.rglob("*")):
                archive.write(file, file.relative_to(version))
        context.addArchive(f"{path}#{name}")
        _shipped.add((context.applicationId, name))
    return Served(name, len(catalogue.item_ids(version)), batch_size, has_rules, k)


class Scored:
    """From Arrow batches of histories to those of recommendations, on an executor.

    Args:
      served: the model.
      source: what error messages call the input.
      part_sizes: rows of a part, and of all parts, if the rows have the columns PART and POSITION. A request then holds
        rows of one part, in their order.
      text_kind: "jsonl" or "csv": the answers are lines of text in one column `value`; "": they are columns.
      user_types: as in `Survey`, for rows that are JSON lines; None: from the column `user`, if any.
    """

    def __init__(
        self,
        served: Served,
        source: str,
        part_sizes: tuple[int, int] | None = None,
        text_kind: str = "",
        user_types: tuple[pa.DataType, ...] | None = None,
    ):
        self._served, self._source, self._part_sizes = served, source, part_sizes
        self._text_kind, self._user_types = text_kind, user_types

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = next(batches, None)
        if first is None:
            return
        types = self._user_types
        if types is None:
            types = (first.schema.field("user").type,) if "user" in first.schema.names else ()
        ask, size = self._served.recommender()
        numbered = (pair for batch in itertools.chain([first], batches) for pair in self._numbered(batch))
        for part, group in itertools.groupby(numbered, lambda pair: pair[0] and pair[0][0]):
            if self._text_kind:
                yield _text(recommendation_files.header(self._text_kind, bool(types)))
            for request in parts.requests(self._in_order(part, group), size):
                ids, scores = ask(request)
                yield self._answers(types, [row.user for row in request], ids, scores)

    def _numbered(self, batch: pa.RecordBatch) -> Iterator[tuple[tuple[int, int] | None, Row]]:
        numbers: Iterable[Any] = itertools.repeat(None)
        if self._part_sizes:
            numbers = zip(batch.column(PART).to_pylist(), batch.column(POSITION).to_pylist(), strict=True)
        return zip(numbers, rows_of(batch, self._source), strict=False)

    def _in_order(self, part: int | None, group: Iterable[tuple[tuple[int, int] | None, Row]]) -> Iterator[Row]:
        """The rows of a part. Raises UserError if they are not those that were counted when the input was surveyed."""
        if part is None or self._part_sizes is None:
            yield from (row for _, row in group)
            return
        part_rows, rows = self._part_sizes
        expected = part * part_rows
        for number, row in group:
            if number != (part, expected):
                break
            expected += 1
            yield row
        if expected != min((part + 1) * part_rows, rows):
            raise UserError(f"{self._source} has changed while it was read (part {part}). Start anew.")

    def _answers(self, types: tuple[pa.DataType, ...], users: list[Any], ids: Any, scores: Any) -> pa.RecordBatch:
        given, counts = users if types else None, recommendation_files.counts_of(ids)
        if self._text_kind:
            return _text(recommendation_files.lines(self._text_kind, given, ids, scores, counts))
        return recommendation_files.record_batch(recommendation_files.schema_of(types), given, ids, scores, counts)


def _text(lines: Iterable[str]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(list(lines), pa.string())], ["value"])


def rows_of(batch: pa.RecordBatch, source: str) -> Iterator[Row]:
    """The rows of a table of histories, or of JSON lines in the column `value`. Raises UserError for a wrong one."""
    number = 0
    try:
        if "value" in batch.schema.names:
            found: Iterable[Row] = map(history_files.json_row, batch.column("value").to_pylist())
        else:
            found = history_files.table_rows(batch)
        for row in found:
            number += 1
            yield row
    except history_files.BadRow as error:
        received = batch.slice(number, 1).to_pylist()
        raise UserError(f"{source}: a row is wrong: {error} The row: {str(received)[:160]}") from error
