"""Shows a run: `python -m trainers.report --workdir=RUN` writes one HTML page, RUN/report/index.html, and its plots."""

import sys
from typing import TYPE_CHECKING

from absl import flags

from trainers.report.finished import finished_run
from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.runs.workdir import Workdir

if TYPE_CHECKING:
    from trainers.report import write
else:
    write = LazyModule("trainers.report.write")


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
    commands.required(["workdir"], "python -m trainers.report --workdir=RUN")
    values = flags.FLAGS
    finished_run(Workdir(values.workdir))  # a wrong folder is told before TensorFlow takes its seconds
    print(
        write.write_report(
            values.workdir,
            values.report_dir,
            values.item_titles,
            example_users=values.example_users,
            components=values.components,
            seed=values.seed,
        )
    )


def run() -> int:
    return commands.run(main, define_flags)


if __name__ == "__main__":
    sys.exit(run())
