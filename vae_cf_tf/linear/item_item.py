"""The item–item model beside the network: EASE of normalised users and items."""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.errors import UserError
from vae_cf_tf.linear import gram
from vae_cf_tf.linear.base import ItemItemModel, RowBlock
from vae_cf_tf.settings import ItemItemSettings

USER_POWER = ITEM_POWER = 0.25


class NormalizedEase(ItemItemModel):
    """EASE (Steck 2019, equation 8) of X̃ = D_u X D_i, as it acts on rows of X.

    D_u = (|x_u| / mean)^−¼ and D_i = (n_i / mean)^−¼, where n_i is the number of users of item i. So users with many
    items and items with many users count for less than in EASE, where both are 1. B = D_i B̃ D_i⁻¹ with diagonal 0.

    Args:
      l2: λ, in units of the mean diagonal element of X̃ᵀX̃.
      max_items: only the max_items most popular items have rows and columns.
    """

    def __init__(self, l2: float, max_items: int):
        self.l2, self.max_items = l2, max_items

    @classmethod
    def from_settings(cls, settings: ItemItemSettings) -> "NormalizedEase":
        return cls(settings.item_path_l2, settings.item_path_max_items)

    def fit(self, train: sp.csr_matrix, places: np.ndarray) -> Iterator[RowBlock]:
        lengths, counts = np.diff(train.indptr), np.bincount(train.indices, minlength=train.shape[1])
        covered = np.sort(np.argsort(-counts, kind="stable")[: self.max_items])
        scale = _scale(counts, ITEM_POWER)[covered]
        scaled = (sp.diags(_scale(lengths, USER_POWER)) @ train[:, covered] @ sp.diags(scale)).tocsr()
        try:
            diagonal, rows = gram.inverse_by_rows(scaled, self.l2 * float(scaled.multiply(scaled).sum()) / len(covered))
        except gram.Singular as error:
            raise UserError(
                f"The item–item model's matrix is singular at --item_path_l2={self.l2:g}. Give a larger value; the "
                "trained weights stay."
            ) from error
        for block, b in rows:
            b *= -scale[block, None]
            b /= diagonal * scale
            b[np.arange(len(b)), np.arange(len(covered))[block]] = 0
            yield RowBlock(covered[block], covered, b)


def _scale(counts: np.ndarray, power: float) -> np.ndarray:
    """(counts / their mean)^−power, float64; a count of 0 is taken as 1."""
    return (np.maximum(counts, 1) / max(counts.mean(), 1e-9)) ** -power
