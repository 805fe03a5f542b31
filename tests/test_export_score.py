"""Batch scoring: every kind of file gives the same recommendations, a killed run goes on, bad input is one line."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from serving_kit import ITEM_IDS, TOP_K, exported

from export import history_files, score
from vae_cf_tf.errors import UserError


def rows(count: int = 50) -> list[dict]:
    rng = np.random.default_rng(5)
    return [
        {"user": f"u{n}", "history": [ITEM_IDS[i] for i in rng.permutation(len(ITEM_IDS))[: rng.integers(0, 38)]]}
        for n in range(count)
    ]


def texts(values: list[str]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))


def write(path: Path, given: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(given), path, row_group_size=7)
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in given:
                features = {"user": texts([row["user"]]), "history": texts(row["history"])}
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return path


def read(folder: Path) -> list[tuple[str, list[str], list[float]]]:
    found = []
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".jsonl":
            found += [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".parquet":
            found += pq.read_table(path).to_pylist()
        else:
            for record in tf.data.TFRecordDataset(str(path)):
                feature = tf.train.Example.FromString(record.numpy()).features.feature
                ids = [item.decode() for item in feature["item_ids"].bytes_list.value]
                scores = list(feature["scores"].float_list.value)
                user = feature["user"].bytes_list.value[0].decode()
                found.append({"user": user, "item_ids": ids, "scores": scores})
    return [(row["user"], row["item_ids"], row["scores"]) for row in found]


def expected(given: list[dict]) -> list[tuple[str, list[str], list[float]]]:
    recommend = tf.saved_model.load(str(exported())).signatures["recommend"]
    found = []
    for row in given:
        answer = recommend(history=tf.constant([row["history"]], tf.string, [1, len(row["history"])]))
        ids = [item.decode() for item in answer["item_ids"].numpy()[0] if item]
        found.append((row["user"], ids, answer["scores"].numpy()[0][: len(ids)].tolist()))
    return found


def same(found: list, wanted: list) -> None:
    assert [(user, ids) for user, ids, _ in found] == [(user, ids) for user, ids, _ in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one[2], other[2], atol=1e-5)


@pytest.mark.parametrize("source", [".jsonl", ".parquet", ".tfrecord"])
@pytest.mark.parametrize("kind", ["", "jsonl", "parquet", "tfrecord"])
def test_every_kind_gives_the_same_recommendations(source, kind, tmp_path):
    given = rows()
    assert any(len(ITEM_IDS) - len(row["history"]) < TOP_K for row in given)
    score.score(exported(), write(tmp_path / f"users{source}", given), tmp_path / "out", kind, 8, 20)
    parts = sorted(path.name for path in (tmp_path / "out").glob("part-*"))
    assert parts == [f"part-{n:06d}.{kind or source[1:]}" for n in range(3)]
    same(read(tmp_path / "out"), expected(given))


def test_rows_without_a_user_and_whole_numbers_as_ids(tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"history": [7, "i3"]}\n{"history": []}\n')
    score.score(exported(), source, tmp_path / "out")
    found = [json.loads(line) for line in (tmp_path / "out" / "part-000000.jsonl").read_text().splitlines()]
    wanted = expected([{"user": "", "history": ["7", "i3"]}, {"user": "", "history": []}])
    assert [row["item_ids"] for row in found] == [ids for _, ids, _ in wanted]
    assert set(found[0]) == {"item_ids", "scores"}


def test_a_killed_run_goes_on_behind_its_last_part(tmp_path):
    given, source, out = rows(100), tmp_path / "users.jsonl", tmp_path / "out"
    write(source, given)
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from vae_cf_tf import quiet; quiet.import_tensorflow()\n"
        "from export import history_files, score\n"
        "write, parts = history_files.write, []\n"
        "def dying(path, kind, rows):\n"
        "    parts.append(path); write(path, kind, rows[: len(rows) // 2 if len(parts) == 3 else None])\n"
        "    if len(parts) == 3: os.kill(os.getpid(), 9)\n"
        "history_files.write = dying\n"
        "score.score(*map(Path, sys.argv[2:5]), '', 8, 16)\n"
    )
    import subprocess

    root = Path(__file__).parents[1]
    killed = subprocess.run([sys.executable, "-c", script, root, exported(), source, out], capture_output=True)
    assert killed.returncode == -9
    first = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert sorted(first) == ["part-000000.jsonl", "part-000001.jsonl"]
    score.score(exported(), source, out, "", 8, 16)
    assert {name: (out / name).stat().st_mtime_ns for name in first} == first
    same(read(out), expected(given))
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    score.score(exported(), source, out, "", 8, 16)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_an_output_of_something_else_is_refused(tmp_path):
    source = write(tmp_path / "users.jsonl", rows(5))
    score.score(exported(), source, tmp_path / "out")
    with pytest.raises(UserError, match="another input"):
        score.score(exported(), source, tmp_path / "out", part_rows=3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        score.score(exported(), source, tmp_path / "full")


def test_a_long_history_does_not_widen_its_neighbours_requests(tmp_path, monkeypatch):
    given = rows(30)
    given[11]["history"] = [f"x{n}" for n in range(400)] + given[11]["history"]
    shapes = []
    answers = score._answers
    monkeypatch.setattr(score, "_CELLS", 500)
    monkeypatch.setattr(
        score,
        "_answers",
        lambda ask, batch: shapes.append(len(batch) * max(len(r.history) for r in batch)) or answers(ask, batch),
    )
    score.score(exported(), write(tmp_path / "users.jsonl", given), tmp_path / "out", "", 64, 64)
    assert max(shapes) <= 500
    assert len(shapes) < 12
    same(read(tmp_path / "out"), expected(given))


BAD = {
    "a.jsonl": (b'{"history": ["i1"]}\n{"history": "i1"}\n', "row 2: a row needs `history`"),
    "b.jsonl": (b"[1]\n", "row 1: a row needs `history`"),
    "c.jsonl": (b'{"history": ["i1"]}\nnonsense\n', "row 2: it is not JSON"),
    "d.jsonl": (b'{"history": ["\\ud800"]}\n', "row 1: a row needs `history`"),
    "e.jsonl": (b'\xff{"history": []}\n', "row 1: it is not JSON"),
    "f.parquet": (b"no parquet", "cannot be read as parquet"),
    "g.tfrecord": (b"no record at all", "cannot be read as tfrecord"),
    "h.csv": (b"i1,i2", "told by its ending"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line(name, tmp_path):
    content, said = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        score.score(exported(), tmp_path / name, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_other_bad_files(tmp_path):
    pq.write_table(pa.table({"items": [["i1"]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column history\. Found: items"):
        list(history_files.rows(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"history": [["i1", None]]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="row 1: a row needs"):
        list(history_files.rows(tmp_path / "b.parquet"))
    with tf.io.TFRecordWriter(str(tmp_path / "c.tfrecord")) as writer:
        writer.write(b"\xff\xff no example")
    with pytest.raises(UserError, match=r"row 1: it is no tf\.Example"):
        list(history_files.rows(tmp_path / "c.tfrecord"))
    with pytest.raises(UserError, match="There is no file"):
        list(history_files.rows(tmp_path / "missing.jsonl"))
