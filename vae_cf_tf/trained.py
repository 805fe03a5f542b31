"""The model of a run as it answers: the weights of the best epoch, and the item path that was made beside them."""

from typing import Any

from vae_cf_tf import checkpoints
from vae_cf_tf.config import Config
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.item_path import ItemPath
from vae_cf_tf.models import Autoencoder, build
from vae_cf_tf.workdir import Workdir, identity


def load(workdir: Workdir, split: Split) -> Autoencoder:
    """Reads it from a run's workdir; `split` is the run's.

    Raises:
      UserError: a file is missing or damaged, or belongs to another model; or the item path belongs to other weights.
    """
    model = build(workdir.config(), len(split.item_ids), split.train)
    checkpoints.load(workdir.best, checkpoints.model_variables(model))
    if model.config.item_path != "none":
        meta = checkpoints.read_meta(workdir.item_path)
        if not path_belongs(meta, workdir, model.config):
            best = checkpoints.read_meta(workdir.best)["epoch"]
            raise UserError(
                f"{workdir.item_path} was made for other weights or settings (epoch {meta.get('epoch')}; the best "
                f"epoch is now {best}): the run was interrupted. Start trainers.main again with the same settings."
            )
        attach_path(model, workdir)
    return model


def attach_path(model: Autoencoder, workdir: Workdir) -> None:
    """Gives the model the workdir's item path."""
    path = ItemPath(model.num_items, model.config.item_path_mb, name="item_path")
    checkpoints.load(workdir.item_path, checkpoints.model_variables(path))
    model.item_path = path


def path_meta(workdir: Workdir, config: Config) -> dict[str, Any]:
    """What an item path is made for: the weights of the best epoch, and its settings."""
    settings = {name: value for name, value in vars(config).items() if name.startswith("item_path")}
    epoch = checkpoints.read_meta(workdir.best)["epoch"]
    return {"epoch": epoch, "weights": checkpoints.digest(workdir.best), "settings": settings}


def path_belongs(meta: dict[str, Any], workdir: Workdir, config: Config) -> bool:
    """Whether the item path with this `meta` was made for the present weights and settings."""
    return all(meta.get(name) == value for name, value in path_meta(workdir, config).items())


def model_id(workdir: Workdir, config: Config) -> str:
    """16 hexadecimal digits of everything that decides an answer. Figures, ranked lists and exports carry them, so that
    what was made of other weights is not taken for what belongs to these."""
    parts = [checkpoints.digest(workdir.best)]
    if config.item_path != "none":
        parts.append(checkpoints.digest(workdir.item_path))
    return identity(*parts)
