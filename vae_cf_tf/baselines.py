"""What a deep model has to beat: popularity, and the closed-form linear autoencoder EASE."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from vae_cf_tf import gram
from vae_cf_tf.errors import UserError

Scores = Callable[[sp.csr_matrix], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A baseline with its settings.

    Args:
      name: "popularity" or "ease".
      settings: of "ease": l2, its λ.
    """

    name: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        """What people read."""
        return f"EASE, λ {self.settings['l2']:g}" if self.name == "ease" else self.name

    def fit(self, train: sp.csr_matrix) -> Scores:
        """A function from histories, [users, items], to scores of the same shape."""
        return _FITTED[self.name](train, **self.settings)


def popularity(train: sp.csr_matrix) -> Scores:
    """Scores every item by its number of training users."""
    counts = np.asarray(train.sum(axis=0), np.float64).ravel()
    return lambda fold_in: np.broadcast_to(counts, fold_in.shape)


def ease(train: sp.csr_matrix, l2: float) -> Scores:
    """EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", equation 8): scores x B with
    B = I − P diag(P)⁻¹, P = (XᵀX + λI)⁻¹.

    Args:
      train: X, [users, items].
      l2: λ > 0.

    Raises:
      UserError: λ is too small for the precision.
    """
    try:
        p = gram.inverse(train, l2)
    except gram.Singular as error:
        raise UserError(
            f"EASE: XᵀX + {l2:g}·I is singular to working precision. Give --ease_l2 larger values."
        ) from error
    diagonal = np.diag(p).copy()
    # The zero diagonal of B touches the scores of seen items only, and those are never ranked.
    return lambda fold_in: -(fold_in.astype(p.dtype) @ p) / diagonal


_FITTED: dict[str, Callable[..., Scores]] = {"popularity": popularity, "ease": ease}
