"""Batch scoring: every kind of file gives the same recommendations, a killed job goes on, bad input is one line."""

import csv
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from conftest import ROOT, built
from serving_kit import FACTS, ITEM_IDS, SMALL, TOP_K, exported, sealed
from typed import here, mistake, process

from export import card
from export.savedmodel import export_model
from export.scoring import history_files, job, loaded_model, parts, score_file
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import locked, sha256, write_json
from vae_cf_tf.settings import Settings


def rows(count: int = 50) -> list[dict]:
    rng = np.random.default_rng(5)
    return [
        {"user": f"u{n}", "history": [ITEM_IDS[i] for i in rng.permutation(len(ITEM_IDS))[: rng.integers(0, 38)]]}
        for n in range(count)
    ]


def feature(values: list) -> tf.train.Feature:
    if values and isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    encoded = [value if isinstance(value, bytes) else value.encode() for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))


def write(path: Path, given: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(given), path, row_group_size=7)
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in given:
                features = {
                    name: feature(values if isinstance(values, list) else [values]) for name, values in row.items()
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return path


def read(folder: Path) -> list[dict]:
    """The rows of all parts; a missing user of a TFRecord is None."""
    all_rows = []
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".jsonl":
            all_rows += [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".parquet":
            all_rows += pq.read_table(path).to_pylist()
        elif path.suffix == ".csv":
            with open(path, newline="") as file:
                for row in csv.DictReader(file):
                    all_rows.append(row | {name: json.loads(row[name]) for name in ("item_ids", "scores")})
        else:
            for record in tf.data.TFRecordDataset(str(path)):
                features = tf.train.Example.FromString(record.numpy()).features.feature
                user = features["user"]
                all_rows.append(
                    {
                        "user": next((v for v in (*user.bytes_list.value, *user.int64_list.value)), None),
                        "item_ids": [item.decode() for item in features["item_ids"].bytes_list.value],
                        "scores": list(features["scores"].float_list.value),
                    }
                )
    return all_rows


def expected(histories: list[list[str]], version: Path | None = None) -> list[tuple[list[str], list[float]]]:
    recommend = tf.saved_model.load(str(version or exported())).signatures["recommend"]
    answers = []
    for history in histories:
        answer = recommend(history=tf.constant([history], tf.string, [1, len(history)]))
        ids = [item.decode() for item in answer["item_ids"].numpy()[0] if item]
        answers.append((ids, answer["scores"].numpy()[0][: len(ids)].tolist()))
    return answers


def same(result: list[dict], given: list[dict], version: Path | None = None) -> None:
    wanted = expected([row["history"] for row in given], version)
    users = [row["user"].decode() if isinstance(row["user"], bytes) else row["user"] for row in result]
    assert users == [row["user"] for row in given]
    assert [list(row["item_ids"]) for row in result] == [ids for ids, _ in wanted]
    for row, (_, scores) in zip(result, wanted, strict=True):
        np.testing.assert_allclose(row["scores"], scores, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "kind"),
    [(".jsonl", ""), (".parquet", ""), (".tfrecord", ""), (".parquet", "csv"), (".jsonl", "parquet"),
     (".parquet", "tfrecord"), (".tfrecord", "jsonl")],
)  # fmt: skip
def test_every_kind_gives_the_same_recommendations(source, kind, tmp_path):
    given = rows()
    assert any(len(ITEM_IDS) - len(row["history"]) < TOP_K for row in given)
    score_file.score_file(exported(), write(tmp_path / f"users{source}", given), tmp_path / "out", kind, 8, 20)
    parts = sorted(path.name for path in (tmp_path / "out").glob("part-*"))
    assert parts == [f"part-{n:06d}.{kind or source[1:]}" for n in range(3)]
    same(read(tmp_path / "out"), given)


def test_the_command_as_typed(tmp_path):
    given = rows(30)
    given[3]["history"] += ["no such item", "no such item", ""]
    ids = sum(len(row["history"]) for row in given) - 1
    source, out = write(tmp_path / "users.parquet", given), tmp_path / "out"
    flags = [f"--model={exported().parent}", f"--input={source}", f"--output={out}", "--part_rows=12"]
    done = process("export.score", *flags)
    assert done.status == 0, done.stderr
    unknown = f"Ids in the histories: {ids}, of which 2 ({2 / ids:.2%}) are not in the catalogue."
    assert done.stdout == f"{out} is complete. Rows: 30. Parts: 3. Model: {exported()}. {unknown}\n"
    assert done.stderr.startswith(f"Read {source}: 30 rows. {unknown}\n")
    assert "30 of 30 rows" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "_SUCCESS", "_job.json", *(f"part-{n:06d}.parquet" for n in range(3)),
    ]  # fmt: skip
    same(pd.read_parquet(out).to_dict("records"), given)
    described = json.loads((out / "_job.json").read_text())
    assert (described["model"], described["version"]) == (str(exported().parent), "1")
    assert (described["input_name"], described["input_bytes"]) == ("users.parquet", source.stat().st_size)


