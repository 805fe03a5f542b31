"""Writes a run's SavedModel: `python -m export.main --workdir=RUN --export_dir=MODELS/vamp`."""

import shlex
import sys
from pathlib import Path

from absl import flags

from vae_cf_tf import commands, quiet
from vae_cf_tf.errors import UserError


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
    for name in ("workdir", "export_dir"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing. Usage: python -m export.main --workdir=RUN --export_dir=MODELS/NAME")
    quiet.import_tensorflow()
    from export import card
    from export.savedmodel import export_run
    from vae_cf_tf.workdir import Workdir

    values = flags.FLAGS
    version = export_run(Workdir(values.workdir), values.export_dir, values.top_k, values.weights)
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


if __name__ == "__main__":
    define_flags()
    sys.exit(commands.run(main))
