"""Apache Spark: a cluster, or the cores of this machine. All nodes must see the work folder under the same path."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyspark
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from vae_cf_tf.data.prepared import shard_name
from vae_cf_tf.data.text import one_line
from vae_cf_tf.engines.base import Engine, EngineOptions, kind_of
from vae_cf_tf.engines.log import LogFiles
from vae_cf_tf.engines.spark_session import session
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import move
from vae_cf_tf.say import Say

_KINDS = (
    (re.compile("string|char.*|varchar.*"), "text"),
    (re.compile("binary"), "bytes"),
    (re.compile("tinyint|smallint|int|bigint"), "integer"),
    (re.compile("float|double|decimal.*"), "number"),
    (re.compile("boolean"), "boolean"),
    (re.compile("timestamp.*|date"), "time"),
)


class Spark(Engine):
    """Spark SQL; its tables are folders of Parquet files."""

    name = "spark"
    timestamp = "TIMESTAMP"

    def __init__(self, options: EngineOptions):
        self._session = session(options.work, options.master, options.memory)
        self._session.sql(
            "CREATE OR REPLACE TEMPORARY FUNCTION decode_utf8(x BINARY) RETURNS STRING RETURN CAST(x AS STRING)"
        )

    @property
    def version(self) -> str:
        return f"spark {pyspark.__version__}"

    def names(self, log: LogFiles) -> list[str]:
        with _user_errors():
            return self._parquet(log).columns

    def open_log(self, log: LogFiles) -> dict[str, str]:
        assert log.columns is not None
        names = list(log.columns.names)
        with _user_errors():
            if log.is_text:
                names = [f"c{i}" for i in range(len(names))]
                schema = StructType([StructField(name, StringType()) for name in names])
                quote = {"quote": '"', "escape": '"', "multiLine": "true"} if log.quoted else {"quote": ""}
                source = self._session.read.options(header="true", sep=log.separator, mode="FAILFAST", **quote)
                frame = source.schema(schema).csv(log.paths)
            else:
                frame = self._parquet(log)
            columns = [F.col(_quoted(names[index])).alias(role) for role, index in log.roles().items()]
            frame = frame.select(columns)
            frame.createOrReplaceTempView("source")
            return {name: kind_of(log, name, type_, _KINDS) for name, type_ in frame.dtypes}

    def write(self, sql: str, folder: Path, order: str = "") -> None:
        with _user_errors():
            self._session.sql(sql).write.option("compression", "zstd").parquet(str(folder.absolute()))

    def view(self, name: str, folder: Path) -> None:
        with _user_errors():
            self._session.read.parquet(str(folder.absolute())).createOrReplaceTempView(name)

    def define(self, name: str, sql: str) -> None:
        with _user_errors():
            self._session.sql(sql).createOrReplaceTempView(name)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        with _user_errors():
            return [row.asDict() for row in self._session.sql(sql).collect()]

    def column(self, sql: str) -> list[Any]:
        with _user_errors():
            return [row[0] for row in self._session.sql(sql).collect()]

    def write_shards(self, sql: Callable[[str], str], users: int, size: int, folder: Path, say: Say) -> None:
        shards = -(-users // size)
        if all((folder / shard_name(number)).exists() for number in range(shards)):
            return
        aside = folder / "unfinished"
        shutil.rmtree(aside, ignore_errors=True)
        with _user_errors():
            frame = self._session.sql(sql("true"))
            number = ((F.col("place") - F.col("place") % size) / size).cast("int")
            # All users of a shard are in one partition, so that the shard is one file.
            frame = frame.withColumn("shard", number).repartition(min(shards, 1000), "shard")
            frame = frame.sortWithinPartitions("shard", "place").drop("place")
            frame.write.option("compression", "zstd").partitionBy("shard").parquet(str(aside.absolute()))
        for shard in range(shards):
            (file,) = (aside / f"shard={shard}").glob("*.parquet")
            move(file, folder / shard_name(shard))
        shutil.rmtree(aside)

    def text(self, value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def listed(self, value: str, order: str) -> str:
        if value == order:
            return f"sort_array(collect_list({value}))"
        pair = f"CASE WHEN {value} IS NOT NULL THEN struct({order} AS o, {value} AS v) END"
        return f"transform(sort_array(collect_list({pair})), x -> x.v)"

    def close(self) -> None:
        self._session.stop()

    def _parquet(self, log: LogFiles) -> DataFrame:
        return self._session.read.option("recursiveFileLookup", "true").parquet(*log.paths)


@contextlib.contextmanager
def _user_errors() -> Iterator[None]:
    """Turns what Spark says of data or the machine into one line."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        if "PARSE_SYNTAX_ERROR" in text or "UNRESOLVED_COLUMN" in text:
            raise  # a bug
        if "No space left on device" in text:
            raise UserError("The disk is full; free some space and start the command again") from error
        if "OutOfMemoryError" in text:
            raise UserError("Spark needs more memory; give more with --memory") from error
        raise UserError(f"Spark cannot read the data: {one_line(text)}") from error


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