def answers_by_rules(given: list[dict]) -> list[tuple[list[str], list[float]]]:
    """What the SavedModel says for each row alone."""
    filtered, answers = tf.saved_model.load(str(exported())).signatures["recommend_filtered"], []
    for row in given:
        lists = {n: tf.constant([[*(row.get(n) or []), ""]]) for n in ("history", "candidates", "exclude")}
        answer = filtered(**lists, include_history=tf.constant([bool(row.get("include_history"))]))
        ids = [item.decode() for item in answer["item_ids"].numpy()[0] if item]
        answers.append((ids, answer["scores"].numpy()[0][: len(ids)].tolist()))
    return answers


@pytest.mark.parametrize("source", [".jsonl", ".parquet", ".tfrecord"])
def test_rules_of_rows(source, tmp_path):
    given, rng = rows(40), np.random.default_rng(6)
    for n, row in enumerate(given):
        row["candidates"] = [ITEM_IDS[i] for i in rng.integers(0, 40, rng.integers(1, 20))] if n % 3 else []
        row["exclude"] = [ITEM_IDS[i] for i in rng.integers(0, 40, 5)] if n % 2 else []
        row["include_history"] = (n % 5 == 0) if source != ".tfrecord" else int(n % 5 == 0)
    if source != ".tfrecord":
        given[0]["candidates"] = given[3]["exclude"] = given[4]["include_history"] = None
    if source == ".jsonl":
        del given[0]["candidates"], given[1]["exclude"], given[2]["include_history"]
    score_file.score_file(exported(), write(tmp_path / f"users{source}", given), tmp_path / "out", "", 8, 25, k=6)
    result, wanted = read(tmp_path / "out"), answers_by_rules(given)
    assert [list(row["item_ids"]) for row in result] == [ids[:6] for ids, _ in wanted]
    assert {len(row["item_ids"]) for row in result} >= {0, 6}
    for row, (_, scores) in zip(result, wanted, strict=True):
        np.testing.assert_allclose(row["scores"], scores[:6], atol=1e-5)


BAD_RULES = {
    "candidates": ({"candidates": "i1"}, "row 2: `candidates` is a list of ids"),
    "exclude": ({"exclude": [1.5]}, "row 2: `exclude` is a list of ids"),
    "include_history": ({"include_history": "yes"}, "row 2: `include_history` is true or false"),
}


