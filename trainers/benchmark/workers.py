"""Measures the exchange between workers: `python -m trainers.benchmark.workers --distribute=multi_worker …`.

Each worker of TF_CONFIG runs this command. On generated interactions of a data set's shape it times steps of training
as they are, and steps in which every worker goes on without the others' numbers. The latter are wrong and only show the
time of the computation. The chief prints the figures as JSON. With --distribute=none it times the steps of one process.
"""

import json
import sys
from typing import TYPE_CHECKING

from absl import flags

from trainers.benchmark.__main__ import PRESETS
from trainers.setting_flags import define_flags as define_settings
from trainers.setting_flags import settings_from_flags
from vae_cf_tf.cli import commands, quiet
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.data.synthetic import synthetic_matrix
from vae_cf_tf.settings.settings import groups

if TYPE_CHECKING:
    from trainers.benchmark import exchange
    from vae_cf_tf.training import strategies
else:
    exchange = LazyModule("trainers.benchmark.exchange")
    strategies = LazyModule("vae_cf_tf.training.strategies", tensorflow=False)


def define_flags() -> None:
    define_settings()
    flags.DEFINE_enum("preset", "ml-1m", list(PRESETS), "Data set whose shape the interactions have.")
    flags.DEFINE_integer("steps", 10, "Steps that are timed, of either kind.", lower_bound=3)


def main(argv: list[str]) -> None:
    settings = settings_from_flags()
    group = quiet.import_tensorflow(lambda: strategies.group(settings.run))
    figures = exchange.measured(settings, synthetic_matrix(*PRESETS[flags.FLAGS.preset], seed=0), flags.FLAGS.steps)
    if group.is_chief:
        print(json.dumps({"preset": flags.FLAGS.preset} | figures, indent=1))


def run() -> int:
    return commands.run(main, define_flags, groups=groups)


if __name__ == "__main__":
    sys.exit(run())
