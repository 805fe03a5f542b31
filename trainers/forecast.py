"""Says what a training will take, before it starts: `python -m trainers.forecast --users=N --items=N --events=N`.

The settings are those of trainers.main. Memory, disk, time and traffic come from the formulas of docs/scale.md; nothing
is trained.
"""

import dataclasses
import sys

from absl import flags

from trainers.setting_flags import define_flags as define_settings
from trainers.setting_flags import settings_from_flags
from vae_cf_tf.cli import commands
from vae_cf_tf.errors import UserError
from vae_cf_tf.forecast import Forecast, Machine, forecast
from vae_cf_tf.settings.settings import groups

_RATES = Machine()
_SCALED = ("products", "adam", "bags", "scores", "rows", "reading", "request_bags", "ranking", "preparing")


def define_flags() -> None:
    define_settings()
    flags.DEFINE_integer("users", None, "Training users.", lower_bound=1)
    flags.DEFINE_integer("items", None, "Items of the catalogue.", lower_bound=2)
    flags.DEFINE_integer("events", None, "Interactions of the training users.", lower_bound=1)
    flags.DEFINE_integer("processes", 1, "Processes that share a step's users.", lower_bound=1)
    flags.DEFINE_float(
        "gflops",
        _RATES.products / 1e9,
        "10⁹ operations a second of matrix products; other rates grow with it.",
        lower_bound=1e-3,
    )
    flags.DEFINE_float("network", _RATES.network / 1e9, "10⁹ bytes a second between machines.", lower_bound=1e-6)


def main(argv: list[str]) -> None:
    values, settings = flags.FLAGS, settings_from_flags()
    for name in ("users", "items", "events"):
        if values[name].value is None:
            raise UserError(f"--{name} is missing. Usage: python -m trainers.forecast --users=N --items=N --events=N")
    faster = values.gflops * 1e9 / _RATES.products
    rates = {f.name: getattr(_RATES, f.name) * faster for f in dataclasses.fields(_RATES) if f.name in _SCALED}
    machine = dataclasses.replace(_RATES, **rates, network=values.network * 1e9)
    print(table(forecast(settings, values.users, values.items, values.events, values.processes, machine)))


def table(forecast: Forecast) -> str:
    """The forecast, a line for each figure."""
    memory = {
        "reading a log": forecast.reading,
        "process": forecast.base,
        "training users": forecast.data,
        "parameters": forecast.model,
        "Adam's moments": forecast.moments,
        "gradients": forecast.gradients,
        "activations of a step": forecast.step,
        "peak while training": forecast.training_peak,
        "EASE": forecast.ease,
        "item–item model while it is made": forecast.fitting,
        "item–item model": forecast.item_item,
        "scores in evaluation": forecast.evaluation,
        "peak of the whole job": forecast.job_peak,
    }
    disk = {"prepared data set": forecast.prepared, "checkpoint": forecast.checkpoint, "SavedModel": forecast.export}
    lines = [f"parameters: {forecast.parameters.trainable:,} that learn, {forecast.parameters.serving:,} when served"]
    lines += [f"memory, {name}: {_shown(size)}" for name, size in memory.items()]
    lines += [f"disk, {name}: {_shown(size)}" for name, size in disk.items()]
    lines.append(f"time: {forecast.prepare_seconds:,.0f} s of trainers.prepare with DuckDB")
    lines.append(f"time: {1000 * forecast.step_seconds:,.0f} ms a step, {forecast.epoch_seconds:,.0f} s an epoch")
    lines.append(f"traffic: {_shown(forecast.traffic)} a step that each replica sends")
    return "\n".join(lines)


def _shown(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB" if size < 10 * 2**30 else f"{size / 2**30:,.1f} GiB"


def run() -> int:
    return commands.run(main, define_flags, groups=groups)


if __name__ == "__main__":
    sys.exit(run())
