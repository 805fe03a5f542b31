"""Starts Apache Spark from Python, quietly: what the Java process prints goes to a file."""

import os
import re
import shutil
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from vae_cf_tf.data.text import one_line
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import stderr_in

_LOG4J = """rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
"""
LOG = "spark.log"
"""In the work folder: what the driver's Java process wrote to stderr."""


def session(work: Path, master: str, memory: str = "") -> SparkSession:
    """A Spark session, or the one that this process has already.

    Args:
      work: an existing folder for Spark's temporary files and its log.
      master: URL of the master; "local[*]" is this process' machine.
      memory: of the driver, such as "4GB"; "": Spark's default.

    Raises: UserError where Java is missing or too old, or the master cannot be reached.
    """
    (work / "log4j2.properties").write_text(_LOG4J, encoding="utf-8")
    log4j = f"-Dlog4j2.configurationFile=file:{(work / 'log4j2.properties').absolute()}"
    builder = SparkSession.builder.master(master).appName("vae_cf_tf")
    settings = {
        "spark.driver.extraJavaOptions": log4j,
        "spark.local.dir": str(work.absolute()),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.legacy.parquet.nanosAsLong": "true",  # their unit is inferred as that of other whole numbers
    }
    if memory:
        settings["spark.driver.memory"] = re.sub("i?b$", "", memory.lower())
    if master.startswith("local"):
        settings["spark.sql.shuffle.partitions"] = "32"
        settings["spark.driver.host"] = settings["spark.driver.bindAddress"] = "127.0.0.1"
    for name, value in settings.items():
        builder = builder.config(name, value)
    return start(builder, work / LOG)


def start(builder: SparkSession.Builder, log: Path) -> SparkSession:
    """The session of a builder, or the one that this process has already.

    Args:
      builder: with all settings.
      log: a file for what the driver's Java process writes to stderr.

    Raises: UserError where Java is missing or too old, or the master cannot be reached.
    """
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise UserError("Spark needs Java 17 or newer, and there is none: install OpenJDK, or set JAVA_HOME")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        with stderr_in(log):  # the Java process inherits it
            return builder.getOrCreate()
    except Exception as error:
        raise UserError(f"Spark does not start ({one_line(error)}). Its log: {log}") from error
