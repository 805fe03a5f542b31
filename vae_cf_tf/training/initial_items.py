"""Item vectors of a network that start from a factorisation of the log."""

import numpy as np
import scipy.sparse as sp

from vae_cf_tf.linear.factors import ImplicitFactors
from vae_cf_tf.models.base import Autoencoder

SPARSE = 40
"""--initial_items=auto takes factors if the mean number of users of an item is below this."""
_SAMPLE = 2_000  # about as many users give the encoder's scale


def starts_from_factors(initial_items: str, train: sp.csr_matrix) -> bool:
    """Whether item vectors start from factors.

    Args:
      initial_items: the setting.
      train: [users, items]; for users that are not in memory, "auto" gives False.

    Examples:
      >>> starts_from_factors("auto", sp.eye(50, 10, format="csr"))
      True
      >>> starts_from_factors("auto", sp.csr_matrix(np.ones((50, 10))))
      False
    """
    sparse = isinstance(train, sp.csr_matrix) and train.nnz < SPARSE * train.shape[1]
    return initial_items == "factors" or (initial_items == "auto" and sparse)


def start_from_factors(model: Autoencoder, train: sp.csr_matrix, seed: int) -> None:
    """Puts the factors of `ImplicitFactors` into the rows of items in the encoder and into the decoder's item vectors.

    In a wide and sparse catalogue most items have few users, so that vectors drawn at random need many epochs to say
    anything. On amazon-book-wide the validation NDCG@100 after the first epoch is .088 with this start and .009
    without. The other weights, drawn at random, learn within an epoch.

    The rank is the width of a latent variable. The first units of each layer take the factors and the rest stays as
    drawn. The encoder's part is scaled so that these units, before bias and activation, have a mean square of 1 over
    users, and the decoder's so that item vectors have a mean square length of 1.

    Args:
      model: changed in place: its layers that read items, except gates, and the decoder's output layer.
      train: [users, items].
      seed: of the factorisation.
    """
    low_rank = ImplicitFactors(model.settings.latent_dim, seed=seed).fit(train)
    some = train[:: max(1, train.shape[0] // _SAMPLE)]
    lengths = np.maximum(np.diff(some.indptr), 1)[:, None]
    hidden = (some @ low_rank.encoder) / lengths**0.5
    encoder = low_rank.encoder / _root_mean_square(hidden)
    decoder = low_rank.decoder / (_root_mean_square(low_rank.decoder) * low_rank.decoder.shape[1] ** 0.5)
    for layer in model.linear_layers():
        if layer.items and layer.trainable and layer.name != "gate":
            _put(layer.kernel, encoder)
    output = model.decoder.output_layer
    _put(output.kernel, decoder, transposed=not output.transposed)


def _put(kernel, vectors: np.ndarray, transposed: bool = False) -> None:
    """Writes the vectors of items, [items, rank], into the first rows and columns of the kernel or of its transpose."""
    values = kernel.numpy()
    rows = values.T if transposed else values  # a view
    width = min(vectors.shape[1], rows.shape[1])
    rows[: len(vectors), :width] = vectors[:, :width]
    kernel.assign(values)


def _root_mean_square(values: np.ndarray) -> float:
    return max(float(np.sqrt(np.mean(np.square(values), dtype=np.float64))), 1e-12)
