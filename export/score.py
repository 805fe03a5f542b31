"""Recommends for a file of histories: `python -m export.score --model=MODELS/vamp --input=users.parquet --output=OUT`.

The input has a row for each user, or is a log with a row for each event. OUT is a folder of numbered parts of
--part_rows rows each, of the input's kind (Parquet for a log) unless --kind says otherwise. A part is written aside and
renamed. The same command, given again, makes the missing parts; with --engine=spark it starts anew.
"""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from export.scoring.score_file import score_file
from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.data.formats import ReaderOptions
from vae_cf_tf.errors import UserError

if TYPE_CHECKING:
    from export.scoring import spark_job
else:
    spark_job = LazyModule("export.scoring.spark_job", tensorflow=False)


def define_flags() -> None:
    commands.define_path("model", "", "SavedModel version, or the folder of versions, of which the newest is taken.")
    commands.define_path(
        "input", "", "File of histories (.jsonl, .parquet or .tfrecord), or log of events (.csv, .tsv, .gz, .parquet)."
    )
    commands.define_path("output", "", "Folder for the parts.")
    kinds = ["", "jsonl", "csv", "parquet", "tfrecord"]
    flags.DEFINE_enum("kind", "", kinds, "Kind of the parts; empty: the input's, or Parquet for a log of events.")
    flags.DEFINE_integer(
        "batch_size", 256, "Histories in a request, at most; fewer where memory asks for it.", lower_bound=1
    )
    flags.DEFINE_integer("part_rows", 16384, "Rows of a part.", lower_bound=1)
    flags.DEFINE_integer("k", 0, "Recommendations of a row, at most the model's --top_k; 0: as many.", lower_bound=0)
    flags.DEFINE_integer(
        "workers",
        1,
        "Processes that make the parts between them, each with a model of its own. The parts are the same.",
        lower_bound=1,
    )
    flags.DEFINE_enum("engine", "local", ["local", "spark"], "What scores: this machine, or Spark.")
    flags.DEFINE_multi_string("spark_conf", [], "With --engine=spark: a setting of Spark, KEY=VALUE; may be repeated.")
    for column in ("user", "item", "rating"):
        name = f"{column}_column"
        flags.DEFINE_string(name, "", f"Of a log: name of the {column} column; empty: the usual names are tried.")
    flags.DEFINE_float("threshold", None, "Of a log: rating from which an event counts; not given: as in training.")


def main(argv: list[str]) -> None:
    commands.required(
        ["model", "input", "output"],
        "python -m export.score --model=MODELS/NAME --input=FILE --output=FOLDER",
    )
    values = flags.FLAGS
    model, columns = Path(values.model), ReaderOptions(values.user_column, values.item_column, values.rating_column)
    how = (values.kind, values.batch_size, values.part_rows, values.k, columns, values.threshold)
    if values.engine == "local":
        if values.spark_conf:
            raise UserError("--spark_conf is for --engine=spark. Leave it out, or add that.")
        score_file(model, Path(values.input), Path(values.output), *how, values.workers)
        return
    if values.workers != 1:
        raise UserError("--workers is for --engine=local. Spark has its own: --spark_conf=spark.master=local[2].")
    if importlib.util.find_spec("pyspark") is None:
        raise UserError("PySpark is not installed. pip install pyspark, and Java 17 or newer.")
    spark_job.score(model, values.input, values.output, *how, values.spark_conf)


def run() -> int:
    return commands.run(main, define_flags)


if __name__ == "__main__":
    sys.exit(run())
