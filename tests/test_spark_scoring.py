"""Scoring on Spark gives the bits of the job on one machine. Skipped where PySpark or Java is missing."""

import importlib.util
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from serving_kit import ITEM_IDS, exported
from test_score_workers import given
from typed import here, mistake, process

from export.scoring import score_file
from vae_cf_tf.data.formats import ReaderOptions
from vae_cf_tf.errors import UserError

if importlib.util.find_spec("pyspark") is None:
    pytest.skip("PySpark is not installed (pip install pyspark)", allow_module_level=True)
if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
    pytest.skip("there is no Java, which Spark needs", allow_module_level=True)

from pyspark.sql import functions as F

from export.scoring import spark, spark_job

CONF = ["spark.master=local[2]", "spark.sql.shuffle.partitions=3", "spark.sql.files.maxPartitionBytes=2k"]
"""Files of a few kilobytes are read as several partitions."""


@pytest.fixture(scope="module")
def session():
    with spark_job.session(CONF) as session:
        yield session


def table_with_rules(path: Path) -> Path:
    pq.write_table(given(90), path, row_group_size=20)
    return path


def json_lines(path: Path) -> Path:
    """Users of several types, and ids of two."""
    rows = [
        {"user": None if n == 4 else n if n % 2 else f"ü,{n}", "history": r["history"]}
        for n, r in enumerate(given(90).to_pylist())
    ]
    rows[3]["history"] += ["no such item", 7, ""]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return path


def log(path: Path) -> Path:
    """Events in no order, with ratings that do not count, a user without any that does, and blanks around ids."""
    events = [
        (f"u{row['user']}", i, [5, 2][n % 3 == 0])
        for n, row in enumerate(given(90).to_pylist())
        for i in row["history"]
    ]
    events = [event for event in events if event[1] in ITEM_IDS[:36]] + [("nothing", "i1", 1)]
    random.Random(1).shuffle(events)
    path.write_text("who,item,rating\n" + "".join(f"{user},{item} ,{rating}\n" for user, item, rating in events))
    return path


CASES = {
    "a table with rules": (table_with_rules, "a.parquet", "", {}, "bfloat16"),
    "JSON lines": (json_lines, "b.jsonl", "csv", {"k": 7}, "float32"),
    "a log": (log, "c.csv", "jsonl", {"columns": ReaderOptions(user_column="who"), "threshold": 3.0}, "float32"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "a table with rules" else pytest.mark.slow) for name in CASES]
)
def test_spark_writes_what_one_machine_writes(name, session, tmp_path, capsys):
    make, file, kind, more, weights = CASES[name]
    source, model = make(tmp_path / file), exported(weights).parent
    options = {"k": 0, "columns": ReaderOptions(), "threshold": None} | more
    score_file.score_file(model, source, tmp_path / "one", kind, 16, 20, **options)
    local = capsys.readouterr().out
    spark_job.score(model, str(source), str(tmp_path / "spark"), kind, 16, 20, **options, settings=[])
    assert capsys.readouterr().out == local.replace(str(tmp_path / "one"), str(tmp_path / "spark"))
    ours, theirs = (sorted((tmp_path / folder).glob("part-*")) for folder in ("one", "spark"))
    assert len(ours) == len(theirs) == 5
    for one, other in zip(ours, theirs, strict=True):
        if kind:
            assert one.read_bytes() == other.read_bytes()
        else:
            assert pq.read_table(one).to_pylist() == pq.read_table(other).to_pylist()
            assert pq.read_schema(one).names == pq.read_schema(other).names
    assert json.loads((tmp_path / "spark" / "_job.json").read_text())["rows"] == sum(1 for _ in ours) * 20 - 10
    with pytest.raises(UserError, match="is complete already"):
        spark_job.score(model, str(source), str(tmp_path / "spark"), kind, 16, 20, **options, settings=[])


def test_a_data_frame_of_histories(session, tmp_path):
    """In one partition, requests of 15 rows are those of the job on one machine; other columns are left out."""
    pq.write_table(given(90), tmp_path / "a.parquet")
    score_file.score_file(exported(), tmp_path / "a.parquet", tmp_path / "one", "", 15, 15, k=5)
    frame = session.read.parquet(str(tmp_path / "a.parquet")).withColumn("more", F.lit(1)).coalesce(1)
    answers = spark.recommend(frame, exported().parent, k=5, batch_size=15)
    assert answers.columns == ["user", "item_ids", "scores"]
    wanted = [row for path in sorted((tmp_path / "one").glob("part-*")) for row in pq.read_table(path).to_pylist()]
    assert [row.asDict() for row in answers.collect()] == wanted
    assert spark.recommend(frame.select("history"), exported(), k=2).columns == ["item_ids", "scores"]
    with pytest.raises(UserError, match="The DataFrame needs one column `history`"):
        spark.recommend(frame.drop("history"), exported())
    with pytest.raises(UserError, match="--k=99 is more than"):
        spark.recommend(frame, exported(), k=99)


