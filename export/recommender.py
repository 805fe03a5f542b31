"""The signatures of the SavedModel: from histories of raw item ids to scores, recommendations and embeddings."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from export.products import for_serving
from vae_cf_tf.evaluation import top_unseen
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
      model: trained; it is turned into one that only predicts.
      item_ids: raw id of each column.
      top_k: length of a recommendation, at most the catalogue.
      folder: where item_ids.txt is written, which becomes an asset.
      weights: "float32" or "bfloat16", the type of the kernels.

    Attributes:
      signatures: concrete functions by name.
      tracked: holds what they read and nothing else: the tables and the weights of the prediction.
    """

    def __init__(self, model: Autoencoder, item_ids: list[str], top_k: int, folder: Path, weights: str = "float32"):
        for_serving(model, weights)
        lines = folder / "item_ids.txt"
        lines.write_text("".join(f"{item}\n" for item in item_ids), encoding="utf-8", newline="")
        whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        column_of = tf.lookup.TextFileInitializer(str(lines), tf.string, whole, tf.int64, number)
        id_of = tf.lookup.TextFileInitializer(str(lines), tf.int64, number, tf.string, whole)
        self._column_of = tf.lookup.StaticHashTable(column_of, default_value=-1)
        self._id_of = tf.lookup.StaticHashTable(id_of, default_value="")
        self._top_k = min(top_k, len(item_ids))
        # Functions of their own, so that the graph of the network is written once and not for each signature.
        self._log_probs = tf.function(lambda *h: model(_ragged(*h)), input_signature=[_INDICES, _INDICES, _SCALAR])
        self._mean = tf.function(lambda *h: model.embed(_ragged(*h)), input_signature=[_INDICES, _INDICES, _SCALAR])
        self.signatures = {
            name: tf.function(function, input_signature=[spec]).get_concrete_function()
            for name, function, spec in (
                ("serving_default", self._scores, _HISTORY),
                ("recommend", self._recommend, _HISTORY),
                ("recommend_examples", self._recommend_examples, _EXAMPLES),
                ("embed", self._embed, _HISTORY),
            )
        }
        used = {v.ref(): v for f in self.signatures.values() for v in f.graph.variables}
        self.tracked = tf.Module()
        self.tracked.tables, self.tracked.weights = [self._column_of, self._id_of], list(used.values())

    def _scores(self, history):
        return {"scores": self._log_probs(*self._distinct(history))}

    def _recommend(self, history):
        items, rows, batch = self._distinct(history)
        scores, columns = top_unseen(self._log_probs(items, rows, batch), items, rows, self._top_k)
        scores = tf.maximum(scores, LOWEST)
        ids = self._id_of.lookup(tf.where(scores > LOWEST, tf.cast(columns, tf.int64), -1))
        return {"item_ids": ids, "scores": scores}

    def _recommend_examples(self, examples):
        parsed = tf.io.parse_example(examples, {"history": tf.io.RaggedFeature(tf.string)})
        return self._recommend(parsed["history"].to_tensor(""))

    def _embed(self, history):
        return {"embedding": self._mean(*self._distinct(history))}

    def _distinct(self, history: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The distinct items of all rows, sorted row by row: columns and rows, int32 [items], and the batch's size."""
        column = tf.sort(tf.cast(self._column_of.lookup(history), tf.int32), axis=1)  # [batch, length], first the -1s
        batch, length = tf.unstack(tf.shape(column))
        before = tf.concat([tf.fill([batch, 1], -1), column], axis=1)[:, :length]
        found = tf.cast(tf.where(column != before), tf.int32)
        return tf.gather_nd(column, found), found[:, 0], batch


def _ragged(items: tf.Tensor, rows: tf.Tensor, batch: tf.Tensor) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_value_rowids(items, rows, batch, validate=False)
