"""Compares configurations over seeds: `python -m trainers.sweep --plan=evcf --data=DATA --sweep_dir=DIR`.

Every setting of trainers.main is a flag here too, and holds for all runs, but each has a workdir of its own. The same
command goes on where it was interrupted. DIR receives results.md, results.png, results.json, and the workdirs in runs/.

Plan evcf is the ablation of Kim & Suh 2019: prior × gating × depth × likelihood, with the settings of
trainers/flags/evcf.flags where no flag gives others. Plan grid varies what --vary names and
looks at validation users alone.
"""

import sys
from pathlib import Path

from absl import flags

from trainers.main import config_from_flags, define_flags, given_flags
from vae_cf_tf import commands, flagfiles
from vae_cf_tf.config import flagfile_settings, groups
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import print_line


def define_sweep_flags() -> None:
    flags.DEFINE_enum("plan", "evcf", ["evcf", "grid"], "What is compared.")
    commands.define_path("sweep_dir", "", "Folder of the sweep's runs and results.")
    flags.DEFINE_integer("seeds", 3, "Runs of each configuration, with --seed and the numbers after it.", lower_bound=1)
    flags.DEFINE_integer(
        "jobs", 1, "Runs at a time, which share the cores: small models leave many of them idle.", lower_bound=1
    )
    flags.DEFINE_multi_string("vary", [], "SETTING=VALUE,VALUE,…: a setting and its values; may be repeated.")
    flags.DEFINE_multi_string(
        "where", [], "NAME=VALUE:NAME=VALUE,…: settings of those configurations that the first part fits."
    )
    flags.DEFINE_string(
        "reference", "", "NAME=VALUE,…: what turns a configuration into the one it is compared with; empty: the plan's."
    )
    flags.DEFINE_enum(
        "keep", "weights", ["results", "weights", "all"], "What stays of a finished run: checkpoints fill a disk."
    )


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if not values.sweep_dir:
        raise UserError(
            "--sweep_dir is missing. Usage: python -m trainers.sweep --plan=evcf --data=DATA --sweep_dir=DIR"
        )
    from trainers.sweep import plans, results, show, work

    of_plan = [path for path in flagfiles.shipped() if path.name == plans.FLAGFILES.get(values.plan)]
    base = config_from_flags(flagfile_settings(of_plan[0]) if of_plan else {})

    given = [name for name in vars(base) if values[name].present]
    points = plans.expand(values.plan, base, given, values.vary, values.where)
    reference = plans.parse(values.reference) or plans.usual_reference(values.plan, points)
    if values.reference and not any(plans.reference_of(point, points, reference) for point in points):
        raise UserError(
            f"--reference={values.reference} is no configuration of the sweep: it differs in other settings."
        )
    folder = Path(values.sweep_dir)
    todo = work.tasks(points, range(base.seed, base.seed + values.seeds), folder)
    failed: dict[str, str] = {}

    def show_results() -> None:
        found = results.collect(todo, plans.PARTS[values.plan], reference, folder / work.BASELINES)
        show.write(found, folder, failed)

    print(f"{len(points)} configurations × {values.seeds} seeds = {len(todo)} runs in {folder}", flush=True)
    with work.alone(folder) as lock:
        work.prepare(base, given_flags(), folder, todo, print_line)
        failed |= work.carry_out(todo, folder, values.keep, values.jobs, lock, print_line, show_results)
        show_results()
    if failed:
        folders = list(failed)
        raise UserError(
            f"{len(failed)} of {len(todo)} runs failed, the first in {folders[0]}: {failed[folders[0]].rstrip('.')}. "
            "The same command tries them again."
        )
    print((folder / "results.md").read_text())


if __name__ == "__main__":
    define_flags()
    define_sweep_flags()
    sys.exit(commands.run(main, groups=groups()))
