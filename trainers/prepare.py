"""Reads and splits a log once: `python -m trainers.prepare --data=ratings.csv --out=prepared/`.

OUT is a folder that `--data` of any run takes, so that many runs share one split and none of them reads the log again.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from trainers.setting_flags import define_flags as define_settings
from trainers.setting_flags import given_flags, settings_from_flags
from vae_cf_tf.cli import commands
from vae_cf_tf.data.formats import source_files
from vae_cf_tf.data.formats.presplit import SPLIT_FILES, write_split
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say, print_line
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.settings import names

SECTIONS = ("data", "split")
SCHEMA_VERSION = 1


def define_flags() -> None:
    define_settings(*SECTIONS)
    commands.define_path("out", "", "Folder to write; it must not exist yet, or be empty.")


def main(argv: list[str]) -> None:
    commands.required(["out"], "python -m trainers.prepare --data=FILE --out=FOLDER")
    prepare(settings_from_flags({}, *SECTIONS), Path(flags.FLAGS.out), given_flags(*SECTIONS))


def prepare(settings: Settings, out: Path, given: frozenset[str] = frozenset(), say: Say = print_line) -> None:
    """Writes the split of the data that the settings name, whole or not at all.

    Args:
      settings: those of data and split are used.
      out: the folder to make.
      given: the settings that the user named.
      say: receives the lines that a person reads.

    Raises:
      UserError: bad data, data that is split already, or an `out` that holds something.
    """
    path = settings.data.data
    if path and source_files(path)[0].name in SPLIT_FILES:
        raise UserError(f"{path} is split already. Train on it with --data={path}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty. Give another --out, or remove it first.")
    split = load_split(settings, say, given)
    if split.weights is not None:
        raise UserError("the files of a split hold no weights; give them to trainers.main with --data=LOG itself")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        write_split(split, unfinished)
        (unfinished / "manifest.json").write_text(json.dumps(manifest(split, settings), indent=1) + "\n")
        unfinished.chmod(0o755)
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    say(f"Wrote {out}. Train on it with --data={out}.")


def manifest(split: Split, settings: Settings) -> dict[str, Any]:
    """What manifest.json says of a split: its size, how it was made, and a fingerprint of its content."""
    matrices = [split.train, split.validation.fold_in, split.test.fold_in]
    targets = [split.validation.target, split.test.target]
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": split.fingerprint(),
        "users": sum(matrix.shape[0] for matrix in matrices),
        "items": len(split.item_ids),
        "interactions": sum(int(matrix.nnz) for matrix in matrices + targets),
        "protocol": {name: settings[name] for name in names("split")},
    }


def run() -> int:
    return commands.run(main, define_flags, groups=lambda: {"Data and split": names(*SECTIONS)})


if __name__ == "__main__":
    sys.exit(run())