@pytest.mark.parametrize("name", BAD_RULES)
def test_bad_rules_are_told_in_one_line(name, tmp_path):
    more, message = BAD_RULES[name]
    path = write(tmp_path / "a.jsonl", [{"history": ["i1"]}, {"history": ["i1"]} | more])
    with pytest.raises(UserError, match=message):
        list(history_files.rows(path))
    pq.write_table(pa.table({"history": [["i1"]]} | {n: [v] for n, v in more.items()}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"`{name}` is a (list of texts or whole numbers|boolean)"):
        list(history_files.rows(tmp_path / "a.parquet"))


@pytest.mark.parametrize("ending", [".csv", ".tsv.gz", ".parquet"])
def test_a_log_of_events_gives_what_its_histories_give(ending, tmp_path):
    given = [row for row in rows(30) if row["history"]]
    events = [(row["user"], item, 5.0) for row in given for item in row["history"]]
    events += [(row["user"], "i7", 2.0) for row in given if "i7" not in row["history"]]  # do not count
    order = np.random.default_rng(2).permutation(len(events))
    frame = pd.DataFrame([events[i] for i in order], columns=["who", "item_id", "rating"])
    path = tmp_path / f"log{ending}"
    if ending == ".parquet":
        frame.to_parquet(path)
    else:
        options = {"sep": "\t", "quoting": csv.QUOTE_NONE} if "tsv" in ending else {}
        frame.to_csv(path, index=False, **options)
    flags = [f"--model={exported()}", f"--input={path}", f"--output={tmp_path / 'out'}", "--user_column=who", "--k=4"]
    done = here("export.score", *flags)
    assert done.status == 0, done.stderr
    assert list((tmp_path / "out").glob("part-*.parquet"))
    given = sorted(given, key=lambda row: list(frame["who"]).index(row["user"]))
    result = read(tmp_path / "out")
    assert [row["user"] for row in result] == [row["user"] for row in given]
    cleaned = {item.strip() for item in ITEM_IDS}
    wanted = expected([[item for item in row["history"] if item in cleaned] for row in given])
    assert [row["item_ids"] for row in result] == [ids[:4] for ids, _ in wanted]
    assert "is complete" in here("export.score", *flags).stdout
    assert "parts of another job (events was" in mistake(here("export.score", *flags, "--threshold=1"))
    assert "(k was 4, is 5)" in mistake(here("export.score", *flags[:-1], "--k=5"))


def test_a_log_counts_events_from_the_threshold_of_the_training(tmp_path):
    facts = FACTS | {"config": {"threshold": 2.0}}
    version = export_model(built(Settings.of(**SMALL), len(ITEM_IDS)), ITEM_IDS, {}, facts, tmp_path / "m", TOP_K)
    (tmp_path / "log.csv").write_text("user,item,rating\nu1,i1,2\nu1,i2,1\nu2,i3,0.5\n")
    score_file.score_file(version, tmp_path / "log.csv", tmp_path / "out", "jsonl")
    wanted = expected([["i1"], []], version)
    assert [(row["user"], row["item_ids"]) for row in read(tmp_path / "out")] == [
        ("u1", wanted[0][0]), ("u2", wanted[1][0]),
    ]  # fmt: skip


def test_mistakes_about_logs_and_k(tmp_path):
    users, out = write(tmp_path / "users.jsonl", rows(3)), tmp_path / "out"
    for flags, words in (
        (["--threshold=3"], "holds histories, and --threshold is for a log"),
        (["--item_column=item"], "holds histories, and --item_column is for a log"),
        ([f"--k={TOP_K + 1}"], f"--k={TOP_K + 1} is more than the {TOP_K} items"),
    ):
        mistake(here("export.score", f"--model={exported()}", f"--input={users}", f"--output={out}", *flags), words)
    (tmp_path / "log.csv").write_text("user,item\nu1,i1\nu1,\n")
    done = here("export.score", f"--model={exported()}", f"--input={tmp_path / 'log.csv'}", f"--output={out}")
    mistake(done, "log.csv, line 3: the item id is empty")


def versions_folder(path: Path) -> Path:
    """A folder of versions with version 1; `add_version` gives it another model."""
    shutil.copytree(exported(), path / "1")
    return path


def add_version(folder: Path) -> None:
    shutil.copytree(exported(), folder / "2")
    item_ids = folder / "2" / "assets" / "item_ids.txt"
    item_ids.write_text("".join(f"{item}\n" for item in reversed(ITEM_IDS)))
    about = card.read(folder / "2")
    about["sha256"]["assets/item_ids.txt"] = sha256(item_ids)
    write_json(folder / "2" / "assets.extra" / card.NAME, about)


KILLED = """
import os, sys
from pathlib import Path
from export.scoring import recommendation_files, score_file
write, parts = recommendation_files.Writer.write, set()
def dying(self, users, ids, scores):
    write(self, users, ids, scores)
    parts.add(self._file)
    if len(parts) == 3:
        os.kill(os.getpid(), 9)
recommendation_files.Writer.write = dying
score_file.score_file(*map(Path, sys.argv[1:4]), "", 8, 16)
"""


def test_a_killed_job_goes_on_with_its_version_although_there_is_a_newer_one(tmp_path, capsys):
    given, source, out = rows(100), tmp_path / "users.jsonl", tmp_path / "out"
    write(source, given)
    model = versions_folder(tmp_path / "models")
    killed = subprocess.run([sys.executable, "-c", KILLED, model, source, out], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    first = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert sorted(first) == ["part-000000.jsonl", "part-000001.jsonl"]
    add_version(model)
    score_file.score_file(model, source, out, "", 8, 16)
    assert f"{out} goes on with {model / '1'}: 2 of 7 parts are there." in capsys.readouterr().out
    assert {name: (out / name).stat().st_mtime_ns for name in first} == first
    same(read(out), given, model / "1")
    assert expected([[]], model / "1") != expected([[]], model / "2")


def test_a_version_that_is_gone_is_told(tmp_path):
    model, source = versions_folder(tmp_path / "models"), write(tmp_path / "users.jsonl", rows(5))
    score_file.score_file(model, source, tmp_path / "out")
    (tmp_path / "out" / "_SUCCESS").unlink()
    add_version(model)
    shutil.rmtree(model / "1")
    done = process("export.score", f"--model={model}", f"--input={source}", f"--output={tmp_path / 'out'}")
    mistake(done, f"was begun with {model / '1'}, which is gone")


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index", "assets/item_ids.txt"])
def test_a_damaged_model_scores_nothing(name, tmp_path):
    model, source = versions_folder(tmp_path / "models"), write(tmp_path / "users.jsonl", rows(5))
    content = bytearray((model / "1" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / "1" / name).write_bytes(content)
    flags = [f"--model={model}", f"--input={source}", f"--output={tmp_path / 'out'}"]
    mistake(process("export.score", *flags), f"{model / '1' / name} is damaged")
    assert not (tmp_path / "out").exists()


def test_a_damaged_part_of_a_finished_job_is_told(tmp_path):
    model, source, out = versions_folder(tmp_path / "models"), tmp_path / "users.parquet", tmp_path / "out"
    score_file.score_file(model, write(source, rows(50)), out, part_rows=20)
    subprocess.run(["sha256sum", "--check", "--strict", "_SUCCESS"], cwd=out, check=True, stdout=subprocess.DEVNULL)
    damaged = out / "part-000001.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(UserError, match=rf"{damaged} is damaged"):
        score_file.score_file(model, source, out, part_rows=20)
    damaged.unlink()
    score_file.score_file(model, source, out, part_rows=20)
    assert damaged.read_bytes() == whole


def test_a_finished_job_makes_a_lost_part_again_and_nothing_else(tmp_path, capsys):
    given, out, model = rows(50), tmp_path / "out", versions_folder(tmp_path / "models")
    source = write(tmp_path / "users.parquet", given)
    score_file.score_file(model, source, out, part_rows=20)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    capsys.readouterr()
    score_file.score_file(model, source, out, part_rows=20)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert capsys.readouterr().out.startswith(f"{out} is complete. Rows: 50. Parts: 3. Model: {model / '1'}.")
    add_version(model)
    (out / "part-000001.parquet").unlink()
    score_file.score_file(model, source, out, part_rows=20)
    assert "parts of it are missing: part-000001.parquet. They are made again" in capsys.readouterr().out
    same(read(out), given, model / "1")
    assert (out / "part-000000.parquet").stat().st_mtime_ns == before["part-000000.parquet"]
    assert (out / "_SUCCESS").exists()
    score_file.score_file(model, source, out, part_rows=20)
    assert f"To score with {model / '2'}, give another --output." in capsys.readouterr().out


def test_a_second_job_in_the_same_folder_is_refused(tmp_path):
    source, out = write(tmp_path / "users.jsonl", rows(5)), tmp_path / "out"
    with locked(out, "busy"):
        done = process("export.score", f"--model={exported()}", f"--input={source}", f"--output={out}")
        assert [path.name for path in out.iterdir()] == [".lock"]
    mistake(done, f"Another scoring job is writing to {out}")


def test_an_output_of_something_else_is_refused(tmp_path):
    source = write(tmp_path / "users.jsonl", rows(5))
    score_file.score_file(exported(), source, tmp_path / "out")
    with pytest.raises(UserError, match=r"another job \(part_rows was 16384, is 3\)\. Give another --output"):
        score_file.score_file(exported(), source, tmp_path / "out", part_rows=3)
    with pytest.raises(UserError, match=r"another job \(model_checksum was"):
        score_file.score_file(exported("bfloat16"), source, tmp_path / "out")
    write(source, rows(6))
    with pytest.raises(UserError, match=r"another job \(input_bytes was .*; input_modified_ns was"):
        score_file.score_file(exported(), source, tmp_path / "out")
    (tmp_path / "out" / "_job.json").write_text("{")
    with pytest.raises(UserError, match=r"_job\.json is damaged"):
        score_file.score_file(exported(), source, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    with pytest.raises(UserError, match=r"not empty \(it holds 'notes'"):
        score_file.score_file(exported(), source, tmp_path / "full")
    assert os.listdir(tmp_path / "full") == ["notes"]


def test_an_input_that_changes_meanwhile_is_told(tmp_path, monkeypatch):
    source, requests = write(tmp_path / "users.jsonl", rows(5)), parts.requests
    monkeypatch.setattr(parts, "requests", lambda *a: os.utime(source, (1, 1)) or requests(*a))
    with pytest.raises(UserError, match="has changed while it was read"):
        score_file.score_file(exported(), source, tmp_path / "out")
    assert not (tmp_path / "out" / "_SUCCESS").exists()


USERS = {
    "string": ["u1", None, "été"],
    "large_string": ["u1", None, "été"],
    "binary": [b"u1", None, b"\xff\x00"],
    "int64": [7, None, -(2**63)],
    "uint64": [2**64 - 1, None, 0],
    "double": [1.5, None, -2.0],
    "bool": [True, None, False],
    "time64[ns]": [None, 86_399_999_999_999, 1],
    "duration[ns]": [None, 2**63 - 1, 1],
    "timestamp[us]": [None, 2**62, -(2**62)],
    "timestamp[ns]": [None, pd.Timestamp(1700000000123456789), pd.Timestamp(0)],
    "date32": [None, datetime.date(2024, 2, 29), datetime.date(1970, 1, 1)],
    "dictionary<values=string, indices=int32, ordered=0>": [None, "a", "b"],
    "extension<arrow.uuid>": [uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=3)],
    "null": [None, None, None],
}
ALIASES = {
    "dictionary<values=string, indices=int32, ordered=0>": pa.dictionary(pa.int32(), pa.string()),
    "extension<arrow.uuid>": pa.uuid(),
}


@pytest.mark.parametrize("name", USERS)
def test_a_parquet_column_of_users_keeps_its_type_and_its_nulls(name, tmp_path):
    kind = ALIASES.get(name) or pa.type_for_alias(name)
    users = pa.array(USERS[name], kind)
    table = pa.table({"user": users, "history": [["i1"], [], ["i2", "i3"]]})
    pq.write_table(table, tmp_path / "a.parquet")
    score_file.score_file(exported(), tmp_path / "a.parquet", tmp_path / "out", part_rows=2)
    parts = [pq.read_table(path)["user"] for path in sorted((tmp_path / "out").glob("part-*"))]
    stored = pq.read_table(tmp_path / "a.parquet")["user"]
    assert [part.type for part in parts] == [stored.type] * 2
    kept, wanted = pa.chunked_array([chunk for part in parts for chunk in part.chunks]), stored
    if pa.types.is_dictionary(stored.type):  # the parts number their values anew
        kept, wanted = kept.cast(pa.string()), wanted.cast(pa.string())
    assert kept.equals(wanted)
    assert stored.null_count == sum(user is None for user in USERS[name])


def test_users_of_json_lines_and_of_tfrecords_keep_their_types(tmp_path):
    cases = [
        (".jsonl", [{"user": 7}, {"user": None}, {}, {"user": "7"}, {"user": 1.5}], "", [7, None, None, "7", 1.5]),
        (".jsonl", [{}, {"user": 7}, {"user": -1}], "parquet", [None, 7, -1]),
        (".jsonl", [{"user": 0}, {"user": 2**64 - 1}], "parquet", [0, 2**64 - 1]),
        (".jsonl", [{"user": "a"}, {"user": None}], "tfrecord", [b"a", None]),
        (".tfrecord", [{}, {"user": 7}, {"user": -(2**63)}], "", [None, 7, -(2**63)]),
        (".tfrecord", [{"user": 7}], "jsonl", [7]),
        (".tfrecord", [{"user": "été"}, {}], "parquet", ["été", None]),
        (".tfrecord", [{"user": "été"}, {"user": b"\xff"}], "parquet", ["été".encode(), b"\xff"]),
    ]
    for n, (suffix, users, kind, wanted) in enumerate(cases):
        source = write(tmp_path / f"{n}{suffix}", [{"history": ["i1"], **user} for user in users])
        score_file.score_file(exported(), source, tmp_path / str(n), kind)
        kept = [row["user"] for row in read(tmp_path / str(n))]
        assert kept == wanted
        assert [type(user) for user in kept] == [type(user) for user in wanted]


def test_users_that_the_output_cannot_hold_are_refused(tmp_path):
    mixed = write(tmp_path / "mixed.jsonl", [{"user": "a", "history": []}, {"user": 7, "history": []}])
    with pytest.raises(UserError, match=r"string and int64, .* one type. Give --kind=jsonl"):
        score_file.score_file(exported(), mixed, tmp_path / "out", "parquet")
    pq.write_table(pa.table({"user": [datetime.date(2024, 2, 29)], "history": [["i1"]]}), tmp_path / "date.parquet")
    with pytest.raises(UserError, match=r"cannot hold users of type date32.* Give --kind=parquet"):
        score_file.score_file(exported(), tmp_path / "date.parquet", tmp_path / "out", "jsonl")
    times = pa.array([{"t": 1}], pa.struct([("t", pa.time64("ns"))]))
    pq.write_table(pa.table({"user": times, "history": [["i1"]]}), tmp_path / "times.parquet")
    with pytest.raises(UserError, match=r"nanoseconds would be lost. .* Received: struct<t: time64\[ns\]>"):
        score_file.score_file(exported(), tmp_path / "times.parquet", tmp_path / "out")
    pq.write_table(pa.table({"user": [b"\xff"], "history": [["i1"]]}), tmp_path / "bytes.parquet")
    with pytest.raises(UserError, match=r"bytes that are no UTF-8, .* Give --kind=parquet"):
        score_file.score_file(exported(), tmp_path / "bytes.parquet", tmp_path / "out", "jsonl")


def test_rows_without_a_user_and_whole_numbers_as_ids(tmp_path):
    item_ids = [str(n) for n in range(len(ITEM_IDS))]  # the same model with whole numbers as ids
    shutil.copytree(exported(), tmp_path / "model")
    (tmp_path / "model" / "assets" / "item_ids.txt").write_text("".join(f"{item}\n" for item in item_ids))
    sealed(tmp_path / "model")
    wanted = [ids for ids, _ in expected([["7", "3"], []], tmp_path / "model")]
    (tmp_path / "a.jsonl").write_text('{"history": [7, "3"]}\n{"history": []}\n\n \n')
    integers = pa.array([[7, 3], []], pa.list_(pa.int32()))
    pq.write_table(pa.table({"history": integers}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"history": [[b"7", b"3"], []]}), tmp_path / "c.parquet")
    categories = pa.array([["7", "3"], []], pa.large_list(pa.dictionary(pa.int8(), pa.string())))
    pq.write_table(pa.table({"history": categories}), tmp_path / "d.parquet")
    write(tmp_path / "e.tfrecord", [{"history": [7, 3]}, {"history": []}])
    for name in ("a.jsonl", "b.parquet", "c.parquet", "d.parquet", "e.tfrecord"):
        out = tmp_path / name.replace(".", "_")
        score_file.score_file(tmp_path / "model", tmp_path / name, out, "jsonl")
        result = read(out)
        assert [row["item_ids"] for row in result] == wanted, name
        assert set(result[0]) == {"item_ids", "scores"}
        assert json.loads((out / "_job.json").read_text())["unknown_ids"] == 0


def test_no_rows_give_an_empty_part_with_its_columns(tmp_path):
    empty = pa.table({"user": pa.array([], pa.int64()), "history": pa.array([], pa.list_(pa.string()))})
    pq.write_table(empty, tmp_path / "a.parquet")
    score_file.score_file(exported(), tmp_path / "a.parquet", tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out")
    assert list(frame.columns) == ["user", "item_ids", "scores"]
    assert len(frame) == 0


@pytest.mark.parametrize(
    ("module", "name", "bound"),
    [(parts, "_CELLS", 500), (loaded_model, "_SCORES", 40 * 7), (loaded_model, "_ANSWERS", TOP_K * 7)],
)
def test_requests_are_cut_to_what_memory_holds(module, name, bound, tmp_path, monkeypatch):
    given = rows(30)
    given[11]["history"] = [f"x{n}" for n in range(400)] + given[11]["history"]
    requests, asked = parts.requests, []
    monkeypatch.setattr(module, name, bound)
    monkeypatch.setattr(parts, "requests", lambda *a: (asked.append(batch) or batch for batch in requests(*a)))
    score_file.score_file(exported(), write(tmp_path / "users.jsonl", given), tmp_path / "out", "", 64, 64)
    if name == "_CELLS":
        assert max(len(batch) * max(len(row.history) for row in batch) for batch in asked) <= bound
        assert len(asked) < 12
    else:
        assert [len(batch) for batch in asked] == [7, 7, 7, 7, 2]
    same(read(tmp_path / "out"), given)


def test_long_histories_of_a_parquet_file_are_read_a_few_rows_at_a_time(tmp_path, monkeypatch):
    pq.write_table(pa.table({"history": [["i1"] * 100] * 50}), tmp_path / "a.parquet")
    monkeypatch.setattr(history_files, "_CELLS", 1000)
    read_rows, sizes = history_files.table_rows, []
    monkeypatch.setattr(history_files, "table_rows", lambda b: sizes.append(len(b)) or read_rows(b))
    assert len(list(history_files.rows(tmp_path / "a.parquet"))) == 50
    assert sizes == [10] * 5


def test_parts_of_parquet_have_few_row_groups(tmp_path):
    score_file.score_file(exported(), write(tmp_path / "users.parquet", rows(100)), tmp_path / "out", "", 8)
    assert pq.ParquetFile(tmp_path / "out" / "part-000000.parquet").num_row_groups == 1


BAD = {
    "a.jsonl": (b'{"history": ["i1"]}\n{"history": "i1"}\n', "row 2: it needs `history`"),
    "b.jsonl": (b"[1]\n", "row 1: it is no JSON object"),
    "c.jsonl": (b'{"history": ["i1"]}\nnonsense\n', "row 2: it is not JSON"),
    "d.jsonl": (b'{"history": ["\\ud800"]}\n', "row 1: a text holds half a character"),
    "e.jsonl": (b'\xff{"history": []}\n', "row 1: it is not JSON"),
    "f.parquet": (b"no parquet", "cannot be read as parquet"),
    "g.tfrecord": (b"no record at all", "cannot be read as tfrecord"),
    "h.csv": (b"i1,i2", "has no user and item column of a usual name"),
    "i.jsonl": (b'{"history": [true]}\n', "row 1: it needs `history`"),
    "j.jsonl": (b'{"history": [], "user": "\\udfff"}\n', "row 1: a text holds half a character"),
    "k.jsonl": (b"[" * 100_000 + b"\n", "row 1: it is not JSON"),
    "l.jsonl": (b'{"history": []}\n\n{"history": []}\n', "row 2: it is blank"),
    "m.jsonl": (b'{"history": [], "user": true}\n', "row 1: `user` is a text or a number"),
    "n.jsonl": (b'{"history": [7.5]}\n', "row 1: it needs `history`"),
    "o.jsonl": (b'{"history": [], "user": NaN}\n', "row 1: it is not JSON"),
    "q.jsonl": (b'{"history": [], "user": 1e999}\n', "row 1: `user` is no number"),
    "p.jsonl": (b'{"history": [], "user": 18446744073709551616}\n', "row 1: `user` is beyond 64 bits"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line(name, tmp_path):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        score_file.score_file(exported(), tmp_path / name, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert name in str(error.value)
    assert not list((tmp_path / "out").glob("part-*"))


BAD_TABLES = {
    "no history": ({"items": [["i1"]]}, "one column `history` .* Found: items"),
    "floats": ({"history": [[1.0]]}, "`history` is a list of texts or whole numbers. Received: list<.*double>"),
    "booleans": ({"history": [[True]]}, "`history` is a list of texts or whole numbers"),
    "no list": ({"history": ["i1"]}, "`history` is a list of texts or whole numbers. Received: string"),
    "a null item": ({"history": [["i1"], ["i1", None]]}, "row 2: `history` holds a null"),
    "a null history": ({"history": [["i1"], None]}, "row 2: `history` is null"),
    "no UTF-8": ({"history": [[b"\xff"]]}, "cannot be read as parquet"),
}
BAD_RECORDS = {
    "no history": ({"user": "u1"}, "row 1: it needs `history`"),
    "floats": ({"history": [1.0]}, "row 1: it needs `history`"),
    "no UTF-8": ({"history": [b"\xff"]}, "row 1: it needs `history`"),
    "two users": ({"history": ["i1"], "user": ["a", "b"]}, "row 1: `user` holds 2 values"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_parquet_is_told_in_one_line(name, tmp_path):
    columns, message = BAD_TABLES[name]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        list(history_files.rows(tmp_path / "a.parquet"))


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_records_are_told_in_one_line(name, tmp_path):
    row, message = BAD_RECORDS[name]
    with pytest.raises(UserError, match=message):
        list(history_files.rows(write(tmp_path / "a.tfrecord", [row])))
    with tf.io.TFRecordWriter(str(tmp_path / "b.tfrecord")) as writer:
        writer.write(b"\xff\xff no example")
    with pytest.raises(UserError, match=r"row 1: it is no tf\.Example"):
        list(history_files.rows(tmp_path / "b.tfrecord"))


def test_inputs_and_models_that_are_none(tmp_path):
    (tmp_path / "folder.parquet").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    source, out = write(tmp_path / "users.jsonl", rows(2)), tmp_path / "out"
    for name, message in (
        ("folder.parquet", "is a folder. Give one file"),
        ("pipe.jsonl", "is no regular file"),
        ("missing.jsonl", "There is no file"),
        (b"\xff.jsonl".decode(errors="surrogateescape"), "the path is not UTF-8"),
    ):
        mistake(
            process("export.score", f"--model={exported()}", f"--input={tmp_path / name}", f"--output={out}"), message
        )
    with pytest.raises(UserError, match="holds no version"):
        score_file.score_file(tmp_path / "folder.parquet", source, tmp_path / "out1")
    shutil.copytree(exported(), tmp_path / "damaged")
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"saved_model\.pb is damaged"):
        score_file.score_file(tmp_path / "damaged", source, tmp_path / "out2")
    sealed(tmp_path / "damaged")
    with pytest.raises(UserError, match="cannot be loaded as a SavedModel"):
        score_file.score_file(tmp_path / "damaged", source, tmp_path / "out2")
    other = tf.Module()
    function = tf.function(
        lambda history: {"scores": history}, input_signature=[tf.TensorSpec([None, None], tf.string)]
    )
    tf.saved_model.save(other, str(tmp_path / "other"), signatures={"serving_default": function})
    with pytest.raises(UserError, match=r"has no assets/item_ids\.txt"):
        score_file.score_file(tmp_path / "other", source, tmp_path / "out3")
    shutil.copytree(exported() / "assets", tmp_path / "other" / "assets", dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"no signature `recommend` .* Its signatures: serving_default"):
        score_file.score_file(tmp_path / "other", source, tmp_path / "out4")


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_catalogue_and_top_k(tmp_path):
    """400,000 items, top_k 1,000, the default batch; 2.6 GB before requests were cut and parts written as they came."""
    items = 400_000
    item_ids = [str(n) for n in range(items)]
    model = export_model(built(Settings.of(**SMALL), items), item_ids, {}, FACTS, tmp_path / "models", 1000)
    rng = np.random.default_rng(0)
    given = [{"user": n, "history": rng.integers(0, items, 100).tolist()} for n in range(6000)]
    source = write(tmp_path / "users.jsonl", given)
    script = (
        "import resource, sys; from pathlib import Path; from export.scoring import score_file\n"
        "score_file.score_file(*map(Path, sys.argv[1:4]), 'parquet')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    arguments = [sys.executable, "-c", script, model, source, tmp_path / "out"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 1400
    assert job.read(tmp_path / "out")["rows"] == 6000
