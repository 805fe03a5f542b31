"""From the settings to a split data set."""

from collections.abc import Collection

from vae_cf_tf.config import Config
from vae_cf_tf.data import formats
from vae_cf_tf.data.download import download
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.split import Split, SplitOptions, split
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say, silent

_OF_THE_SPLIT = {
    "threshold": "threshold",
    "min_items_per_user": "min_items_per_user",
    "min_users_per_item": "min_users_per_item",
    "heldout_users": "heldout_users",
    "fold_in_share": "fold_in_share",
    "split_seed": "seed",
}
"""The settings of the split: their names in `Config` and in `SplitOptions`."""


def load_split(config: Config, say: Say, given: Collection[str] = frozenset()) -> Split:
    """Reads, or generates, the configuration's interactions and splits them, unless they are split already.

    Args:
        say: is told what is read, what is taken from it and what each step of the split leaves.
        given: the names of the settings that the user gave; one of them that would change nothing is not passed over.

    Raises: UserError for data that cannot be read or split, and for a threshold given for data without ratings.
    """
    data = read_log(config, say)
    if isinstance(data, Split):
        if unused := [f"--{name}" for name in _OF_THE_SPLIT if name in given]:
            say(f"The data is split already: {', '.join(unused)} change{'s'[: len(unused) == 1]} nothing.")
        return data
    if data.ratings is None and "threshold" in given:
        raise UserError(
            f"--threshold={config.threshold:g} is given, but the data has no ratings; "
            "name their column with --rating_column, or leave --threshold out"
        )
    options = {theirs: getattr(config, ours) for ours, theirs in _OF_THE_SPLIT.items()}
    return split(data, SplitOptions(**options, reseed=config.target_draws == "reseeded"), say)


def read_log(config: Config, say: Say = silent) -> Interactions | Split:
    """What `--data` or `--dataset` name, or the embedded data set."""
    path = download(config.dataset, say=say) if config.dataset else config.data
    if not path:
        say("Making the embedded data set: every event counts.")
        return synthetic_log(seed=0)
    return formats.read(path, reader_options(config), say)


def reader_options(config: Config) -> formats.ReaderOptions:
    return formats.ReaderOptions(
        user_column=config.user_column,
        item_column=config.item_column,
        rating_column=config.rating_column,
        item_titles=config.item_titles,
        threshold=config.threshold,
    )
