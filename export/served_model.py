"""A trained model as its signatures see it: raw item ids in, raw item ids out."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from export.kernels import ServedKernels
from vae_cf_tf.evaluation.ranking import top_unseen
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.histories import rows_of
from vae_cf_tf.models.hybrid import HybridModel
from vae_cf_tf.registries import SIGNATURES, SIMILARITIES

LOWEST = np.finfo(np.float32).min
"""The score of a place for which no item is left. It stands for −∞, which JSON cannot represent."""
_INDICES, _SCALAR = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)
Items = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""The distinct items of some histories: columns and batch rows, int32 [items], row by row; and the batch size, []."""


class ServedModel:
    """A trained model and its catalogue, and the functions that signatures are made of.

    A history is sorted and made distinct before anything is summed over it, so that equal histories give equal bits.

    Args:
      model: trained; it stays as it is.
      item_ids: raw id of each column.
      top_k: length of a recommendation, at most the catalogue.
      lines: a file with the ids, one on each line, which becomes an asset.
      weights: "float32" or "bfloat16", the type of the kernels.
      similarity: a name of `SIMILARITIES`, what `similar_items` ranks by.

    Attributes:
      signatures: concrete functions by name.
      tracked: holds what they read and nothing else: the tables and the weights of the prediction.
    """

    def __init__(
        self,
        model: Autoencoder | HybridModel,
        item_ids: list[str],
        top_k: int,
        lines: Path,
        weights: str = "float32",
        similarity: str = SIMILARITIES.plainest,
    ):
        whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        catalogue = hashlib.sha256("\n".join(item_ids).encode()).hexdigest()[:16]
        column_of = _Lines(f"column_of_{catalogue}", lines, tf.string, whole, tf.int64, number)
        id_of = _Lines(f"id_of_{catalogue}", lines, tf.int64, number, tf.string, whole)
        self.column_of = tf.lookup.StaticHashTable(column_of, default_value=-1)
        self.id_of = tf.lookup.StaticHashTable(id_of, default_value="")
        self.num_items, self.top_k = len(item_ids), min(top_k, len(item_ids))
        self._kernels = ServedKernels(model, weights)  # its variables live as long as this
        with self._kernels.applied():
            # Functions of their own, so that the graph of the network is written once and not for each signature.
            arguments = [_INDICES, _INDICES, _SCALAR]
            long_indices = tf.TensorSpec([None], tf.int64)
            self._distinct = _traced(self._sorted, [long_indices, long_indices, _SCALAR])
            self.log_probs = _traced(lambda *items: model(_ragged(*items)), arguments)
            self.embedding = _traced(lambda *items: model.embed(_ragged(*items)), arguments)
            # Scores of some items, int32 [n], for each history: float32 [batch, n].
            self.scores_of = _traced(
                lambda items, rows, batch, some: model.scores(_ragged(items, rows, batch), some),
                [*arguments, _INDICES],
            )
            self.few_items = self._kernels.few_items()
            columns_of = lambda layer, units: self._kernels.of(layer).columns(units)  # noqa: E731
            self._similarity = SIMILARITIES[similarity](model, self.log_probs_of, columns_of)  # may have variables
            self.similarity = _traced(lambda *items: self._similarity(_ragged(*items)), arguments)
            parts = {name: SIGNATURES[name](self) for name in SIGNATURES.names()}
            self.signatures = {name: _traced(_checked(part), part.inputs) for name, part in parts.items()}
        self.tracked = tf.Module()
        self.tracked.tables = [self.column_of, self.id_of]
        self.tracked.weights = _variables(self.log_probs, self.embedding, self.similarity)

    def known_items(self, history: tf.Tensor | tf.RaggedTensor) -> Items:
        """The distinct items of the catalogue in histories of ids: string [batch, length], or ragged
        [batch, (length)]."""
        if isinstance(history, tf.RaggedTensor):
            columns = self.column_of.lookup(history.values)
            known = tf.where(columns >= 0)[:, 0]
            rows = tf.cast(tf.gather(rows_of(history), known), tf.int64)
            return self._distinct(tf.gather(columns, known), rows, tf.cast(history.nrows(), tf.int32))
        columns = self.column_of.lookup(history)
        known = tf.where(columns >= 0)
        return self._distinct(tf.gather_nd(columns, known), known[:, 0], tf.shape(history)[0])

    def best_unseen(self, items: tf.Tensor, rows: tf.Tensor, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        """`item_ids` and `scores`, [batch, k] each, of the best items that are not in the histories."""
        return self.named(*top_unseen(self.log_probs(items, rows, batch), items, rows, self.top_k))

    def log_probs_of(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """As `log_probs`, of histories of columns, int32 [batch, (items)]."""
        return self.log_probs(histories.values, histories.value_rowids(), tf.cast(histories.nrows(), tf.int32))

    def named(self, scores: tf.Tensor, columns: tf.Tensor) -> dict[str, tf.Tensor]:
        """`item_ids` and `scores` of ranked columns, [batch, k] each; "" and the lowest float where the score is −∞."""
        scores = tf.maximum(scores, LOWEST)
        ids = self.id_of.lookup(tf.where(scores > LOWEST, tf.cast(columns, tf.int64), -1))
        return {"item_ids": ids, "scores": scores}

    def _sorted(self, columns: tf.Tensor, rows: tf.Tensor, batch: tf.Tensor) -> Items:
        """Items, int64 [n], and their rows, row by row in the catalogue's order and each once."""
        cells = tf.sort(rows * self.num_items + columns)
        is_first = tf.concat([tf.ones([1], tf.bool), cells[1:] != cells[:-1]], axis=0)[: tf.size(cells)]
        cells = tf.gather(cells, tf.where(is_first)[:, 0])
        return tf.cast(cells % self.num_items, tf.int32), tf.cast(cells // self.num_items, tf.int32), batch


class _Lines(tf.lookup.TextFileInitializer):
    """A table from a text file, whose name in the graph is `shared_name`.

    Differs from its base in that name. The base's name holds the path on the exporting machine, so two exports of a run
    would differ. Within a process, tables of equal names are one table, so the name must identify the content.
    """

    def __init__(self, shared_name: str, lines: Path, *columns: Any):
        self._own_name = shared_name
        super().__init__(str(lines), *columns)

    @property
    def _shared_name(self) -> str:
        return self._own_name


def _variables(*functions: tf.types.experimental.ConcreteFunction) -> list[tf.Variable]:
    """What the functions read, in the order in which they do: equal in each export of a run."""
    handles = {id(handle): position for f in functions[::-1] for position, handle in enumerate(f.captured_inputs)}
    variables = {v.ref(): v for f in functions for v in f.graph.variables}
    first = {id(v.handle) for v in functions[0].graph.variables}
    return sorted(variables.values(), key=lambda v: (id(v.handle) not in first, handles[id(v.handle)]))


def _checked(signature: Any) -> Callable[..., dict[str, tf.Tensor]]:
    """The signature, but inputs of another rank, or of different batch sizes, are an error.

    A server compares a request's types with the signature's and not its shapes: a history of rank 1 would be answered
    as so many histories of one item.
    """

    def answer(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        values = [tf.ensure_shape(value, spec.shape) for value, spec in zip(inputs, signature.inputs, strict=True)]
        first, *others = signature.inputs
        batches = [tf.shape(value)[0] for value in values]
        same = [
            tf.debugging.assert_equal(batch, batches[0], f"{first.name} and {spec.name} must have the same batch size.")
            for spec, batch in zip(others, batches[1:], strict=True)
        ]
        with tf.control_dependencies(same):  # else another operation may fail first
            values = [tf.identity(value) for value in values]
        return signature(*values)

    return answer


def _traced(function: Callable, signature: Sequence[tf.TypeSpec]) -> tf.types.experimental.ConcreteFunction:
    return tf.function(function, input_signature=list(signature), autograph=False).get_concrete_function()


def _ragged(items: tf.Tensor, rows: tf.Tensor, batch: tf.Tensor) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_value_rowids(items, rows, batch, validate=False)
