"""Shows a run: `python -m trainers.report --workdir=RUN` writes one HTML page, RUN/report/index.html, and its plots."""

import sys

from absl import flags

from vae_cf_tf import commands, quiet
from vae_cf_tf.errors import UserError


def define_flags() -> None:
    commands.define_path("workdir", "", "Folder of the run, as given to trainers.main.")
    commands.define_path("report_dir", "", "Folder of the page and its plots; empty: WORKDIR/report.")
    commands.define_path(
        "item_titles", "", "CSV or TSV of item ids and titles; empty: those of the run, if it has any."
    )
    flags.DEFINE_integer("example_users", 6, "Test users whose recommendations are shown.", lower_bound=0)
    flags.DEFINE_integer("components", 10, "Components of the prior that are described.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Seed of the bootstrap and of the draws of z.", lower_bound=0)


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if not values.workdir:
        raise UserError("--workdir is missing. Usage: python -m trainers.report --workdir=RUN")
    quiet.import_tensorflow()
    from trainers.report.write import write_report

    print(
        write_report(
            values.workdir,
            values.report_dir,
            values.item_titles,
            example_users=values.example_users,
            components=values.components,
            seed=values.seed,
        )
    )


if __name__ == "__main__":
    define_flags()
    sys.exit(commands.run(main))
