"""The signatures of the SavedModel: from histories of raw item ids to scores, recommendations and embeddings."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from export.products import ServedProducts
from vae_cf_tf.evaluation import top_unseen
from vae_cf_tf.histories import rows_of
from vae_cf_tf.models import Autoencoder

LOWEST = np.finfo(np.float32).min
"""The score of a place for which no item is left: JSON has no word for −∞."""
_HISTORY = tf.TensorSpec([None, None], tf.string, name="history")
_EXAMPLES = tf.TensorSpec([None], tf.string, name="examples")
_INDICES, _SCALAR = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)


class Recommender:
    """A trained model behind the serving signatures.

    In `history`, string [batch, length], "" is padding, ids that are not in the catalogue and repeats change nothing,
    and order does not matter: a history is sorted and made distinct before anything is summed over it, so that equal
    histories give equal bits.

    Args:
      model: trained; it stays as it is.
      item_ids: raw id of each column.
      top_k: length of a recommendation, at most the catalogue.
      lines: a file with the ids, one on each line, which becomes an asset.
      weights: "float32" or "bfloat16", the type of the kernels.

    Attributes:
      signatures: concrete functions by name.
      tracked: holds what they read and nothing else: the tables and the weights of the prediction.
    """

    def __init__(self, model: Autoencoder, item_ids: list[str], top_k: int, lines: Path, weights: str = "float32"):
        whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        catalogue = hashlib.sha256("\n".join(item_ids).encode()).hexdigest()[:16]
        column_of = _Lines(f"column_of_{catalogue}", lines, tf.string, whole, tf.int64, number)
        id_of = _Lines(f"id_of_{catalogue}", lines, tf.int64, number, tf.string, whole)
        self._column_of = tf.lookup.StaticHashTable(column_of, default_value=-1)
        self._id_of = tf.lookup.StaticHashTable(id_of, default_value="")
        self._items, self._top_k = len(item_ids), min(top_k, len(item_ids))
        self._products = ServedProducts(model, weights)  # its variables live as long as this
        with self._products.applied():
            # Functions of their own, so that the graph of the network is written once and not for each signature.
            arguments = [_INDICES, _INDICES, _SCALAR]
            long_indices = tf.TensorSpec([None], tf.int64)
            self._sorted = _traced(self._sort, [long_indices, long_indices, _SCALAR])
            self._log_probs = _traced(lambda *history: model(_ragged(*history)), arguments)
            self._mean = _traced(lambda *history: model.embed(_ragged(*history)), arguments)
            self.signatures = {
                name: _traced(function, [spec])
                for name, function, spec in (
                    ("serving_default", self._scores, _HISTORY),
                    ("recommend", self._recommend, _HISTORY),
                    ("recommend_examples", self._recommend_examples, _EXAMPLES),
                    ("embed", self._embed, _HISTORY),
                )
            }
        self.tracked = tf.Module()
        self.tracked.tables = [self._column_of, self._id_of]
        self.tracked.weights = _variables(self._log_probs, self._mean)

    def _scores(self, history):
        return {"scores": self._log_probs(*self._distinct(history))}

    def _recommend(self, history):
        return self._best(*self._distinct(history))

    def _recommend_examples(self, examples):
        history = tf.io.parse_example(examples, {"history": tf.io.RaggedFeature(tf.string)})["history"]
        columns = self._column_of.lookup(history.values)
        known = tf.where(columns >= 0)[:, 0]
        rows = tf.cast(tf.gather(rows_of(history), known), tf.int64)
        return self._best(*self._sorted(tf.gather(columns, known), rows, tf.size(examples)))

    def _embed(self, history):
        return {"embedding": self._mean(*self._distinct(history))}

    def _distinct(self, history: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct known items of ids, string [batch, length]: columns and rows, int32 [items], and the batch."""
        columns = self._column_of.lookup(history)
        known = tf.where(columns >= 0)
        return self._sorted(tf.gather_nd(columns, known), known[:, 0], tf.shape(history)[0])

    def _sort(self, columns: tf.Tensor, rows: tf.Tensor, batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Items, int64 [n], and their rows, row by row in the catalogue's order and each once."""
        place = tf.sort(rows * self._items + columns)
        is_first = tf.concat([tf.ones([1], tf.bool), place[1:] != place[:-1]], axis=0)[: tf.size(place)]
        place = tf.gather(place, tf.where(is_first)[:, 0])
        return tf.cast(place % self._items, tf.int32), tf.cast(place // self._items, tf.int32), batch

    def _best(self, items, rows, batch):
        scores, columns = top_unseen(self._log_probs(items, rows, batch), items, rows, self._top_k)
        scores = tf.maximum(scores, LOWEST)
        ids = self._id_of.lookup(tf.where(scores > LOWEST, tf.cast(columns, tf.int64), -1))
        return {"item_ids": ids, "scores": scores}


class _Lines(tf.lookup.TextFileInitializer):
    """A table from a text file, whose name in the graph is `shared_name`.

    Differs from its base in that name: the base's holds the path on the exporting machine, so that no two exports of a
    run were equal. Tables of equal names are one table within a process: the name must tell the content.
    """

    def __init__(self, shared_name: str, *args):
        self._own_name = shared_name
        super().__init__(str(args[0]), *args[1:])

    @property
    def _shared_name(self) -> str:
        return self._own_name


def _variables(*functions: tf.types.experimental.ConcreteFunction) -> list[tf.Variable]:
    """What the functions read, in the order in which they do: equal in each export of a run."""
    handles = {id(handle): place for f in functions[::-1] for place, handle in enumerate(f.captured_inputs)}
    found = {v.ref(): v for f in functions for v in f.graph.variables}
    first = {id(v.handle) for v in functions[0].graph.variables}
    return sorted(found.values(), key=lambda v: (id(v.handle) not in first, handles[id(v.handle)]))


def _traced(function: Callable, signature: list[tf.TypeSpec]) -> tf.types.experimental.ConcreteFunction:
    return tf.function(function, input_signature=signature).get_concrete_function()


def _ragged(items: tf.Tensor, rows: tf.Tensor, batch: tf.Tensor) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_value_rowids(items, rows, batch, validate=False)
