"""Writes a run's SavedModel: `python -m export.main --workdir=RUN --export_dir=MODELS/vamp`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from export import card, versions
from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.runs.workdir import Workdir

if TYPE_CHECKING:
    from export import savedmodel
else:
    savedmodel = LazyModule("export.savedmodel")


def define_flags() -> None:
    commands.define_path("workdir", "", "Folder of the run, as given to trainers.main.")
    commands.define_path("export_dir", "", "Folder that receives the model as a new numbered version.")
    flags.DEFINE_integer("top_k", 100, "Items of a recommendation, at most the catalogue.", lower_bound=1)
    flags.DEFINE_enum(
        "weights",
        "float32",
        ["float32", "bfloat16"],
        "Type of the kernels; bfloat16 halves the model.",
    )


def main(argv: list[str]) -> None:
    commands.required(["workdir", "export_dir"], "python -m export.main --workdir=RUN --export_dir=MODELS/NAME")
    values = flags.FLAGS
    workdir, export_dir = Workdir(values.workdir), Path(values.export_dir)
    workdir.settings()  # both are checked before TensorFlow takes its seconds
    versions.check_place(export_dir)
    version = savedmodel.export_run(workdir, export_dir, values.top_k, values.weights)
    facts = card.read(version)
    print(version)
    print("\n".join(card.signature_lines(facts)))
    print(f"Try it: {cli_line(version, facts['first_items'])}")


def cli_line(version: Path, items: list[str]) -> str:
    """A saved_model_cli command line that asks `recommend` for one history."""
    history = ", ".join(_literal(item) for item in items)
    return (
        f"saved_model_cli run --dir {shlex.quote(str(version))} --tag_set serve --signature_def recommend "
        f"--input_exprs {shlex.quote(f'history=[[{history}]]')}"
    )


def _literal(item: str) -> str:
    """The id as a Python bytes literal; saved_model_cli splits at ; and =, so those are written as escapes."""
    plain = "".join(chr(b) if chr(b).isalnum() and b < 128 else f"\\x{b:02x}" for b in item.encode())
    return f'b"{plain}"'


def run() -> int:
    return commands.run(main, define_flags)


if __name__ == "__main__":
    sys.exit(run())
