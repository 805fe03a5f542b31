"""Shows the model card of a SavedModel: `python -m export.inspect DIR`, DIR a version or the folder of versions."""

import sys
from pathlib import Path

from export import card
from vae_cf_tf import commands
from vae_cf_tf.errors import UserError


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError(f"One folder is wanted, {len(argv) - 1} were given. Usage: python -m export.inspect DIR")
    version = card.version_in(Path(argv[1]).expanduser())
    print(f"{version}\n{card.text(card.read(version))}")


if __name__ == "__main__":
    sys.exit(commands.run(main, "DIR"))
