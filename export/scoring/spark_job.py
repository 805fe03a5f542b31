"""The command export.score --engine=spark: a table of histories, or a log of events, in; a folder of parts out."""

import contextlib
import dataclasses
import json
import math
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import BinaryType, DoubleType, FloatType, LongType, StringType, StructField, StructType

from export import catalogue, versions
from export.scoring import event_log, history_files, job, recommendation_files, spark
from vae_cf_tf.data.events import NO_IDS
from vae_cf_tf.data.formats import ReaderOptions
from vae_cf_tf.data.formats.columns import columns_of
from vae_cf_tf.engines import spark_session
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import json_text

_ROOT = Path(__file__).parents[2]
_LINES = re.compile(r"\.jsonl?(\.gz)?/?$")
_TEXT = re.compile(r"\.(csv|tsv)(\.gz)?/?$")
_USERS = {pa.string(): StringType(), pa.binary(): BinaryType(), pa.int64(): LongType(), pa.float64(): DoubleType()}
_INDEX = (1 << 33) - 1  # of monotonically_increasing_id: the row's place in its partition; above it the partition


def score(
    model: Path,
    source: str,
    output: str,
    kind: str,
    batch_size: int,
    part_rows: int,
    k: int,
    columns: ReaderOptions,
    threshold: float | None,
    settings: Sequence[str],
) -> None:
    """Writes recommendations for the rows of `source` to the folder `output`, whole or not at all.

    Rows are numbered in the order of the input, and a task scores a part of `part_rows` of them. So its requests, and
    with them the bits of the scores, are those of the job on one machine.

    Args:
      model: a SavedModel version, or the folder of versions, of which the newest is taken: on the driver's machine.
      source, output: paths or URLs that Spark can read and write.
      kind, batch_size, part_rows, k, threshold: as the flags.
      columns: of a log of events.
      settings: of Spark, each KEY=VALUE.

    Raises:
      UserError: a wrong argument, a bad row or file in `source`, an `output` that is not empty, or Spark fails.
    """
    version = versions.newest_in(model)
    job.check_k(version, k)
    if kind == "tfrecord":
        raise UserError("--engine=spark writes parquet, jsonl or csv. Received: --kind=tfrecord.")
    with session(settings) as session_, _told(source):
        target = _Target(session_, output)
        table, is_log, events = _read(session_, source, columns, threshold, version)
        kind = kind or ("jsonl" if table.columns == ["value"] else "parquet")
        served = spark.ship(session_.sparkContext, version, batch_size, False, k)
        with _progress(session_, f"Reading {source}"):
            tally, starts = _survey(table, served, source)
        users = _user_fields(table, tally)
        survey = tally.survey(users)
        recommendation_files.check_users(kind, survey)
        print(
            f"Read {source}: {tally.rows:,} rows. {catalogue.unknown_line(tally.ids, tally.unknown)}", file=sys.stderr
        )
        number = max(1, math.ceil(tally.rows / part_rows))
        parts = _in_parts(table, starts, part_rows, number)
        scored = spark.Scored(
            served._replace(has_rules=tally.has_rules),
            source,
            (part_rows, tally.rows),
            kind if kind in recommendation_files.TEXT_KINDS else "",
            users if table.columns == ["value"] else None,
        )
        schema: Any = StructType([StructField("value", StringType())])
        if kind == "parquet":
            schema = spark.schema_of(_spark_users(table, users))
        with _progress(session_, "Parts"):
            target.write(parts.mapInArrow(scored, schema), kind)
        described = job.facts_of(version) | {"input_name": source, "kind": kind, "part_rows": part_rows, "k": k}
        described |= {"events": events if is_log else None, "rows": tally.rows, "parts": number}
        described |= {"ids": tally.ids, "unknown_ids": tally.unknown}
        target.describe(described)
        if is_log:
            table.unpersist()
    print(job.summary(output, described))


@contextlib.contextmanager
def session(settings: Sequence[str]) -> Iterator[SparkSession]:
    """The active Spark session, or a new one that is stopped at the end.

    The JVM of a new one writes to a log file. It is kept if Spark fails, and deleted after a UserError.

    Raises:
      UserError: there is no Java, or Spark does not start.
    """
    if there := SparkSession.getActiveSession():
        yield there
        return
    if not hasattr(DataFrame, "repartitionById"):
        raise UserError("--engine=spark needs PySpark 4.1 or newer. Install it, or score with --engine=local.")
    if wrong := [text for text in settings if "=" not in text]:
        raise UserError(f"--spark_conf takes KEY=VALUE. Received: {wrong[0]!r}.")
    # Spark's Python processes on this machine find the package as this one does.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    builder = SparkSession.builder.appName("export.score").config("spark.log.level", "WARN")
    builder = builder.config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
    for text in settings:
        builder = builder.config(*text.split("=", 1))
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    handle, log = tempfile.mkstemp(prefix="vae_cf_spark_", suffix=".log")
    os.close(handle)
    spark_ = spark_session.start(builder, Path(log))
    try:
        yield spark_
    except UserError:
        os.unlink(log)
        raise
    except Exception as error:
        raise UserError(f"Spark failed ({_first_line(error)}). Its log: {log}") from error
    else:
        os.unlink(log)
    finally:
        spark_.stop()