@pytest.mark.slow
def test_scores_hardly_depend_on_the_partitions(session, tmp_path):
    pq.write_table(given(90), tmp_path / "a.parquet")
    frame = session.read.parquet(str(tmp_path / "a.parquet")).select("user", "history")
    one, many = (
        {row["user"]: row for row in spark.recommend(frame.repartition(n), exported()).collect()} for n in (1, 4)
    )
    assert one.keys() == many.keys() == set(range(90))
    for user, row in one.items():
        np.testing.assert_allclose(row["scores"], many[user]["scores"], atol=1e-5)


def test_mistakes_are_one_line(session, tmp_path):
    def told(source: Path, output: str = "out", **more) -> str:
        options = {"k": 0, "columns": ReaderOptions(), "threshold": None} | more
        with pytest.raises(UserError) as error:
            spark_job.score(exported(), str(source), str(tmp_path / output), "", 16, 20, **options, settings=[])
        assert "\n" not in str(error.value)
        return str(error.value)

    source = table_with_rules(tmp_path / "a.parquet")
    assert "There is no" in told(tmp_path / "missing.parquet")
    (tmp_path / "bad.jsonl").write_text('{"history": ["i1"]}\n{"history": "i2"}\n')
    assert "bad.jsonl: a row is wrong: it needs `history`" in told(tmp_path / "bad.jsonl")
    (tmp_path / "bad.csv").write_text("user,item,rating\na,i1,5\nb,,5\n")
    assert "bad.csv: the item id is empty" in told(tmp_path / "bad.csv")
    (tmp_path / "bad2.csv").write_text("user,item,rating\na,i1,5\nb,i2,high\n")
    assert "bad2.csv: the rating is empty or not a finite number" in told(tmp_path / "bad2.csv")
    pq.write_table(pa.table({"history": [1.5]}), tmp_path / "c.parquet")
    assert "`history` is a list of texts or whole numbers" in told(tmp_path / "c.parquet")
    assert "--threshold is for a log" in told(source, threshold=2.0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    assert "is not empty (it holds 'notes')" in told(source, "mine")
    assert not (tmp_path / "out").exists()


def test_what_a_killed_job_left_is_written_anew(session, tmp_path):
    (tmp_path / "out" / "_temporary" / "0").mkdir(parents=True)
    pq.write_table(given(3), tmp_path / "a.parquet")
    options = (16, 20, 0, ReaderOptions(), None, [])
    spark_job.score(exported(), str(tmp_path / "a.parquet"), str(tmp_path / "out"), "", *options)
    assert sorted(path.name[:10] for path in (tmp_path / "out").iterdir() if path.name[0] != ".") == [
        "_SUCCESS", "_job.json", "part-00000",
    ]  # fmt: skip
    assert len(pq.read_table(tmp_path / "out")) == 3
    pq.write_table(given(3)[:0], tmp_path / "none.parquet")
    spark_job.score(exported(), str(tmp_path / "none.parquet"), str(tmp_path / "empty"), "", *options)
    assert pq.read_table(tmp_path / "empty").column_names == ["user", "item_ids", "scores"]


def test_flags_of_the_other_engine_are_refused(tmp_path):
    flags = [f"--model={exported()}", "--input=a.parquet", f"--output={tmp_path / 'out'}"]
    mistake(here("export.score", *flags, "--engine=spark", "--workers=2"), "--workers is for --engine=local")
    mistake(here("export.score", *flags, "--spark_conf=a=b"), "--spark_conf is for --engine=spark")
    mistake(here("export.score", *flags, "--engine=spark", "--kind=tfrecord"), "writes parquet, jsonl or csv")


@pytest.mark.slow
def test_the_command_as_typed(tmp_path):
    source, out = table_with_rules(tmp_path / "a.parquet"), tmp_path / "out"
    flags = [f"--model={exported().parent}", f"--output={out}", "--engine=spark", "--spark_conf=spark.master=local[2]"]
    mistake(process("export.score", *flags, f"--input={tmp_path / 'none.parquet'}"), "There is no")
    done = process("export.score", *flags, f"--input={source}", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert done.stdout.startswith(f"{out} is complete. Rows: 90. Parts: 1.")
    assert "WARN" not in done.stderr
    assert "Warning" not in done.stderr
