"""Whether a new version may take the place of the newest one: both judged on the same held-out users."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from export import card, versions
from vae_cf_tf.data.split import HeldOut, Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import metrics, ranking, significance
from vae_cf_tf.settings import SplitSettings

BATCH = 250
"""Users in a request."""
_HOLDS_OUT = ("user_draws", "split_by", "heldout_share", "split_seed")
"""Settings that say which users are held out as a log grows."""


class HeldBack(Exception):
    """The new version is worse than the newest one. Its text says by how much."""


def check(version: Path, split: Split, export_dir: Path) -> str:
    """Compares a finished version with the newest one in `export_dir` on the split's test users; says how they differ.

    Each model gets a user's history as raw ids and ignores those that its catalogue lacks. A target that its catalogue
    lacks is a miss. A recommended item that the new catalogue lacks takes up a place of the list. The difference of
    NDCG@100 is paired by user, with a 95 % bootstrap interval (`significance`). The new version is worse if the whole
    interval lies below 0: a difference that may be chance holds nothing back.

    Raises:
      HeldBack: it is worse.
      UserError: the newest version cannot be asked.
    """
    newest = next(iter(versions.of(export_dir)), None)
    if newest is None:
        return f"{export_dir} has no version to compare with."
    try:
        card.check(newest)
    except UserError as error:
        raise UserError(f"{newest} cannot be judged: {error} Or leave --if_better out.") from error
    ours, theirs = (ndcg(path, split.test, split.item_ids) for path in (version, newest))
    difference = significance.paired_difference(ours, theirs)
    told = (
        f"NDCG@{metrics.TOP} on {len(ours):,} test users {ours.mean():.4f}, that of version {newest.name} "
        f"{theirs.mean():.4f}; difference {difference.mean:+.4f}, 95 % interval {difference.low:+.4f} to "
        f"{difference.high:+.4f}"
    )
    if difference.high < 0:
        raise HeldBack(f"Held back, worse than the newest version: {told}.{_note(version, newest)}")
    return f"Not worse than the newest version: {told}.{_note(version, newest)}"


def _note(*both: Path) -> str:
    """Says that the newest version may have learned from the held-out users, where the cards do not rule it out."""
    with contextlib.suppress(UserError, KeyError, TypeError):
        configs = [card.read(version)["config"] for version in both]
        # Cards of earlier versions do not name all of these.
        splits = [SplitSettings(**{name: c[name] for name in _HOLDS_OUT if name in c}) for c in configs]
        if splits[0] == splits[1] and splits[0].keeps_held_out and all("user_draws" in c for c in configs):
            return ""
    return (
        " The newest version may have learned from these users, which favours it: train with --user_draws=hashed to "
        "avoid that."
    )


def ndcg(version: Path, held_out: HeldOut, item_ids: list[str]) -> np.ndarray:
    """NDCG@100 of each held-out user with targets, float64 [users], as a SavedModel version ranks for them.

    Args:
      version: the folder.
      held_out: in the columns of `item_ids`.
      item_ids: raw id of each column.

    Raises:
      UserError: the version cannot be loaded or asked.
    """
    catalogue = _ids(version)
    metrics.check_catalogue(len(catalogue))
    judged, column = held_out.with_targets(), {item: c for c, item in enumerate(item_ids)}
    items = len(item_ids)
    columns = np.array([column.get(item, items) for item in catalogue])  # one more column, for items that are gone
    both = np.flatnonzero(columns < items)
    to_theirs = sp.csr_matrix(
        (np.ones(len(both), np.float32), (columns[both], both)), (items, len(catalogue))
    )  # [items, their items]
    ranked = ranking.ranked_lists(ranking.score_ranker(_scores(version, catalogue)), judged.fold_in @ to_theirs, BATCH)
    target = judged.target.copy()
    target.resize(target.shape[0], items + 1)
    return ranking.per_user(columns[ranked], HeldOut(judged.fold_in, target))[metrics.MAIN]


def _ids(version: Path) -> list[str]:
    path = version / "assets" / "item_ids.txt"
    try:
        return path.read_bytes().decode().removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {version} cannot be judged. Remove it, or leave --if_better out."
        ) from error


def _scores(version: Path, item_ids: list[str]) -> Callable[[sp.csr_matrix], np.ndarray]:
    """`scorer` of a version."""
    try:
        model = tf.saved_model.load(str(version))
        _ = model.signatures["serving_default"]
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{version} cannot be judged ({reason}). Remove it, or leave --if_better out.") from error
    return scorer(model, item_ids)


def scorer(model: Any, item_ids: list[str]) -> Callable[[sp.csr_matrix], np.ndarray]:
    """What `serving_default` answers to histories, [users, items] to float32 [users, items].

    Args:
      model: a loaded SavedModel. The result keeps it: a signature does not keep its variables.
      item_ids: raw id of each column.
    """
    ids = np.array([item.encode() for item in item_ids], object)

    def score(histories: sp.csr_matrix) -> np.ndarray:
        lengths = np.diff(histories.indptr)
        padded = np.full((len(lengths), max(1, lengths.max(initial=0))), b"", object)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = ids[histories.indices]
        return model.signatures["serving_default"](history=tf.constant(padded, tf.string))["scores"].numpy()

    return score
