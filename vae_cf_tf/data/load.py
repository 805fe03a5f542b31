"""From the settings to a split data set."""

from vae_cf_tf.config import Config
from vae_cf_tf.data.download import download
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.readers import ReaderOptions, read
from vae_cf_tf.data.split import Split, SplitOptions, split
from vae_cf_tf.data.synthetic import synthetic_log


def load_split(config: Config) -> Split:
    """Reads, or generates, the configuration's interactions and splits them, unless they are split already."""
    data = read_log(config)
    if isinstance(data, Split):
        return data
    return split(
        data,
        SplitOptions(
            threshold=config.threshold,
            min_items_per_user=config.min_items_per_user,
            min_users_per_item=config.min_users_per_item,
            heldout_users=config.heldout_users,
            fold_in_share=config.fold_in_share,
            seed=config.split_seed,
        ),
    )


def read_log(config: Config) -> Interactions | Split:
    """What `--data` or `--dataset` name, or the embedded data set."""
    path = download(config.dataset) if config.dataset else config.data
    if not path:
        return synthetic_log(seed=0)
    return read(
        path,
        ReaderOptions(
            user_column=config.user_column,
            item_column=config.item_column,
            rating_column=config.rating_column,
            item_titles=config.item_titles,
        ),
    )
