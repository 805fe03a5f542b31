"""Which earlier run a warm start begins with: found, checked and recorded. Needs no TensorFlow."""

import json
from typing import NamedTuple

from vae_cf_tf.errors import UserError
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir, write_json
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.settings import names, written

_MAY_DIFFER = ("initializer", "first_layer", "confidence", "confidence_zero", "pseudo_init")
"""Settings of the model that change neither the shapes nor the meaning of its weights."""


class Start(NamedTuple):
    """The weights that a run started from."""

    weights: str  # digest of the earlier run's best.npz
    epochs: int  # that trained them, in that run and in those that it started from


def check(settings: Settings, workdir: Workdir) -> None:
    """Raises UserError where the run cannot start from --warm_start, or did start from other weights.

    The earlier run is compared by the content of its best weights. It is no longer needed when this one has a
    checkpoint.
    """
    path = settings.training.warm_start
    if workdir.settings_file.exists() and bool(stored := workdir.settings().training.warm_start) != bool(path):
        raise UserError(
            f"{workdir.path} was trained with other settings: --warm_start={stored} there, --warm_start={path} here. "
            "Give another --workdir, or the settings of that run."
        )
    if not path:
        return
    earlier = Workdir(path)
    if earlier.path.resolve() == workdir.path.resolve():
        raise UserError(f"--warm_start and --workdir are both {path}. Give this run a --workdir of its own.")
    if (started := recorded(workdir)) and workdir.checkpoint.exists() and not earlier.best.exists():
        return
    found = _found(settings, earlier)
    if started and started.weights != found.weights:
        raise UserError(
            f"{workdir.path} did not start from the weights that {path} has now: that run was trained further or "
            "replaced. Give another --workdir."
        )


def claim(settings: Settings, workdir: Workdir) -> None:
    """Records the weights that the run starts from; `check` has found them good."""
    if settings.training.warm_start and not recorded(workdir):
        write_json(workdir.warm_start, _found(settings, Workdir(settings.training.warm_start))._asdict())


def recorded(workdir: Workdir) -> Start | None:
    """What `claim` wrote; None where the run starts from weights that are drawn.

    Raises:
      UserError: the file is damaged.
    """
    if not workdir.warm_start.exists():
        return None
    try:
        values = json.loads(workdir.warm_start.read_text(encoding="utf-8"))
        return Start(str(values["weights"]), int(values["epochs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{workdir.warm_start} is damaged ({error}). Give another --workdir.") from error


def same_held_out(settings: Settings, earlier: Settings) -> bool:
    """Whether users who are held out now were held out in the earlier run too, if it was one of the same log."""
    both = (settings.split, earlier.split)
    return all(s.user_draws == "hashed" for s in both) and both[0].split_seed == both[1].split_seed


def _found(settings: Settings, earlier: Workdir) -> Start:
    """The weights of the earlier run. Raises UserError where it has none, or they are of another architecture."""
    theirs = earlier.settings()
    if not earlier.best.exists():
        raise UserError(f"--warm_start={earlier.path} has no finished epoch: {earlier.best.name} is missing.")
    different = [n for n in names("model") if n not in _MAY_DIFFER and theirs[n] != settings[n]]
    if different:
        told = (f"--{n}={written(theirs[n])} there, --{n}={written(settings[n])} here" for n in different)
        raise UserError(
            f"--warm_start={earlier.path} is a run of another architecture: {'; '.join(told)}. Give the settings of "
            "that run, or leave --warm_start out."
        )
    before = recorded(earlier)
    epochs = checkpoints.read_meta(earlier.best)["epoch"] + (before.epochs if before else 0)
    return Start(checkpoints.digest(earlier.best), epochs)
