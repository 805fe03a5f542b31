"""Writes a run's SavedModel: `python -m export.main --workdir=RUN --export_dir=MODELS/vamp`."""

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from export import card, versions
from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.errors import UserError
from vae_cf_tf.runs.workdir import Workdir

if TYPE_CHECKING:
    from export import judging, savedmodel
    from vae_cf_tf.data.split import Split
    from vae_cf_tf.runs import loading
else:
    judging, savedmodel = LazyModule("export.judging"), LazyModule("export.savedmodel")
    loading = LazyModule("vae_cf_tf.runs.loading")

HELD_BACK = 3
"""Exit status of a model that --if_better does not publish."""


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
    flags.DEFINE_boolean(
        "if_better",
        False,
        "Publish only if the model is not worse than the newest version there, by NDCG@100 of the run's test users "
        f"(paired difference, 95 % bootstrap interval). Otherwise exit with status {HELD_BACK} and write nothing.",
    )
    flags.DEFINE_integer(
        "keep_versions", 0, "Versions that stay after publishing, the newest ones; 0: all.", lower_bound=0
    )


def main(argv: list[str]) -> None:
    commands.required(["workdir", "export_dir"], "python -m export.main --workdir=RUN --export_dir=MODELS/NAME")
    values = flags.FLAGS
    workdir, export_dir = Workdir(values.workdir), Path(values.export_dir)
    workdir.settings()  # both are checked before TensorFlow takes its seconds
    versions.check_place(export_dir)
    if values.if_better and (same := _published(workdir, export_dir, values.top_k, values.weights)):
        versions.remove_left(export_dir)
        print(f"{same} is this model already: nothing to do.")
        return

    def judge(version: Path, split: "Split") -> None:
        print(judging.check(version, split, export_dir))

    check = judge if values.if_better else None
    try:
        version = savedmodel.export_run(workdir, export_dir, values.top_k, values.weights, check)
    except judging.HeldBack as held_back:
        print(held_back)
        raise SystemExit(HELD_BACK) from None
    if values.keep_versions:
        versions.keep_newest(export_dir, values.keep_versions)
    facts = card.read(version)
    print(version)
    print("\n".join(card.signature_lines(facts)))
    print(f"Try it: {cli_line(version, facts['first_items'])}")


def _published(workdir: Workdir, export_dir: Path, top_k: int, weights: str) -> Path | None:
    """The newest version in `export_dir` if it is this run's model with this `top_k` and `weights`; else None."""
    with contextlib.suppress(IndexError, UserError):
        newest = versions.of(export_dir)[0]
        facts = card.read(newest)
        same = (facts.get("model_id"), facts["weights"]) == (loading.model_id(workdir, workdir.settings()), weights)
        same = same and facts.get("top_k") == min(top_k, facts["items"])
        return newest if same and card.is_whole(newest) else None
    return None


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
