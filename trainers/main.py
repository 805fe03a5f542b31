"""Trains, judges and exports a recommender: `python -m trainers.main --flagfile=vamp.flags`.

Every setting is a flag; a flagfile is a model, and later flags override it. The same command resumes an interrupted
run.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from trainers import summary
from trainers.prepare import prepared_split
from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import Say, print_line
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.fields import facts_of
from vae_cf_tf.settings.settings import field_of, groups, names

if TYPE_CHECKING:
    from trainers import job
else:
    job = LazyModule("trainers.job")

_DEFINE = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}


def define_flags() -> None:
    """A flag for each setting, with its default and its help text."""
    for field in map(field_of, names()):
        facts = facts_of(field)
        if facts.values():
            flags.DEFINE_enum(field.name, field.default, list(facts.values()), facts.help)
        elif facts.is_path:
            commands.define_path(field.name, field.default, facts.help)
        else:
            _DEFINE[type(field.default)](field.name, field.default, facts.help)


def settings_from_flags(defaults: Mapping[str, Any] = {}) -> Settings:
    """The settings that the flags give; `defaults` replace those of flags that are not given."""
    given = given_flags()
    values = {name: flags.FLAGS[name].value for name in names()}
    return Settings.of(**values | {name: value for name, value in defaults.items() if name not in given})


def given_flags() -> frozenset[str]:
    """The settings that the command line or a flagfile names."""
    return frozenset(name for name in names() if flags.FLAGS[name].present)


def train_and_evaluate(
    settings: Settings, given: frozenset[str] = frozenset(), say: Say = print_line
) -> dict[str, Any]:
    """Runs the main job in the workdir, or what is left of it, and returns what metrics.json holds.

    Args:
      settings: of the run.
      given: the settings that the user named.
      say: receives the lines that a person reads.

    Raises:
      UserError: bad data, a workdir of other settings, a damaged checkpoint, a loss that is NaN.
    """
    workdir = Workdir(settings.run.workdir)
    with workdir.locked():
        say(summary.settings_line(settings))
        split = prepared_split(settings, workdir, given, say)  # needs no TensorFlow: a wrong path is told at once
        return job.run(settings, workdir, split, say)


def main(argv: list[str]) -> None:
    train_and_evaluate(settings_from_flags(), given_flags())


def run() -> int:
    return commands.run(main, define_flags, groups=groups)


if __name__ == "__main__":
    sys.exit(run())
