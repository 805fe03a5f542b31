"""What the main job does before TensorFlow is needed: the settings and the data of a workdir, checked."""

from vae_cf_tf import metrics
from vae_cf_tf.config import Config
from vae_cf_tf.data import source
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.split import Split
from vae_cf_tf.say import Say
from vae_cf_tf.workdir import Workdir


def prepared_split(config: Config, workdir: Workdir, given: frozenset[str], say: Say) -> Split:
    """The workdir's split; at the first start, that of the data, which is then kept there.

    Args:
      config: settings.
      workdir: locked by this process.
      given: the settings that the user named.
      say: receives the lines that a person reads.

    Raises:
      UserError: bad data, or a workdir of another configuration.
    """
    workdir.check(config)
    if workdir.has_split():
        split = workdir.split()
    else:
        described = source.describe(config)
        split = load_split(config, say, given)
        metrics.check_catalogue(len(split.item_ids))
        workdir.claim_data(split, described)
    workdir.claim(config)
    say(
        f"{split.train.shape[0]:,} training users, {len(split.item_ids):,} items, {split.train.nnz:,} interactions; "
        f"{split.validation.fold_in.shape[0]:,} + {split.test.fold_in.shape[0]:,} users held out."
    )
    return split
