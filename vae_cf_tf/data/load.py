"""From the settings of data and split to a split data set."""

from collections.abc import Collection

from vae_cf_tf.data import formats
from vae_cf_tf.data.download import download
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.shards import ShardedSplit
from vae_cf_tf.data.split import Split, split, with_training_users
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say, silent
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.settings import names

OF_ANY_SPLIT = ("training_users", "split_seed")
"""Settings that a part of the training users needs, also where the data is split already."""


def load_split(settings: Settings, say: Say, given: Collection[str] = frozenset()) -> Split:
    """Reads, or generates, the interactions and splits them, unless they are split already.

    Args:
        settings: those of data and split are used.
        say: is told what is read, what is taken from it and what each step of the split leaves.
        given: the names of the settings that the user gave. `say` is told which of them
            have no effect on data that is split already.

    Raises: UserError for data that cannot be read or split, and for a threshold given for data without ratings.
    """
    return split_of(read_log(settings, say), settings, say, given)


def split_of(data: Interactions | Split, settings: Settings, say: Say, given: Collection[str] = frozenset()) -> Split:
    """Splits data that is read, and keeps --training_users of its training users. Arguments and errors as
    `load_split`."""
    if settings.data.train_from == "shards":
        if not isinstance(data, ShardedSplit):
            raise UserError("--train_from=shards needs a data set of trainers.prepare: give its folder as --data")
        if settings.split.training_users:
            raise UserError("--training_users needs all training users in memory: give --train_from=memory")
    made = data if isinstance(data, Split) else _split(data, settings, say, given)
    if isinstance(data, Split):
        used = OF_ANY_SPLIT if settings.split.training_users else ()
        if unused := [f"--{name}" for name in names("split") if name in given and name not in used]:
            say(f"The data is split already: {', '.join(unused)} change{'s'[: len(unused) == 1]} nothing.")
    if not settings.split.training_users:
        return made
    return with_training_users(made, settings.split.training_users, settings.split.split_seed, say)


def _split(data: Interactions, settings: Settings, say: Say, given: Collection[str]) -> Split:
    if data.ratings is None and "threshold" in given:
        raise UserError(
            f"--threshold={settings.split.threshold:g} is given, but the data has no ratings; "
            "name their column with --rating_column, or leave --threshold out"
        )
    return split(data, settings.split, say)


def read_log(settings: Settings, say: Say = silent) -> Interactions | Split:
    """What `--data` or `--dataset` name, or the embedded data set."""
    path = download(settings.data.dataset, say=say) if settings.data.dataset else settings.data.data
    if not path:
        say("Making the embedded data set: every event counts.")
        return synthetic_log(seed=0)
    return formats.read(path, reader_options(settings), say)


def reader_options(settings: Settings) -> formats.ReaderOptions:
    return formats.ReaderOptions(
        user_column=settings.data.user_column,
        item_column=settings.data.item_column,
        rating_column=settings.data.rating_column,
        item_titles=settings.data.item_titles,
        threshold=settings.split.threshold,
        timestamp_column=settings.data.timestamp_column,
        weight_column=settings.data.weight_column,
        needs_times=settings.split.needs_times or settings.run.also_time_split,
        train_from=settings.data.train_from,
    )
