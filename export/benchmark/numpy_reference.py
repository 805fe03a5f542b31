"""H+Vamp gated, two layers, in plain NumPy: what the served network is measured beside, and an oracle for it."""

from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]  # by the path of their layers, as in a checkpoint


def log_probs(weights: Weights, histories: list[np.ndarray]) -> np.ndarray:
    """Item log-probabilities, float32 [batch, items] (Kim & Suh 2019, at the posterior means).

    Args:
      weights: the model's.
      histories: distinct columns, int [items of the user] each.
    """

    def linear(path: str, x: np.ndarray | None) -> np.ndarray:
        kernel, bias = weights[f"{path}/kernel"], weights[f"{path}/bias"]
        if x is not None:
            return x @ kernel + bias
        sums = [kernel[items].sum(axis=0) / np.sqrt(max(len(items), 1), dtype=np.float32) for items in histories]
        return np.stack(sums) + bias

    def gated(path: str, x: np.ndarray | None) -> np.ndarray:
        return linear(f"{path}/linear", x) / (1 + np.exp(-linear(f"{path}/gate", x)))

    h = gated("encoder/hidden/block_1", gated("encoder/hidden/block_0", None))
    z2 = linear("encoder/heads/mean", h)
    pair = [gated("lower_encoder/from_x/block_0", None), gated("lower_encoder/from_z2/block_0", z2)]
    z1 = linear("lower_encoder/heads/mean", gated("lower_encoder/joint/block_0", np.concatenate(pair, axis=1)))
    pair = [gated("decoder/from_z1/block_0", z1), gated("decoder/from_z2/block_0", z2)]
    f = linear("decoder/output", gated("decoder/joint/block_0", np.concatenate(pair, axis=1)))
    f -= f.max(axis=1, keepdims=True)
    f -= np.log(np.exp(f).sum(axis=1, keepdims=True))
    return f


def recommend(weights: Weights, histories: list[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best unseen columns of each history, best first, and their scores."""
    scores = log_probs(weights, histories)
    for row, items in zip(scores, histories, strict=True):
        row[items] = -np.inf
    columns = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1)
    columns = np.take_along_axis(columns, order, axis=1)
    return columns, np.take_along_axis(scores, columns, axis=1)
