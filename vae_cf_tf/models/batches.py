"""From a sparse matrix to batches of histories, without ever writing out a row; and graphs of functions of them."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

HISTORIES = tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1, row_splits_dtype=tf.int32)


def traced(function: Callable[..., Any], *more: tf.TypeSpec) -> Callable[..., Any]:
    """A function of histories, int32 [batch, (items)], and of `more`, as a graph that is made here, once.

    A `tf.function` makes its graph at the first call. TensorFlow warns if that happens again and again, as where a
    process trains many models. The caller keeps alive the model that the function reads.
    """
    graph = tf.function(lambda *inputs: function(*inputs), input_signature=[HISTORIES, *more], autograph=False)
    return graph.get_concrete_function()


def ragged(rows: sp.csr_matrix) -> tf.RaggedTensor:
    """Histories, int32 [users, (items)], of the rows of a users × items matrix.

    Examples:
      >>> ragged(sp.csr_matrix([[0, 1, 1], [0, 0, 0], [1, 0, 0]])).to_list()
      [[1, 2], [], [0]]
    """
    return _ragged(tf.constant(rows.indices, tf.int32), tf.constant(rows.indptr, tf.int32))


def in_order(matrix: sp.csr_matrix, batch_size: int) -> Iterator[tuple[slice, tf.RaggedTensor]]:
    """Batches of all rows from the first to the last, each with its place."""
    for start in range(0, matrix.shape[0], batch_size):
        place = slice(start, min(start + batch_size, matrix.shape[0]))
        yield place, ragged(matrix[place])


class UserBatches(Protocol):
    """Training users that are not a matrix in memory, [users, items]."""

    shape: tuple[int, int]

    def batches(self, batch_size: int, seed: int, number: int) -> Iterator[sp.csr_matrix]:
        """The users of pass `number` in batches, each user once; the last batch holds the rest."""


def of_pass(train: sp.csr_matrix | UserBatches, batch_size: int, seed: int, number: int) -> Iterator[sp.csr_matrix]:
    """The batches of one pass: rows of `train`, each once, in an order that is a function of (seed, number)."""
    if not sp.issparse(train):
        yield from train.batches(batch_size, seed, number)
        return
    matrix: Any = train
    order = np.random.default_rng([seed, number]).permutation(matrix.shape[0])
    for start in range(0, len(order), batch_size):
        yield matrix[order[start : start + batch_size]]


def steps_per_pass(matrix: sp.csr_matrix | UserBatches, batch_size: int) -> int:
    """Batches of a pass; the last one may be smaller."""
    return -(-matrix.shape[0] // batch_size)


def shuffled(
    train: sp.csr_matrix | UserBatches,
    batch_size: int,
    seed: int,
    first_pass: int = 0,
    first_step: int = 0,
    weighted: bool = False,
) -> tf.data.Dataset:
    """An endless stream of histories for training: each pass its own permutation, a function of (seed, pass) alone.

    Args:
      train: [users, items].
      batch_size: users in a batch; a pass's last batch holds the rest.
      seed: seed of the permutations.
      first_pass, first_step: the pass, and the batch of this pass, that the stream starts with, from 0.
      weighted: whether each batch is a pair: histories, and the values of `train`, float32 [items of the batch].
    """

    def generate() -> Iterator[tuple[np.ndarray, ...]]:
        skipped = first_step
        for number in itertools.count(first_pass):
            for rows in itertools.islice(of_pass(train, batch_size, seed, number), skipped, None):
                yield (rows.indices, rows.indptr, rows.data)[: 3 if weighted else 2]
            skipped = 0

    vectors = tuple(tf.TensorSpec([None], dtype) for dtype in (tf.int32, tf.int32, tf.float32))
    flat = tf.data.Dataset.from_generator(generate, output_signature=vectors[: 3 if weighted else 2])
    options = tf.data.Options()
    options.autotune.enabled = False  # nothing is to be tuned, and its thread can hold up the end of `fit` for seconds
    if weighted:
        batches = flat.map(lambda items, splits, weights: (_ragged(items, splits), weights))
    else:
        batches = flat.map(_ragged)
    return batches.prefetch(2).with_options(options)


def _ragged(items: tf.Tensor, splits: tf.Tensor) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_row_splits(items, splits, validate=False)
