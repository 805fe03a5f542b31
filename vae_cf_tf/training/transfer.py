"""Copies the weights of an earlier run into a model of another catalogue, matched by item id."""

import itertools
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.errors import UserError
from vae_cf_tf.models import item_axes, tree
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.item_axes import ItemAxis
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir

NEIGHBOURS = 20
"""Largest number of neighbours that the weights of a new item are averaged over."""


class Catalogues(NamedTuple):
    """Which columns of a new and of an earlier catalogue belong together.

    Attributes:
      kept: int [n], columns in the new catalogue of the items that both have.
      before: int [n], their columns in the earlier catalogue.
      new: int [m], columns in the new catalogue of the items that only it has.
      sizes: number of items in the new and in the earlier catalogue.
    """

    kept: np.ndarray
    before: np.ndarray
    new: np.ndarray
    sizes: tuple[int, int]

    @classmethod
    def of(cls, item_ids: list[str], earlier_ids: list[str]) -> "Catalogues":
        column = {item: c for c, item in enumerate(earlier_ids)}
        before = np.array([column.get(item, -1) for item in item_ids], np.int64)
        kept = np.flatnonzero(before >= 0)
        return cls(kept, before[kept], np.flatnonzero(before < 0), (len(item_ids), len(earlier_ids)))


def start_from(
    model: Autoencoder, earlier: Workdir, digest: str, item_ids: list[str], train: sp.csr_matrix
) -> Catalogues:
    """Assigns the best weights of an earlier run to a model, and returns how the two catalogues match.

    An item of both catalogues keeps its entries in every kernel, bias and pseudo-input. A new item gets the mean of its
    nearest neighbours' entries (`neighbours`). If the prior has more components than the earlier one, which had fewer
    training users, the additional components keep their initial values.

    Args:
      model: of the same architecture, with initial weights.
      earlier: the run's folder.
      digest: digest of the weights that are expected there (`checkpoints.digest`).
      item_ids: raw id of each of the model's columns.
      train: [users, items], the new training users.

    Raises:
      UserError: the folder now has other weights, they do not fit, or the catalogues share no item.
    """
    if checkpoints.digest(earlier.best) != digest:
        raise UserError(f"{earlier.best} has changed since this run began. Start again with another --workdir.")
    earlier_ids = earlier.split().item_ids
    catalogues = Catalogues.of(item_ids, earlier_ids)
    if not len(catalogues.kept):
        raise UserError(
            f"--warm_start={earlier.path} has no item in common with this data (its first is {earlier_ids[0]!r}, here "
            f"{item_ids[0]!r}). Give a run on the same item ids, or leave --warm_start out."
        )
    of_new = neighbours(train, catalogues)
    axes = item_axes.of(model)
    for name, variable in tree.variables(model).items():
        old, start = checkpoints.read(earlier.best, name), variable.numpy()
        variable.assign(moved(old, start, axes.get(name), catalogues, of_new))
    return catalogues


def moved(
    old: np.ndarray, start: np.ndarray, axis: ItemAxis | None, catalogues: Catalogues, of_new: sp.csr_matrix
) -> np.ndarray:
    """The value of one variable of the new model, in the shape of `start`.

    Args:
      old: its value in the earlier model.
      start: its initial value in the new model.
      axis: its axis of items; None if it has none.
      catalogues: of the two models.
      of_new: [new items, items of both], the weights of the means: from `neighbours`.
    """
    value = np.array(start)
    if axis is None:
        common = tuple(slice(min(sizes)) for sizes in zip(old.shape, start.shape, strict=True))
        value[common] = old[common]
        return value
    to, source = np.moveaxis(value, axis.axis, 0), np.moveaxis(old, axis.axis, 0)
    common = tuple(slice(min(sizes)) for sizes in zip(source.shape[1:], to.shape[1:], strict=True))
    to, source = to[(slice(None), *common)], source[(slice(None), *common)]  # views of `value` and `old`
    items, items_before = catalogues.sizes
    blocks, has_neighbours = axis.length // items, np.diff(of_new.indptr) > 0
    for block in range(blocks):
        of_kept = source[block * items_before + catalogues.before]
        to[block * items + catalogues.kept] = of_kept
        mean = (of_new @ of_kept.reshape(len(of_kept), -1)).reshape(-1, *of_kept.shape[1:])
        to[block * items + catalogues.new[has_neighbours]] = mean[has_neighbours]
    to[blocks * items :] = source[blocks * items_before :]
    return value


def neighbours(train: sp.csr_matrix, catalogues: Catalogues, most: int = NEIGHBOURS) -> sp.csr_matrix:
    """The weights of the mean that a new item starts from: cosines with its nearest neighbours, scaled to sum to 1.

    Neighbours are items of both catalogues. The cosine of two items is that of their columns in `train`.

    Args:
      train: [users, items], in the new catalogue.
      catalogues: the new and the earlier one.
      most: largest number of neighbours of an item.

    Returns:
      float64 [new items, items of both]; the row of an item that shares no user with any of these is empty.
    """
    new, kept = train[:, catalogues.new], train[:, catalogues.kept]
    norms = np.sqrt(np.maximum(np.bincount(train.indices, minlength=train.shape[1]), 1))[catalogues.kept]
    together = sp.csr_matrix(new.T @ kept, dtype=np.float64)  # common users; the new item's norm cancels out
    together.data /= norms[together.indices]
    for start, end in itertools.pairwise(together.indptr):
        cosines = together.data[start:end]
        if len(cosines) > most:
            cosines[np.argsort(-cosines, kind="stable")[most:]] = 0
        cosines /= cosines.sum() or 1
    together.eliminate_zeros()
    return together
