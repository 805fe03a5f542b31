"""Recommends for a file of histories: `python -m export.score --model=MODELS/vamp --input=users.parquet --output=OUT`.

OUT is a folder of numbered parts of --part_rows rows each, of the input's kind unless --kind says otherwise. A part is
written aside and renamed. The same command, given again, makes the parts that are missing.
"""

import sys
from pathlib import Path

from absl import flags

from export.scoring.score_file import score_file
from vae_cf_tf.cli import commands


def define_flags() -> None:
    commands.define_path("model", "", "SavedModel version, or the folder of versions, of which the newest is taken.")
    commands.define_path("input", "", "File of histories: .jsonl, .parquet or .tfrecord.")
    commands.define_path("output", "", "Folder for the parts.")
    flags.DEFINE_enum("kind", "", ["", "jsonl", "parquet", "tfrecord"], "Kind of the parts; empty: the input's.")
    flags.DEFINE_integer(
        "batch_size", 256, "Histories in a request, at most; fewer where memory asks for it.", lower_bound=1
    )
    flags.DEFINE_integer("part_rows", 16384, "Rows of a part.", lower_bound=1)


def main(argv: list[str]) -> None:
    commands.required(
        ["model", "input", "output"],
        "python -m export.score --model=MODELS/NAME --input=FILE --output=FOLDER",
    )
    values = flags.FLAGS
    model, source, output = (Path(path) for path in (values.model, values.input, values.output))
    score_file(model, source, output, values.kind, values.batch_size, values.part_rows)


def run() -> int:
    return commands.run(main, define_flags)


if __name__ == "__main__":
    sys.exit(run())
