"""Trains, judges and exports a recommender: `python -m trainers.main --flagfile=vamp.flags`.

Every setting is a flag; a flagfile is a model, and later flags override it. The same command resumes an interrupted
run.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from absl import flags

from vae_cf_tf import commands, quiet
from vae_cf_tf.config import Config, groups
from vae_cf_tf.say import Say, print_line

_DEFINE = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}


def define_flags() -> None:
    """A flag for each setting of `Config`, with its default and its help text."""
    for field in dataclasses.fields(Config):
        choices, text = field.metadata["choices"], field.metadata["help"]
        if choices:
            flags.DEFINE_enum(field.name, field.default, list(choices), text)
        elif field.metadata["path"]:
            commands.define_path(field.name, field.default, text)
        else:
            _DEFINE[type(field.default)](field.name, field.default, text)


def config_from_flags(defaults: Mapping[str, Any] = {}) -> Config:
    """The settings that the flags give; `defaults` replace those of flags that are not given."""
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Config)}
    given = given_flags()
    return Config(**values | {name: value for name, value in defaults.items() if name not in given})


def given_flags() -> frozenset[str]:
    """The settings that the command line or a flagfile names."""
    return frozenset(field.name for field in dataclasses.fields(Config) if flags.FLAGS[field.name].present)


def train_and_evaluate(config: Config, given: frozenset[str] = frozenset(), say: Say = print_line) -> dict[str, Any]:
    """Runs the main job in `config.workdir`, or what is left of it, and returns what metrics.json holds.

    Args:
      config: settings.
      given: the settings that the user named.
      say: receives the lines that a person reads.

    Raises:
      UserError: bad data, a workdir of another configuration, a damaged checkpoint, a loss that is NaN.
    """
    from trainers import summary
    from trainers.prepare import prepared_split
    from vae_cf_tf.workdir import Workdir

    workdir = Workdir(config.workdir)
    with workdir.locked():
        say(summary.settings(config))
        split = prepared_split(config, workdir, given, say)
        quiet.import_tensorflow()  # a wrong path or column is told before it costs five seconds
        from trainers import job

        return job.run(config, workdir, split, say)


def main(argv: list[str]) -> None:
    train_and_evaluate(config_from_flags(), given_flags())


if __name__ == "__main__":
    define_flags()
    sys.exit(commands.run(main, groups=groups()))
