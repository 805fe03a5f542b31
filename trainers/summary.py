"""What the main job prints at its end."""

from typing import Any

import numpy as np

from vae_cf_tf.data.split import Split
from vae_cf_tf.evaluation import Ranker

SHOWN = ("ndcg@100", "ndcg@10", "recall@20", "recall@50")


def table(values: dict[str, Any]) -> str:
    """Test metrics of the model beside those of the baselines, each with its standard error."""
    rows = {"this model": values["test"]} | {name: found["test"] for name, found in values["baselines"].items()}
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{name:>18}" for name in SHOWN)]
    for name, figures in rows.items():
        cells = (f"{figures[metric]['mean']:.4f} ± {figures[metric]['stderr']:.4f}" for metric in SHOWN)
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>18}" for cell in cells))
    config = values["config"]
    title = f"Test users, mean ± standard error ({config['latent']} {config['prior']} {config['block']}, best epoch "
    return f"\n{title}{values['best_epoch']} of {values['epochs']}):\n" + "\n".join(lines)


def examples(split: Split, rank: Ranker, users: int = 3, shown: int = 5) -> str:
    """Histories of a few test users and what they are recommended, held-out hits marked with a star."""
    some = np.flatnonzero(np.diff(split.test.target.indptr))[:users]
    best = rank(split.test.fold_in[some])
    lines = []
    for user, row in zip(some, best, strict=True):
        wanted = set(split.test.target[user].indices)
        seen = [name_of(split, item) for item in split.test.fold_in[user].indices[:shown]]
        found = [("*" if item in wanted else "") + name_of(split, item) for item in row[:shown]]
        lines.append(f"  {' | '.join(seen)} | …\n    → {' | '.join(found)}")
    return "\nSome test users: history → recommendations (* = a held-out item)\n" + "\n".join(lines) + "\n"


def name_of(split: Split, item: int) -> str:
    """The item's title, or its id where there is none."""
    return split.titles.get(split.item_ids[item], split.item_ids[item])
