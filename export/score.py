"""Recommends for a file of histories: `python -m export.score --model=MODELS/vamp --input=users.parquet --output=OUT`.

The input has a row for each user, or is a log with a row for each event. OUT is a folder of numbered parts of
--part_rows rows each, of the input's kind unless --kind says otherwise. A part is written aside and renamed. The same
command, given again, makes the parts that are missing.
"""

import sys
from pathlib import Path

from absl import flags

from export.scoring.score_file import score_file
from vae_cf_tf.cli import commands
from vae_cf_tf.data.formats import ReaderOptions


def define_flags() -> None:
    commands.define_path("model", "", "SavedModel version, or the folder of versions, of which the newest is taken.")
    commands.define_path(
        "input", "", "File of histories (.jsonl, .parquet or .tfrecord), or log of events (.csv, .tsv, .gz, .parquet)."
    )
    commands.define_path("output", "", "Folder for the parts.")
    flags.DEFINE_enum("kind", "", ["", "jsonl", "parquet", "tfrecord"], "Kind of the parts; empty: the input's.")
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
    model, source, output = (Path(path) for path in (values.model, values.input, values.output))
    columns = ReaderOptions(values.user_column, values.item_column, values.rating_column)
    score_file(
        model,
        source,
        output,
        values.kind,
        values.batch_size,
        values.part_rows,
        values.k,
        columns,
        values.threshold,
        values.workers,
    )


def run() -> int:
    return commands.run(main, define_flags)


if __name__ == "__main__":
    sys.exit(run())
