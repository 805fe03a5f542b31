"""Checks and records the earlier run that --warm_start names. Needs no TensorFlow."""

from typing import NamedTuple

from vae_cf_tf.errors import UserError
from vae_cf_tf.files import read_json, write_json
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.settings import names, written

_MAY_DIFFER = ("initializer", "first_layer", "confidence", "confidence_zero", "pseudo_init")
"""Model settings in which the two runs may differ: they change neither the shapes nor the meaning of weights."""


class Start(NamedTuple):
    """The weights that a run started from."""

    weights: str  # digest of the earlier run's best.npz
    epochs: int  # epochs that trained these weights, including those of earlier warm starts


def check(settings: Settings, workdir: Workdir) -> None:
    """Raises UserError if the run cannot start from --warm_start, or has already started from other weights.

    Weights are the same if the digests of their files are. Once this run has a checkpoint, the earlier run is no longer
    needed.
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
    start = _start_from(settings, earlier)
    if started and started.weights != start.weights:
        raise UserError(
            f"{workdir.path} did not start from the weights that {path} has now: that run was trained further or "
            "replaced. Give another --workdir."
        )


def claim(settings: Settings, workdir: Workdir) -> None:
    """Records in the workdir which weights the run starts from. Call `check` first."""
    if settings.training.warm_start and not recorded(workdir):
        write_json(workdir.warm_start, _start_from(settings, Workdir(settings.training.warm_start))._asdict())


def recorded(workdir: Workdir) -> Start | None:
    """What `claim` wrote; None if the run starts from random weights.

    Raises:
      UserError: the file is damaged.
    """
    if not workdir.warm_start.exists():
        return None
    try:
        values = read_json(workdir.warm_start)
        return Start(str(values["weights"]), int(values["epochs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{workdir.warm_start} is damaged ({error}). Give another --workdir.") from error


def same_held_out(settings: Settings, earlier: Settings) -> bool:
    """Whether, on the same log, both runs hold out the same users even as the log grows."""
    both = (settings.split, earlier.split)
    first, second = ((s.user_draws, s.split_by, s.heldout_share, s.split_seed) for s in both)
    return first == second and both[0].keeps_held_out


def _start_from(settings: Settings, earlier: Workdir) -> Start:
    """The weights of the earlier run. Raises UserError if it has none, or if they are of another architecture."""
    theirs = earlier.settings()
    if not earlier.best.exists():
        raise UserError(f"--warm_start={earlier.path} has no finished epoch: {earlier.best.name} is missing.")
    different = [n for n in names("model") if n not in _MAY_DIFFER and theirs[n] != settings[n]]
    if different:
        values = (f"--{n}={written(theirs[n])} there, --{n}={written(settings[n])} here" for n in different)
        raise UserError(
            f"--warm_start={earlier.path} is a run of another architecture: {'; '.join(values)}. Give the settings of "
            "that run, or leave --warm_start out."
        )
    before = recorded(earlier)
    epochs = checkpoints.read_meta(earlier.best)["epoch"] + (before.epochs if before else 0)
    return Start(checkpoints.digest(earlier.best), epochs)
