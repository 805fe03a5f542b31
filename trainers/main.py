"""Trains, judges and exports a recommender: `python -m trainers.main --flagfile=vamp.flags`.

Every setting is a flag; a flagfile is a model, and later flags override it. The same command resumes an interrupted
run.
"""

import sys
from typing import TYPE_CHECKING, Any

from trainers.setting_flags import define_flags, given_flags, settings_from_flags
from vae_cf_tf.cli import commands, quiet
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.say import Say, print_line
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.settings import groups

if TYPE_CHECKING:
    from trainers import claim, follow, job, memory_check, summary
    from vae_cf_tf.runs import workdir as workdirs
    from vae_cf_tf.training import cluster, strategies
else:
    job, follow = LazyModule("trainers.job"), LazyModule("trainers.follow")
    cluster = LazyModule("vae_cf_tf.training.cluster", tensorflow=False)
    strategies = LazyModule("vae_cf_tf.training.strategies", tensorflow=False)  # see train_and_evaluate
    claim, summary = LazyModule("trainers.claim", tensorflow=False), LazyModule("trainers.summary", tensorflow=False)
    memory_check = LazyModule("trainers.memory_check", tensorflow=False)
    workdirs = LazyModule("vae_cf_tf.runs.workdir", tensorflow=False)


def train_and_evaluate(
    settings: Settings, given: frozenset[str] = frozenset(), say: Say = print_line
) -> dict[str, Any]:
    """Runs the main job in the workdir, or what is left of it, and returns what metrics.json holds; {} in a worker that
    is not the chief.

    Args:
      settings: of the run.
      given: the settings that the user named.
      say: receives the lines that a person reads.

    Raises:
      UserError: bad data, a workdir of other settings, a damaged checkpoint, a loss that is NaN.
    """
    if settings.run.distribute == "multi_worker":
        workers = cluster.Cluster.from_environment()
        say(f"Worker {workers.rank} of {len(workers.addresses)}, {workers.own_address}, waits for the others.")
    if settings.run.distribute != "none":  # before TensorFlow's first operation
        group = quiet.import_tensorflow(lambda: strategies.group(settings.run))
        if not group.is_chief:
            follow.run(settings, given, say)
            return {}
    workdir = workdirs.Workdir(settings.run.workdir)
    with workdir.locked():
        say(summary.settings_line(settings))
        split = claim.prepared_split(settings, workdir, given, say)  # needs no TensorFlow: a wrong path is told at once
        memory_check.check(settings, split, say)
        by_time = claim.prepared_time_split(settings, split, given, say)
        values = job.run(settings, workdir, split, say)
        return values if by_time is None else job.add_time_split(settings, workdir, values, by_time, say)


def main(argv: list[str]) -> None:
    train_and_evaluate(settings_from_flags(), given_flags())


def run() -> int:
    return commands.run(main, define_flags, groups=groups)


if __name__ == "__main__":
    sys.exit(run())
