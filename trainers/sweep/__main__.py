"""Compares configurations over seeds: `python -m trainers.sweep --plan=evcf --data=DATA --sweep_dir=DIR`.

Every setting of trainers.main is a flag here too, and holds for all runs, but each has a workdir of its own. The same
command goes on where it was interrupted. DIR receives results.md, results.png, results.json, and the workdirs in runs/.

Plan evcf is the ablation of Kim & Suh 2019: prior × gating × depth × likelihood, with the settings of
trainers/flags/evcf.flags where no flag gives others. Plan grid varies what --vary names and looks at validation users
alone. Plan growth varies prior × gating, with one layer and the multinomial likelihood, and tunes each configuration
separately on the validation users. After sweeps with several values of --training_users,
`python -m trainers.sweep.growth` plots what priors and gates gain as data grows.
"""

import sys
from pathlib import Path

from absl import flags

from trainers.setting_flags import define_flags as define_settings
from trainers.setting_flags import given_flags, settings_from_flags
from trainers.sweep import output, plans, results, runs, scheduling, tuning
from vae_cf_tf.cli import commands
from vae_cf_tf.errors import UserError
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import print_line
from vae_cf_tf.settings import flagfiles
from vae_cf_tf.settings.settings import groups


def define_flags() -> None:
    define_settings()
    flags.DEFINE_enum("plan", "evcf", ["evcf", "grid", "growth"], "What is compared.")
    commands.define_path("sweep_dir", "", "Folder of the sweep's runs and results.")
    flags.DEFINE_integer("seeds", 3, "Runs of each configuration, with --seed and the numbers after it.", lower_bound=1)
    flags.DEFINE_integer(
        "jobs", 1, "Runs at a time, which share the cores: small models leave many of them idle.", lower_bound=1
    )
    flags.DEFINE_multi_string("vary", [], "SETTING=VALUE,VALUE,…: a setting and its values; may be repeated.")
    flags.DEFINE_multi_string(
        "tune",
        [],
        "SETTING=VALUE,VALUE,…: a setting that is tuned for each configuration by itself; may be repeated. All values "
        "are run with the first seed; the best on validation users alone is run with the other seeds and compared.",
    )
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
    commands.required(["sweep_dir"], "python -m trainers.sweep --plan=evcf --data=DATA --sweep_dir=DIR")
    values, given = flags.FLAGS, given_flags()
    of_plan = [path for path in flagfiles.shipped() if path.name == plans.FLAGFILES.get(values.plan)]
    of_flagfile = flagfiles.settings_in(of_plan[0]) if of_plan else {}
    base = settings_from_flags(of_flagfile | plans.SETTINGS.get(values.plan, {}))
    points = plans.expand(values.plan, base, given, values.vary, values.where, values.tune)
    untuned = list({point.variant: point.untuned() for point in points}.values())
    tunes = any(point.tuned for point in points)
    reference = plans.parse(values.reference) or plans.usual_reference(values.plan, untuned)
    if values.reference and not any(plans.reference_of(point, untuned, reference) for point in untuned):
        raise UserError(
            f"--reference={values.reference} is no configuration of the sweep: it differs in other settings."
        )
    folder, seed = Path(values.sweep_dir), base.training.seed
    seeds = range(seed, seed + values.seeds)
    all_runs = runs.all_runs(points, seeds[:1] if tunes else seeds, folder)
    failed: dict[str, str] = {}
    parts, baselines = plans.PARTS[values.plan], Workdir(folder).baselines
    epochs_by = {point.settings.training.best_by for point in points}
    # Leave out a criterion that is the --best_by of no run: no run's best epoch was chosen by it.
    criteria = [name for name in plans.CRITERIA.get(values.plan, (plans.MAIN,)) if name in epochs_by] or [plans.MAIN]

    def write_results() -> None:
        if not tunes:
            output.write(results.collect(all_runs, parts, reference, baselines), folder, failed)

    print(
        f"{len(points)} configurations × {len(all_runs) // len(points)} seeds = {len(all_runs)} runs in {folder}",
        flush=True,
    )
    with runs.exclusive(folder) as lock:
        runs.prepare(base, given, folder, all_runs, print_line)
        if Workdir(folder).read_baselines(base.evaluation) is None:
            print_line("Baselines …")
            scheduling.evaluate_baselines(base, folder, lock)
        failed |= scheduling.carry_out(all_runs, folder, values.keep, values.jobs, lock, print_line, write_results)
        if tunes and not failed:
            chosen = tuning.chosen(all_runs, criteria)
            points_chosen = list({point.name: point for of_one in chosen.values() for point in of_one}.values())
            more = runs.all_runs(points_chosen, seeds[1:], folder)
            print(f"Chosen on validation: {len(points_chosen)} configurations; {len(more)} more runs.", flush=True)
            failed |= scheduling.carry_out(more, folder, values.keep, values.jobs, lock, print_line, write_results)
            all_runs += more
            if not failed:
                tuning.write(all_runs, chosen, parts, reference, baselines, folder)
        write_results()
    if failed:
        folders = list(failed)
        raise UserError(
            f"{len(failed)} of {len(all_runs)} runs failed, the first in {folders[0]}: "
            f"{failed[folders[0]].rstrip('.')}. The same command tries them again."
        )
    print((folder / "results.md").read_text())


def run() -> int:
    return commands.run(main, define_flags, groups=groups)


if __name__ == "__main__":
    sys.exit(run())
