"""Files of histories in, files of recommendations out: JSON lines, Parquet, or TFRecord of tf.Example.

A row has a `history`, a list of raw item ids, and may have a `user`, which is carried over. A recommendation has
`user` where the input has one, `item_ids` and `scores`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from vae_cf_tf.errors import UserError

KINDS = {".jsonl": "jsonl", ".parquet": "parquet", ".tfrecord": "tfrecord"}


class Row(NamedTuple):
    user: str | None
    history: list[str]


def kind_of(path: Path) -> str:
    if path.suffix not in KINDS:
        raise UserError(f"{path}: the kind of file is told by its ending, one of {', '.join(KINDS)}. Rename it.")
    return KINDS[path.suffix]


def rows(path: Path, start: int = 0) -> Iterator[Row]:
    """The rows of a file from number `start` on, few in memory at a time.

    Raises:
      UserError: names the file, the row (the line of JSON lines), and what is wrong.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}. Check --input.")
    kind = kind_of(path)
    number = 0
    try:
        for number, row in enumerate(_READERS[kind](path)):
            if number >= start:
                yield _checked(path, number, row)
    except (pa.ArrowException, tf.errors.OpError, OSError) as error:
        said = " ".join(str(error).split())[:160]
        raise UserError(f"{path} cannot be read as {kind} (after row {number}): {said}") from error


def _checked(path: Path, number: int, row: Any) -> Row:
    history = row.get("history") if isinstance(row, dict) else None
    if not isinstance(history, list) or not all(_is_id(item) for item in history):
        text = repr(row)
        raise UserError(
            f"{path}, row {number + 1}: a row needs `history`, a list of item ids. "
            f"Received: {text if len(text) <= 80 else text[:77] + '...'}"
        )
    user = row.get("user")
    return Row(None if user is None else str(user), [str(item) for item in history])


def _is_id(item: Any) -> bool:
    if isinstance(item, str):
        return not any("\ud800" <= c <= "\udfff" for c in item)  # half a character, which UTF-8 cannot carry
    return isinstance(item, int)


def _json_lines(path: Path) -> Iterator[Any]:
    with open(path, "rb") as f:
        for number, line in enumerate(f):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, row {number + 1}: it is not JSON ({error}). Correct or drop it.") from error


def _parquet(path: Path) -> Iterator[Any]:
    with pq.ParquetFile(path) as f:
        names = [name for name in ("user", "history") if name in f.schema_arrow.names]
        if "history" not in names:
            raise UserError(f"{path} has no column history. Found: {', '.join(f.schema_arrow.names)[:80]}")
        for batch in f.iter_batches(1024, columns=names):
            yield from batch.to_pylist()


def _tfrecord(path: Path) -> Iterator[Any]:
    for number, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()):
        try:
            feature = tf.train.Example.FromString(record).features.feature
            row: dict[str, Any] = {"history": [item.decode() for item in feature["history"].bytes_list.value]}
            if "user" in feature:
                row["user"] = feature["user"].bytes_list.value[0].decode()
        except Exception as error:  # protobuf's DecodeError has no public common base with UnicodeDecodeError
            raise UserError(
                f"{path}, row {number + 1}: it is no tf.Example of text ({type(error).__name__})."
            ) from error
        yield row


_READERS = {"jsonl": _json_lines, "parquet": _parquet, "tfrecord": _tfrecord}


def write(path: Path, kind: str, recommendations: list[dict[str, Any]]) -> None:
    """Writes rows with `item_ids`, `scores` and perhaps `user`."""
    if kind == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in recommendations)
        path.write_text(text, encoding="utf-8")
    elif kind == "parquet":
        fields = [("item_ids", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))]
        if recommendations and "user" in recommendations[0]:
            fields.insert(0, ("user", pa.string()))
        pq.write_table(pa.Table.from_pylist(recommendations, schema=pa.schema(fields)), path)
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in recommendations:
                writer.write(_example(row).SerializeToString(deterministic=True))


def _example(row: dict[str, Any]) -> tf.train.Example:
    def texts(values: list[str]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))

    feature = {
        "item_ids": texts(row["item_ids"]),
        "scores": tf.train.Feature(float_list=tf.train.FloatList(value=row["scores"])),
    }
    if row.get("user") is not None:
        feature["user"] = texts([row["user"]])
    return tf.train.Example(features=tf.train.Features(feature=feature))
