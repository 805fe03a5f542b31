"""Writes a run's SavedModel: `python -m export.main --workdir=RUN --export_dir=MODELS/vamp`."""

import sys

from absl import app, flags

from vae_cf_tf import quiet
from vae_cf_tf.commands import guarded
from vae_cf_tf.errors import UserError


def define_flags() -> None:
    flags.DEFINE_string("workdir", "", "Folder of the run, as given to trainers.main.")
    flags.DEFINE_string("export_dir", "", "Folder that receives the model as a new numbered version.")
    flags.DEFINE_integer("top_k", 100, "Items of a recommendation, at most the catalogue.", lower_bound=1)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}: settings are given as --name=value.")
    for name in ("workdir", "export_dir"):
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing. Usage: python -m export.main --workdir=RUN --export_dir=MODELS/NAME")
    quiet.import_tensorflow()
    from export.savedmodel import export_run
    from vae_cf_tf.workdir import Workdir

    print(export_run(Workdir(flags.FLAGS.workdir), flags.FLAGS.export_dir, flags.FLAGS.top_k))


if __name__ == "__main__":
    define_flags()
    sys.exit(guarded(main))
