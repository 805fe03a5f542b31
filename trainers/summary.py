"""What the main job prints at its end."""

from typing import Any

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
    test = split.test.with_targets()
    lines = []
    for user, row in enumerate(rank(test.fold_in[:users])):
        wanted = set(test.target[user].indices)
        seen = [split.name_of(item) for item in test.fold_in[user].indices[:shown]]
        found = [("*" if item in wanted else "") + split.name_of(item) for item in row[:shown]]
        lines.append(f"  {' | '.join(seen)} | …\n    → {' | '.join(found)}")
    return "\nSome test users: history → recommendations (* = a held-out item)\n" + "\n".join(lines) + "\n"
