"""Shows the model card of a SavedModel: `python -m export.inspect DIR`, DIR a version or the folder of versions.

`--verify` compares all files with the checksums in the card.
"""

import sys
from pathlib import Path

from absl import flags

from export import card, versions
from vae_cf_tf.cli import commands
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import home_expanded


def define_flags() -> None:
    flags.DEFINE_boolean("verify", False, "Compare all files with the card's checksums, and print no card.")


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError(f"One folder is wanted, {len(argv) - 1} were given. Usage: python -m export.inspect DIR")
    version = versions.newest_in(Path(home_expanded(argv[1])))
    if flags.FLAGS.verify:
        print(f"{version}: {card.verify(version)} files, all as they were exported.")
        return
    print(f"{version}\n{card.text(card.read(version))}")


def run() -> int:
    return commands.run(main, define_flags, arguments="DIR")


if __name__ == "__main__":
    sys.exit(run())
