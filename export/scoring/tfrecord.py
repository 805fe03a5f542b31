"""Reads and writes TFRecord files of tf.train.Example."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf


def read(path: Path, names: tuple[str, ...]) -> Iterator[dict[str, list[Any]]]:
    """The features of these names that each record has: lists of bytes, floats or whole numbers.

    Raises:
      DecodeError: a record is not a tf.train.Example.
      OSError: the file is damaged.
    """
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    while True:
        try:
            record = next(records, None)
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        if record is None:
            return
        feature = tf.train.Example.FromString(record).features.feature
        yield {name: _values(feature[name]) for name in names if name in feature}


def _values(feature: tf.train.Feature) -> list[Any]:
    """The values of a feature; [] where it has none of the three lists."""
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


class RecommendationWriter:
    """Writes recommendations, an Example a row, with the features `user`, `item_ids` and `scores`.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path):
        self._file = tf.io.TFRecordWriter(str(path))
        self.close = self._file.close

    def write(self, users: list[Any] | None, ids: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> None:
        for i, count in enumerate(counts):
            example = tf.train.Example()
            feature = example.features.feature
            user = None if users is None else users[i]
            if isinstance(user, int):
                feature["user"].int64_list.value.append(user)
            elif isinstance(user, float):
                feature["user"].float_list.value.append(user)
            elif user is not None:
                feature["user"].bytes_list.value.append(user if isinstance(user, bytes) else user.encode())
            feature["item_ids"].bytes_list.value.extend(ids[i, :count].tolist())
            feature["scores"].float_list.value.extend(scores[i, :count].tolist())
            self._file.write(example.SerializeToString(deterministic=True))
