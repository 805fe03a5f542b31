"""Frames are read as the files of the same rows are."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import vae_cf_tf
from vae_cf_tf.data import formats, frames
from vae_cf_tf.errors import UserError

ROWS = [(10, 7, 4.0), (2, 5, 1.0), (10, 5, 5.0), (3, 7, 2.5)]
USERS, ITEMS = ["10", "2", "10", "3"], ["7", "5", "5", "7"]


class Stream:
    """A frame of a library that is not installed here: a schema and an Arrow stream, with Polars' types."""

    def __init__(self, table: pa.Table):
        self.columns, self._table = table.column_names, table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


def kinds() -> dict[str, object]:
    numbers = pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating"])
    text = numbers.astype({"user_id": str, "item_id": str})
    missing_type = numbers.astype({"user_id": "Int64", "item_id": "float64"})
    table = pa.table({"user_id": USERS, "item_id": ITEMS, "rating": [r for *_, r in ROWS]})
    views = table.set_column(0, "user_id", table["user_id"].cast(pa.string_view()))
    coded = pa.DictionaryArray.from_arrays(
        pa.array([1, 0, 0, 1], pa.uint32()), pa.array(["5", "7"]).cast(pa.string_view())
    )
    batches = [batch for start in range(4) for batch in table.slice(start, 1).to_batches()]
    return {
        "integers": numbers,
        "text": text,
        "nullable and float": missing_type,
        "category": text.astype({"user_id": "category", "item_id": "category"}),
        "index": numbers.set_index("user_id"),
        "index of two": numbers.set_index(["user_id", "item_id"]),
        "shuffled index": numbers.set_axis([9, 3, 1, 4]),
        "objects": text.astype(object),
        "arrow": table,
        "batches": pa.RecordBatchReader.from_batches(table.schema, batches),
        "views": Stream(views.set_column(1, "item_id", coded)),
    }


@pytest.mark.parametrize("kind", kinds())
def test_a_frame_is_the_log_of_its_rows(kind):
    frame = kinds()[kind]
    assert frames.is_frame(frame)
    log = vae_cf_tf.load(frame)
    assert log.user_ids[log.users].tolist() == USERS
    assert log.item_ids[log.items].tolist() == ITEMS
    assert log.user_ids.tolist() == ["10", "2", "3"]  # in order of first appearance
    np.testing.assert_array_equal(log.ratings, np.float32([r for *_, r in ROWS]))


def test_a_frame_is_read_as_its_parquet_file_is(tmp_path):
    frame = pd.DataFrame(ROWS, columns=["who", "what", "liked"])
    frame.to_parquet(tmp_path / "log.parquet")
    options = formats.ReaderOptions(user_column="who", item_column="what", rating_column="liked")
    ours, theirs = vae_cf_tf.load(frame, options), vae_cf_tf.load(str(tmp_path / "log.parquet"), options)
    assert ours.user_ids.tolist() == theirs.user_ids.tolist()
    assert ours.item_ids.tolist() == theirs.item_ids.tolist()
    for name in ("users", "items", "ratings"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"user": [1, "a"], "item": ["x", "y"]}), r"pandas DataFrame cannot be read .*astype\(str\)"),
        (pd.DataFrame({"who": [1], "what": [2]}), "pandas DataFrame seems|no user and item column"),
        (pd.DataFrame({"user": ["a", None], "item": ["x", "y"]}), "pandas DataFrame, row 2: the user id is empty"),
        (pd.DataFrame({"user": ["a", "b"], "item": [1.0, 2.5]}), r"row 2: the item id is 2\.5"),
        (pd.DataFrame({"user": [], "item": []}), "holds no rows"),
        (pd.DataFrame({"user": ["a"], "item": [[1]]}), "item is of type list"),
        (pa.table({"user": ["a"]}), "pyarrow Table has a single column"),
    ],
)
def test_what_is_wrong_with_a_frame_is_told_in_one_line(frame, message):
    with pytest.raises(UserError, match=message) as told:
        vae_cf_tf.load(frame)
    assert "\n" not in str(told.value)


def test_a_column_is_no_frame():
    assert not any(map(frames.is_frame, (pd.Series([1]), pa.chunked_array([[1]]), [[1]], {"user": [1]}, "path")))


def test_titles_come_from_a_mapping_or_a_frame():
    expected = {"10": "Ten", "3": "Three"}
    for given in (
        {10: "Ten", "3": " Three "},
        pd.DataFrame({"movieId": [10, 3, 4], "year": [1, 2, 3], "Title": ["Ten", "Three", None]}),
        pa.table({"id": [10.0, 3.0], "of it": ["Ten", "Three"]}),
    ):
        assert frames.titles(given) == expected
    for given, message in ((5, "Received: int"), (pd.DataFrame({"a": [1]}), "needs a column of ids and one of titles")):
        with pytest.raises(UserError, match=message):
            frames.titles(given)


def test_ids_of_a_request_are_text_as_the_readers_make_it():
    assert frames.id_texts([7, np.int64(8), 9.0, np.float32(3), " a ", b"b"]) == ["7", "8", "9", "3", "a", "b"]
    assert frames.id_texts(["10.0", 3]) == ["10", "3"]
    assert frames.id_texts(["10.0", "a"]) == ["10.0", "a"]  # no column of whole numbers
    for value, message in ((None, "missing"), (float("nan"), "missing"), (pd.NA, "missing"), (2.5, "not whole|2.5")):
        with pytest.raises(UserError, match=message):
            frames.id_texts(["a", value])
