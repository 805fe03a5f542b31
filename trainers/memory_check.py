"""Whether a run will fit into the machine's memory, asked before it starts."""

import contextlib
import os
from pathlib import Path

from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.forecast import forecast
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings

_LEAST_HIDDEN = 25
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory() -> int:
    """Bytes of memory that this machine, or this container, has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            memory = min(memory, int(path.read_text()))
    return memory


def check(settings: Settings, split: Split, say: Say, memory: int | None = None) -> None:
    """If a run needs more than half of the machine's memory, says how much; stops a run that cannot fit.

    Args:
      settings: of the run.
      split: its data.
      say: receives the lines that a person reads.
      memory: bytes that there are; None: those of the machine.

    Raises:
      UserError: the forecast is larger than the memory; it names settings that fit, if there are any.
    """
    memory = machine_memory() if memory is None else memory
    needed = _needed(settings, split)
    if needed <= memory / 2:
        return
    what = f"This run needs about {_gib(needed)} of memory, and the machine has {_gib(memory)}."
    if needed <= memory:
        say(what)
        return
    smaller = _that_fits(settings, split, memory)
    advice = f"Give {smaller}." if smaller else "Use a machine with more memory."
    raise UserError(f"{what} {advice} (python -m trainers.forecast shows what takes it.)")


def _needed(settings: Settings, split: Split) -> float:
    users, items = split.train.shape
    return forecast(settings, users, items, split.train.nnz).job_peak


def _that_fits(settings: Settings, split: Split, memory: int) -> str:
    """Flags with which the run fits: first a smaller matrix of items, then smaller layers; "" where none do."""
    changed: dict[str, int] = {}
    matrix = {"item_path_max_items": 10_000, "ease_max_items": 10_000}
    if _needed(settings.replaced(**matrix), split) < _needed(settings, split):
        changed |= {name: value for name, value in matrix.items() if settings[name] > value}
    hidden, latent = settings.model.hidden_dim, settings.model.latent_dim
    while _needed(settings.replaced(**changed), split) > memory:
        hidden, latent = hidden // 2, min(latent, max(1, hidden // 4))
        if hidden < _LEAST_HIDDEN:
            return ""
        changed |= {"hidden_dim": hidden, "latent_dim": latent}
    return " ".join(f"--{name}={value}" for name, value in changed.items())


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
