"""The model of a run: the network with the weights of the best epoch, and the item–item model beside it."""

from typing import Any, NamedTuple

from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.models import tree
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.build import build
from vae_cf_tf.models.hybrid import HybridModel, ItemItemLayer
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir, identity
from vae_cf_tf.settings import Settings

_TRIES = 3


class Loaded(NamedTuple):
    """The model that a run is judged and exported by."""

    model: Autoencoder | HybridModel
    model_id: str
    best_epoch: int


def load(workdir: Workdir, split: Split) -> Loaded:
    """Reads the model of a run. If its files change meanwhile (it is training), tries up to _TRIES times.

    Args:
      workdir: of the run.
      split: its data.

    Raises:
      UserError: a file is missing or damaged, or belongs to another model; the item–item model belongs to other
        weights; or the files change at every try.
    """
    settings = workdir.settings()
    network = build(settings.model, len(split.item_ids), split.train, settings.training.seed)
    has_item_item = settings.item_item.item_path != "none"
    model = hybrid(network, settings) if has_item_item else network
    for _ in range(_TRIES):
        identity_before = model_id(workdir, settings)
        best_epoch = checkpoints.load(workdir.best, tree.variables(network))["epoch"]
        if has_item_item:
            meta = checkpoints.load(workdir.item_item, item_item_variables(model))
            if not item_item_belongs(meta, workdir, settings):
                raise UserError(
                    f"{workdir.item_item} was made for other weights or settings (epoch {meta.get('epoch')}; the best "
                    f"epoch is now {best_epoch}): the run was interrupted. Start trainers.main again with the same "
                    "settings."
                )
        if model_id(workdir, settings) == identity_before:
            return Loaded(model, identity_before, best_epoch)
    raise UserError(f"The run in {workdir.path} goes on changing while it is read. Start the command again later.")


def hybrid(network: Autoencoder, settings: Settings) -> HybridModel:
    """The network with an item–item model that is 0 until its variables are assigned."""
    return HybridModel(network, ItemItemLayer(network.num_items, settings.item_item.item_path_mb, name="item_item"))


def item_item_variables(model: HybridModel) -> tree.Variables:
    """What item_path.npz holds: the item–item model, its weight and the popularity discount."""
    return tree.variables(model.item_item) | {"weight": model.weight, "discount": model.discount}


def item_item_meta(workdir: Workdir, settings: Settings) -> dict[str, Any]:
    """What an item–item model is made for: the weights of the best epoch, and its settings."""
    epoch = checkpoints.read_meta(workdir.best)["epoch"]
    return {"epoch": epoch, "weights": checkpoints.digest(workdir.best), "settings": vars(settings.item_item)}


def item_item_belongs(meta: dict[str, Any], workdir: Workdir, settings: Settings) -> bool:
    """Whether the item–item model with this `meta` was made for the present weights and settings."""
    return all(meta.get(name) == value for name, value in item_item_meta(workdir, settings).items())


def model_id(workdir: Workdir, settings: Settings) -> str:
    """16 hexadecimal digits of the weights and the item–item model, which decide every answer. Metrics, ranked lists
    and exports store them, so that results of other weights can be recognised."""
    parts = [checkpoints.digest(workdir.best)]
    if settings.item_item.item_path != "none":
        parts.append(checkpoints.digest(workdir.item_item))
    return identity(*parts)
