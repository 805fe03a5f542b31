"""The SavedModel: signatures from histories of raw item ids to scores, and how it is written."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from vae_cf_tf import checkpoints
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.models import Autoencoder, build
from vae_cf_tf.workdir import Workdir

LOWEST = np.finfo(np.float32).min
_STRINGS = tf.TensorSpec([None, None], tf.string, name="history")
_EXAMPLES = tf.TensorSpec([None], tf.string, name="examples")


class Recommender(tf.Module):
    """A trained model behind the serving signatures.

    In `history`, string [batch, length], "" is padding, ids that are not in the catalogue and repeats change nothing,
    and order does not matter: a history is sorted and made distinct before anything is summed over it, so that equal
    histories give equal bits.

    Args:
      model: trained; only the weights that the signatures read become part of the module.
      item_ids: raw id of each column.
      top_k: length of a recommendation, at most the catalogue.
      folder: where item_ids.txt is written, which becomes an asset.
    """

    def __init__(self, model: Autoencoder, item_ids: list[str], top_k: int, folder: Path):
        super().__init__()
        model.sparse_input = True  # a short history must not cost a row of the catalogue's length
        lines = folder / "item_ids.txt"
        lines.write_text("".join(f"{item}\n" for item in item_ids), encoding="utf-8", newline="")
        whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        column_of = tf.lookup.TextFileInitializer(str(lines), tf.string, whole, tf.int64, number)
        id_of = tf.lookup.TextFileInitializer(str(lines), tf.int64, number, tf.string, whole)
        self.column_of = tf.lookup.StaticHashTable(column_of, default_value=-1)
        self.id_of = tf.lookup.StaticHashTable(id_of, default_value="")
        self.num_items, self.top_k = len(item_ids), min(top_k, len(item_ids))
        # Bound methods, not the model: what an attribute tracks is saved, and training's own weights should not be.
        self._scores, self._embedding = model.__call__, model.embed
        used = {v.ref(): v for f in self.concrete_functions().values() for v in f.graph.variables}
        self.weights = list(used.values())

    def concrete_functions(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The signatures by name."""
        return {
            "serving_default": self.scores.get_concrete_function(),
            "recommend": self.recommend.get_concrete_function(),
            "recommend_examples": self.recommend_examples.get_concrete_function(),
            "embed": self.embed.get_concrete_function(),
        }

    @tf.function(input_signature=[_STRINGS])
    def scores(self, history):
        return {"scores": self._scores(self._histories(history))}

    @tf.function(input_signature=[_STRINGS])
    def recommend(self, history):
        return self._best(self._histories(history))

    @tf.function(input_signature=[_EXAMPLES])
    def recommend_examples(self, examples):
        parsed = tf.io.parse_example(examples, {"history": tf.io.RaggedFeature(tf.string)})
        return self._best(self._histories(parsed["history"].to_tensor("")))

    @tf.function(input_signature=[_STRINGS])
    def embed(self, history):
        return {"embedding": self._embedding(self._histories(history))}

    def _histories(self, history: tf.Tensor) -> tf.RaggedTensor:
        """Sorted distinct columns of each row, int32 [batch, (items)]."""
        column = self.column_of.lookup(history)  # int64 [batch, length], -1 where it is no item
        rows = tf.shape(history, tf.int64)[0]
        key = tf.range(rows)[:, None] * self.num_items + column
        key = tf.sort(tf.boolean_mask(key, column >= 0))
        first = tf.concat([tf.ones([tf.minimum(1, tf.size(key))], tf.bool), key[1:] != key[:-1]], axis=0)
        key = tf.boolean_mask(key, first)
        items = tf.cast(key % self.num_items, tf.int32)
        splits = tf.cast(tf.searchsorted(key, tf.range(rows + 1) * self.num_items), tf.int32)
        return tf.RaggedTensor.from_row_splits(items, splits, validate=False)

    def _best(self, histories: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        scores = self._scores(histories)
        seen = tf.stack([histories.value_rowids(), histories.values], axis=1)
        never = tf.fill(tf.shape(histories.values), -np.float32(np.inf))
        values, columns = tf.math.top_k(tf.tensor_scatter_nd_update(scores, seen, never), self.top_k)
        left = tf.math.is_finite(values)
        ids = self.id_of.lookup(tf.where(left, tf.cast(columns, tf.int64), -1))
        return {"item_ids": ids, "scores": tf.where(left, values, LOWEST)}


def export_run(workdir: Workdir, export_dir: str | os.PathLike, top_k: int = 100) -> Path:
    """Writes the best epoch of a run as `export_dir`/<version>, whole or not at all, and returns that path.

    The version is one more than the largest there. A server that watches the folder sees the version only once it is
    complete: it is made in a folder whose name is no number, then renamed.
    """
    config = workdir.config()
    if not workdir.best.exists():
        raise UserError(f"{workdir.path} has no finished epoch to export: {workdir.best.name} is missing. Train first.")
    split: Split = workdir.split()
    if bad := [item for item in split.item_ids if "\n" in item or "\r" in item]:
        raise UserError(f"An item id holds a line break, which item_ids.txt cannot carry: {bad[0]!r}. Rename the item.")
    model = build(config, len(split.item_ids))
    checkpoints.load(workdir.best, checkpoints.model_variables(model))
    export_dir = Path(export_dir)
    export_dir.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=export_dir, prefix=".unfinished-"))
    try:
        module = Recommender(model, split.item_ids, top_k, aside)
        made = aside / "model"
        tf.saved_model.save(module, str(made), signatures=module.concrete_functions())
        made.chmod(0o755)
        version = max((int(p.name) for p in export_dir.iterdir() if p.name.isdecimal()), default=0) + 1
        os.rename(made, export_dir / str(version))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return export_dir / str(version)
