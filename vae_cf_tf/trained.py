"""The model of a run as it answers: the weights of the best epoch, and the item path that was made beside them."""

from vae_cf_tf import checkpoints
from vae_cf_tf.data.split import Split
from vae_cf_tf.item_path import ItemPath
from vae_cf_tf.models import Autoencoder, build
from vae_cf_tf.workdir import Workdir


def load(workdir: Workdir, split: Split) -> Autoencoder:
    """Reads it from a run's workdir; `split` is the run's.

    Raises:
      UserError: a file is missing or damaged, or belongs to another model.
    """
    model = build(workdir.config(), len(split.item_ids), split.train)
    checkpoints.load(workdir.best, checkpoints.model_variables(model))
    if model.config.item_path != "none":
        path = ItemPath(model.num_items, model.config.item_path_mb, name="item_path")
        checkpoints.load(workdir.item_path, checkpoints.model_variables(path))
        model.item_path = path
    return model