def _first_line(error: BaseException) -> str:
    return " ".join(next(iter(str(error).strip().splitlines()), type(error).__name__).split())[:300]


@contextlib.contextmanager
def _told(source: str) -> Iterator[None]:
    """Turns what Spark raises for a user's mistake into a UserError."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        text = str(error)
        if own := re.search(r"vae_cf_tf\.errors\.UserError: (.*)", text):
            raise UserError(own[1].strip()) from error
        if raised := re.search(r"\[USER_RAISED_EXCEPTION\] (.*?)( SQLSTATE.*)?$", text, re.MULTILINE):
            raise UserError(f"{source}: {raised[1]}") from error
        if re.search(r"PATH_NOT_FOUND|Path does not exist", text):
            raise UserError(f"There is no {source} that Spark can read. Check --input.") from error
        if re.search(r"UNABLE_TO_INFER_SCHEMA|is not a Parquet file|CANNOT_READ_FILE|MALFORMED", text):
            raise UserError(f"{source} cannot be read: {_first_line(error)}") from error
        raise


@contextlib.contextmanager
def _progress(session_: SparkSession, what: str) -> Iterator[None]:
    """Shows on stderr, each second, how many tasks of the running stages are done."""
    tracker, done = session_.sparkContext.statusTracker(), threading.Event()

    def watch() -> None:
        while not done.wait(1):
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            for stage in filter(None, stages):
                text = f"\r{what}: {stage.numCompletedTasks} of {stage.numTasks} tasks "
                print(text, end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print(file=sys.stderr)


def _read(
    session_: SparkSession, source: str, columns: ReaderOptions, threshold: float | None, version: Path
) -> tuple[DataFrame, bool, dict[str, Any] | None]:
    """A table of histories or of JSON lines (a column `value`), whether it comes from a log, and how that was read."""
    is_text = bool(_TEXT.search(source))
    if _LINES.search(source):
        table, is_log = session_.read.text(source).where(F.col("value").rlike(r"\S")), False  # no blank lines
    elif is_text:
        separator = "\t" if ".tsv" in source else ","
        table = session_.read.csv(source, header=True, sep=separator, escape='"', mode="FAILFAST")
        is_log = True
    else:
        table = session_.read.parquet(source)
        schema = to_arrow_schema(table.schema)
        is_log = "history" not in table.columns and not any(pa.types.is_nested(field.type) for field in schema)
        if not is_log:
            table = table.select(history_files.check_columns(source, schema))
    if not is_log:
        if columns.named or threshold is not None:
            flag = "--" + next(iter(columns.named), "threshold")
            raise UserError(f"{source} holds histories, and {flag} is for a log of events. Leave it out.")
        return table, False, None
    threshold = event_log.threshold_of(version) if threshold is None else threshold
    events = columns.named | {"threshold": threshold}
    return _histories(table, source, columns, threshold), True, events


def _histories(log: DataFrame, source: str, options: ReaderOptions, threshold: float) -> DataFrame:
    """As `EventLog.rows`: `user` and `history`, in order of first appearance; kept on the executors' disks."""
    found = columns_of(source, log.columns, options)
    ids = {role: F.col(f"`{log.columns[found.roles[role]]}`") for role in ("user", "item")}
    numbers = (FloatType, DoubleType)
    is_float = {role: isinstance(log.schema[found.roles[role]].dataType, numbers) for role in ids}
    texts = {role: _whole(column, role) if is_float[role] else column.cast("string") for role, column in ids.items()}
    texts = {role: F.regexp_replace(text, r"(?U)^\s+|\s+$", "") for role, text in texts.items()}
    # "10.0" is 10 where all ids of a column are whole numbers.
    flags = log.agg(
        *(F.bool_or(text.endswith(".0")).alias(f"{role}_ends") for role, text in texts.items()),
        *(F.bool_and(text.rlike(r"^-?[0-9]+(\.0)?$")).alias(f"{role}_whole") for role, text in texts.items()),
    ).first()
    for role, text in texts.items():
        if flags and flags[f"{role}_ends"] and flags[f"{role}_whole"]:
            texts[role] = F.regexp_replace(text, r"\.0$", "")
    checked = {role: _checked_id(text, role) for role, text in texts.items()}
    counts = F.lit(True)
    if found.rating is not None:
        rating = F.col(f"`{log.columns[found.rating]}`")
        truth = F.lower(F.trim(rating.cast("string")))
        value = F.coalesce(rating.try_cast("float"), F.when(truth == "true", 1.0).when(truth == "false", 0.0))
        bad = value.isNull() | F.isnan(value) | (F.abs(value) == float("inf"))
        wrong = F.raise_error("the rating is empty or not a finite number; correct or drop the row")
        counts = F.when(bad, wrong).otherwise(value).cast("float") >= F.lit(threshold).cast("float")
    events = log.select(
        checked["user"].alias("user"),
        F.when(counts & checked["item"].isNotNull(), checked["item"]).alias("item"),
        F.monotonically_increasing_id().alias(spark.POSITION),
    )
    users = events.groupBy("user").agg(
        F.min(spark.POSITION).alias(spark.POSITION), F.collect_list("item").alias("history")
    )
    return users.orderBy(spark.POSITION).select("user", "history").persist(StorageLevel.DISK_ONLY)


