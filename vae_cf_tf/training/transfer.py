"""Weights of an earlier run in a model of another catalogue, matched by item id."""

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
"""Neighbours of a new item, at most."""


class Catalogues(NamedTuple):
    """Columns of a new catalogue and of an earlier one.

    Attributes:
      kept: int [n], new columns of the items that both have.
      before: int [n], their columns in the earlier catalogue.
      new: int [m], columns of the items that only the new one has.
      sizes: items of the new and of the earlier catalogue.
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
    """Assigns the best weights of an earlier run.

    Items that stay keep what belongs to them in every kernel, bias and pseudo-input. A new item gets the mean of its
    nearest neighbours' (`neighbours`). What the components of a prior have more than the earlier one's, since there
    were fewer training users then, keeps its initial value.

    Args:
      model: of the same architecture, with initial weights.
      earlier: the run's folder.
      digest: of the weights that are expected there.
      item_ids: raw id of each of the model's columns.
      train: [users, items], the new training users.

    Raises:
      UserError: other weights are there by now, they do not fit, or the catalogues share no item.
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
    """The value of a variable of the new model.

    Args:
      old: of the earlier model.
      start: the initial one.
      axis: where items lie, if the variable has any.
      catalogues: of the two models.
      of_new: [new items, items that stay], from `neighbours`.
    """
    value = np.array(start)
    if axis is None:
        both = tuple(slice(min(sizes)) for sizes in zip(old.shape, start.shape, strict=True))
        value[both] = old[both]
        return value
    to, source = np.moveaxis(value, axis.axis, 0), np.moveaxis(old, axis.axis, 0)
    both = tuple(slice(min(sizes)) for sizes in zip(source.shape[1:], to.shape[1:], strict=True))
    to, source = to[(slice(None), *both)], source[(slice(None), *both)]  # views
    items, items_before = catalogues.sizes
    blocks, has = axis.length // items, np.diff(of_new.indptr) > 0
    for block in range(blocks):
        of_kept = source[block * items_before + catalogues.before]
        to[block * items + catalogues.kept] = of_kept
        mean = (of_new @ of_kept.reshape(len(of_kept), -1)).reshape(-1, *of_kept.shape[1:])
        to[block * items + catalogues.new[has]] = mean[has]
    to[blocks * items :] = source[blocks * items_before :]
    return value


def neighbours(train: sp.csr_matrix, catalogues: Catalogues, most: int = NEIGHBOURS) -> sp.csr_matrix:
    """The weights with which a new item is made of items that stay: cosines of their users, divided by their sum.

    Args:
      train: [users, items].
      catalogues: see there.
      most: neighbours of an item.

    Returns:
      float64 [new items, items that stay]; an empty row for an item that has no user in common with any.
    """
    new, kept = train[:, catalogues.new], train[:, catalogues.kept]
    norms = np.sqrt(np.maximum(np.bincount(train.indices, minlength=train.shape[1]), 1))[catalogues.kept]
    together = sp.csr_matrix(new.T @ kept, dtype=np.float64)  # of users; a new item's own norm cancels out
    together.data /= norms[together.indices]
    for start, end in itertools.pairwise(together.indptr):
        cosines = together.data[start:end]
        if len(cosines) > most:
            cosines[np.argsort(-cosines, kind="stable")[most:]] = 0
        cosines /= cosines.sum() or 1
    together.eliminate_zeros()
    return together
