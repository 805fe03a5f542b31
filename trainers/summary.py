"""What the main job prints for people: which settings it has at its start, and how it did at its end."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.data.split import Split
from vae_cf_tf.evaluation.metrics import SHOWN
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.flagfiles import nearest
from vae_cf_tf.settings.settings import written

_NAMED = 6
"""A run is called after the nearest flagfile only if at most this many settings differ from it."""


def settings_line(settings: Settings) -> str:
    """Which flagfile's model this is, and the settings that differ from it."""
    path, different = nearest(settings, "model", "item_item", "training")
    if len(different) > _NAMED:
        return "Settings: those of no shipped flagfile."
    changed = " ".join(f"--{name}={written(settings[name])}" for name in different)
    return f"Settings: those of {path.name}" + (f" with {changed}." if changed else ".")


def table(values: dict[str, Any]) -> str:
    """Test metrics of the model beside those of the baselines, each with its standard error."""
    rows = {"this model": values["test"]} | {baseline["label"]: baseline["test"] for baseline in values["baselines"]}
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{name:>18}" for name in SHOWN)]
    for name, figures in rows.items():
        cells = (f"{figures[metric]['mean']:.4f} ± {figures[metric]['stderr']:.4f}" for metric in SHOWN)
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    config = values["config"]
    title = f"Test users, mean ± standard error ({config['latent']} {config['prior']} {config['block']}, best epoch "
    return f"\n{title}{values['best_epoch']} of {values['epochs']}):\n" + "\n".join(lines)


def examples(split: Split, rank: Callable[[sp.csr_matrix], np.ndarray], users: int = 3, shown: int = 5) -> str:
    """Histories of a few test users and what they are recommended, held-out hits marked with a star."""
    test = split.test.with_targets()
    lines = []
    for user, row in enumerate(rank(test.fold_in[:users])):
        wanted = set(test.target[user].indices)
        history = test.fold_in[user].indices
        seen = [split.name_of(item) for item in history[:shown]] + ["…"] * (len(history) > shown)
        best = [("*" if item in wanted else "") + split.name_of(item) for item in row[:shown]]
        lines.append(f"  {' | '.join(seen)}\n    → {' | '.join(best)}")
    return "\nSome test users: history → recommendations (* = a held-out item)\n" + "\n".join(lines) + "\n"