def _whole(column: Column, role: str) -> Column:
    wrong = F.raise_error(
        F.concat(F.lit(f"the {role} id is "), column.cast("string"), F.lit("; numbers are ids if they are whole"))
    )
    return F.when(column != F.floor(column), wrong).otherwise(column.cast("bigint").cast("string"))


def _checked_id(text: Column, role: str) -> Column:
    bad = text.isNull() | text.isin(*NO_IDS) | text.rlike(r"[\r\n]")
    return F.when(
        bad, F.raise_error(f"the {role} id is empty or holds a line break; correct or drop the row")
    ).otherwise(text)


class _Surveyed:
    """Counts the rows of a partition, on an executor: its number and a `Tally` as JSON."""

    def __init__(self, served: spark.Served, source: str):
        self._served, self._source = served, source

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known, tally = self._served.known(), history_files.Tally()
        for batch in batches:
            for row in spark.rows_of(batch, self._source):
                tally.add(row, known)
        text = json.dumps(dataclasses.asdict(tally) | {"types": sorted(tally.types)})
        yield pa.record_batch([pa.array([spark.task().partitionId()], pa.int32()), pa.array([text])], ["n", "tally"])


def _survey(table: DataFrame, served: spark.Served, source: str) -> tuple[history_files.Tally, list[int]]:
    """Reads and checks every row; returns what the input holds, and how many rows lie before each partition."""
    found = table.mapInArrow(_Surveyed(served, source), "n int, tally string").collect()
    tallies = {row["n"]: json.loads(row["tally"]) for row in found}
    total, starts = history_files.Tally(), []
    for number in range(max(tallies, default=-1) + 1):
        starts.append(total.rows)
        if number in tallies:
            total = total.with_another(history_files.Tally(**tallies[number]))
    return total, starts


def _in_parts(table: DataFrame, starts: list[int], part_rows: int, number: int) -> DataFrame:
    """The rows with their numbers, each part in a partition of its own, in order."""
    identity = F.monotonically_increasing_id()
    before = F.from_json(F.lit(json.dumps(starts)), "array<bigint>")
    numbered = table.withColumn("_identity", identity)
    position = F.get(before, F.shiftright("_identity", 33).cast("int")) + F.col("_identity").bitwiseAND(F.lit(_INDEX))
    numbered = numbered.withColumn(spark.POSITION, position).drop("_identity")
    numbered = numbered.withColumn(spark.PART, F.floor(F.col(spark.POSITION) / part_rows).cast("int"))
    return numbered.repartitionById(number, F.col(spark.PART)).sortWithinPartitions(spark.POSITION)


def _user_fields(table: DataFrame, tally: history_files.Tally) -> tuple[pa.DataType, ...]:
    if table.columns == ["value"]:
        return tally.user_types(pa.float64())
    schema = to_arrow_schema(table.schema)
    return (schema.field("user").type,) if "user" in schema.names else ()


def _spark_users(table: DataFrame, users: tuple[pa.DataType, ...]) -> list[StructField]:
    """The column of users in Spark's types."""
    if table.columns != ["value"]:
        return [table.schema["user"]] if users else []
    if users and users[0] not in _USERS:
        raise UserError("Some users are whole numbers from 2⁶³ on, for which Spark has no type. Give --kind=jsonl.")
    return [StructField("user", _USERS[kind]) for kind in users]


class _Target:
    """The output folder, on any file system of Spark's.

    Raises:
      UserError: it exists and is not empty, unless it holds only what a killed job left.
    """

    def __init__(self, session_: SparkSession, path: str):
        jvm: Any = session_.sparkContext._jvm
        hadoop, self._text = jvm.org.apache.hadoop.fs, path
        self._path_of = lambda *names: hadoop.Path("/".join([path.rstrip("/") or "/", *names]))
        self._system = self._path_of().getFileSystem(session_.sparkContext._jsc.hadoopConfiguration())
        self._mode = "errorifexists"
        if self._system.exists(self._path_of()):
            names = {status.getPath().getName() for status in self._system.listStatus(self._path_of())}
            ours = all(name == "_temporary" or name.lstrip(".").startswith("part-") for name in names)
            if job.SUCCESS in names:
                raise UserError(f"{path} is complete already. To score again, give another --output, or remove it.")
            if names and not ("_temporary" in names and ours):
                raise UserError(f"{path} is not empty (it holds {min(names)!r}). Give another --output.")
            self._mode = "overwrite"

    def write(self, answers: DataFrame, kind: str) -> None:
        writer = answers.write.mode(self._mode)
        if kind == "parquet":
            writer.parquet(self._text)
        else:
            writer.text(self._text)

    def describe(self, described: job.Job) -> None:
        stream = self._system.create(self._path_of(job.JOB))
        stream.write(bytearray(json_text(described).encode()))
        stream.close()
