"""Prepared data sets: every engine writes what the split in memory has, and nothing half-written is taken for whole."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import types
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from test_split import make_log
from typed import ROOT, here, mistake

from vae_cf_tf.data.formats import read
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.prepared import Prepared
from vae_cf_tf.data.split import split
from vae_cf_tf.engines import base, prepare
from vae_cf_tf.engines.base import ENGINES
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import silent
from vae_cf_tf.settings import Settings, SplitSettings

SHARED = Path(__file__).parents[2] / "shared" / "data"
REQUIRED = os.environ.get("VAE_CF_TF_ENGINES") == "required"


def engine_needed(name):
    """Skips where the engine is not installed, unless the environment says that it must be."""
    missing = name == "spark" and not (shutil.which("java") or os.environ.get("JAVA_HOME")) and "Java"
    try:
        __import__({"spark": "pyspark", "duckdb": "duckdb"}[name])
    except ModuleNotFoundError as error:
        missing = error.name
    if missing and REQUIRED:
        pytest.fail(f"--engine={name} needs {missing}, and VAE_CF_TF_ENGINES=required")
    if missing:
        pytest.skip(f"--engine={name} needs {missing}: pip install -r requirements-engines.txt")


@pytest.fixture
def duckdb_engine():
    engine_needed("duckdb")


def settings_for(data, **values):
    return Settings.of(data=str(data), split_by="hash", **values)


def events(seed=0, items=80):
    """A log with ratings, times and weights, as a table."""
    log, random = make_log(seed, items=items), np.random.default_rng(seed)
    rows = len(log.users)
    return pa.table(
        {
            "user": log.user_ids[log.users],
            "item": log.item_ids[log.items],
            "rating": log.ratings,
            "timestamp": random.integers(1_000_000_000, 1_000_400_000, rows),
            "plays": random.integers(0, 4, rows).astype(np.float32),
        }
    )


def written(table, folder, parts=1):
    """The table as a folder of Parquet parts, in another order where there are several; for no parts, a CSV file."""
    folder.mkdir()
    if not parts:
        pa.csv.write_csv(table, folder / "log.csv")
        return folder / "log.csv"
    order = np.random.default_rng(parts).permutation(len(table)) if parts > 1 else np.arange(len(table))
    for number, rows in enumerate(np.array_split(order, parts)):
        pq.write_table(table.take(rows), folder / f"part-{number}.parquet")
    return folder


def by_hand(log, settings):
    """The definition of --split_by=hash: by part, user -> (fold-in, target) as item ids; and the catalogue."""

    def h(*ids):
        return int(hashlib.md5(":".join([str(settings.split_seed), *ids]).encode()).hexdigest(), 16)

    rated = zip(log.user_ids[log.users], log.item_ids[log.items], log.ratings, strict=True)
    pairs = {(user, item) for user, item, rating in rated if rating >= settings.threshold}
    count = {}
    for _, item in pairs:
        count[item] = count.get(item, 0) + 1
    histories = {}
    for user, item in pairs:
        if count[item] >= settings.min_users_per_item:
            histories.setdefault(user, set()).add(item)
    parts = {"train": {}, "validation": {}, "test": {}}
    for user in sorted((u for u, items in histories.items() if len(items) >= settings.min_items_per_user), key=h):
        share = Fraction(h(user), 2**128)
        held = Fraction(str(settings.heldout_share))
        part = "test" if share < held else "validation" if share >= 1 - held else "train"
        parts[part][user] = (histories[user], set())
    catalogue = sorted(set().union(*(items for items, _ in parts["train"].values())))
    for part in ("validation", "test"):
        for user, (items, _) in list(parts[part].items()):
            known = sorted(items & set(catalogue), key=lambda item: h(user, item))
            targets = int((1 - Fraction(str(settings.fold_in_share))) * len(known)) if len(known) >= 5 else 0
            parts[part][user] = (set(known[: len(known) - targets]), set(known[len(known) - targets :]))
            if not known:
                del parts[part][user]
    return parts, catalogue


@pytest.mark.parametrize(
    "values", [{}, {"min_users_per_item": 18, "heldout_share": 0.3, "fold_in_share": 0.5, "split_seed": 3}]
)
def test_split_by_hash_is_its_definition(values):
    settings = SplitSettings(split_by="hash", **values)
    log = make_log()
    made, (parts, catalogue) = split(log, settings), by_hand(log, settings)
    assert made.item_ids == catalogue

    def ids(matrix):
        return [{catalogue[column] for column in row.indices} for row in matrix]

    assert ids(made.train) == [items for items, _ in parts["train"].values()]
    for part in ("validation", "test"):
        assert ids(getattr(made, part).fold_in) == [fold_in for fold_in, _ in parts[part].values()]
        assert ids(getattr(made, part).target) == [target for _, target in parts[part].values()]
        assert any(parts[part].values())


def test_split_by_hash_does_not_depend_on_the_order_of_the_log():
    log = make_log()
    order = np.random.default_rng(1).permutation(len(log.users))
    shuffled = Interactions(log.users[order], log.items[order], log.user_ids, log.item_ids, log.ratings[order])
    settings = SplitSettings(split_by="hash")
    assert split(shuffled, settings).fingerprint() == split(log, settings).fingerprint()
    assert (
        split(shuffled, SplitSettings(heldout_users=15)).fingerprint()
        != split(log, SplitSettings(heldout_users=15)).fingerprint()
    )


CASES = {
    "plain": {},
    "filters": {
        "min_users_per_item": 18,
        "min_items_per_user": 7,
        "threshold": 3.0,
        "fold_in_share": 0.5,
        "split_seed": 4,
    },
    "latest": {"targets": "latest", "heldout_share": 0.2},
    "time": {"split": "time", "cut": "0.8", "min_items_per_user": 3},
    "weights": {"weight_column": "plays", "repeats": "sum", "weight_scale": "log", "weight_cap": 2.5},
    "weights by time": {"split": "time", "weight_column": "plays", "min_items_per_user": 3},
}


def check_same(settings, out, engine, **options):
    """Prepares the data and compares it with the split in memory: matrices, ids, titles, weights and fingerprint."""
    expected = load_split(settings, silent)
    manifest = prepare.prepare(settings, out, prepare.Options(engine, **options), silent)
    made = Prepared(out).split()
    assert made.item_ids == expected.item_ids
    assert made.titles == expected.titles
    for (name, ours), (_, theirs) in zip(made._matrices(), expected._matrices(), strict=True):
        assert ours.shape == theirs.shape, name
        assert (ours != theirs).nnz == 0, name
    assert (made.weights is None) == (expected.weights is None)
    if made.weights is not None:
        np.testing.assert_array_equal(made.weights, expected.weights)
    assert manifest["fingerprint"] == made.fingerprint() == expected.fingerprint()
    assert manifest["interactions"] == sum(matrix.nnz for _, matrix in expected._matrices())
    assert manifest["items"] == len(expected.item_ids)
    counts = Prepared(out).items["count"].to_numpy()
    np.testing.assert_array_equal(counts, np.asarray((expected.train > 0).sum(axis=0)).ravel())
    return manifest


@pytest.mark.parametrize("case", CASES)
def test_duckdb_writes_what_memory_splits(case, tmp_path, duckdb_engine):
    table = events()
    first = check_same(settings_for(written(table, tmp_path / "log"), **CASES[case]), tmp_path / "a", "duckdb")
    # Other parts, another order, text in place of columns and other shards are the same content.
    data = written(table, tmp_path / "parts", parts=3)
    again = check_same(settings_for(data, **CASES[case]), tmp_path / "b", "duckdb", shard_users=17)
    text = written(table, tmp_path / "text", parts=0)
    last = check_same(settings_for(text, **CASES[case]), tmp_path / "c", "duckdb", shard_users=1)
    assert first["fingerprint"] == again["fingerprint"] == last["fingerprint"]
    assert len(list((tmp_path / "c" / "train").iterdir())) == last["parts"]["train"]["users"]


@pytest.mark.parametrize("name", ["text", "floats", "integers", "other format", "titles"])
def test_duckdb_reads_ids_as_the_readers_do(name, tmp_path, duckdb_engine):
    table = events().select(["user", "item", "rating"])
    numbers = {text: i for i, text in enumerate(sorted(set(table["item"].to_pylist())))}
    rows = list(zip(table["user"].to_pylist(), table["item"].to_pylist(), table["rating"].to_pylist(), strict=True))
    data = tmp_path / "log.csv"
    if name == "text":  # blanks, quotation marks, "10.0", an "Ä" and a comma
        lines = (f'" {user}.0 ","it"",em {numbers[item]}Ä",{rating:g} ' for user, item, rating in rows)
        data.write_text("userId,movieId,rating\r\n" + "".join(f"{line}\r\n" for line in lines))
    elif name == "titles":
        (tmp_path / "movies.csv").write_text("id,title\n" + "".join(f"item {i},Title {i}\n" for i in range(0, 80, 3)))
        pa.csv.write_csv(table, data)
    elif name == "other format":
        lines = (f"{user}::{numbers[item]}::{int(rating)}::97" for user, item, rating in rows)
        data = tmp_path / "ratings.dat"
        data.write_text("\n".join(lines) + "\n")
    else:
        values = np.asarray([numbers[item] for _, item, _ in rows], np.float64 if name == "floats" else np.int32)
        data = tmp_path / "log.parquet"
        pq.write_table(table.set_column(1, "item", pa.array(values)), data)
    check_same(settings_for(data), tmp_path / "out", "duckdb")


@pytest.mark.parametrize("at", ["date", "text", "milliseconds", "timestamp"])
def test_duckdb_reads_times_as_the_readers_do(at, tmp_path, duckdb_engine):
    table = events()
    days = table["timestamp"].to_numpy().astype("datetime64[s]") + np.arange(len(table)) * np.timedelta64(7, "h")
    values = {
        "date": [int(str(day)[:10].replace("-", "")) for day in days],
        "text": [f"{day}+02:00" for day in days],
        "milliseconds": (days.astype("datetime64[ms]")).astype(np.int64),
        "timestamp": pa.array(days.astype("datetime64[ns]")),
    }[at]
    data = tmp_path / "log.parquet"
    pq.write_table(table.set_column(3, "timestamp", pa.array(values)), data)
    options = {"split": "time", "min_items_per_user": 2, "timestamp_column": "timestamp"}
    manifest = check_same(settings_for(data, **options), tmp_path / "out", "duckdb")
    assert manifest["about"]["cut"] == load_split(settings_for(data, **options), silent).about["cut"]


@pytest.mark.slow
def test_spark_writes_what_memory_splits(tmp_path):
    engine_needed("spark")
    table = events()
    data = written(table, tmp_path / "parts", parts=3)
    check_same(settings_for(data, **CASES["filters"]), tmp_path / "a", "spark", shard_users=17, master="local[2]")
    text = written(table, tmp_path / "text", parts=0)
    options = CASES["weights by time"] | {"repeats": "sum"}
    check_same(settings_for(text, **options), tmp_path / "b", "spark", master="local[2]")
    bad = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"user": ["a", None, "b"], "item": ["1", "2", "3"]}), bad)
    with pytest.raises(UserError, match="1 of 3 rows: the user id is empty"):
        prepare.prepare(settings_for(bad), tmp_path / "c", prepare.Options("spark", master="local[2]"), silent)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["ml-1m", "amazon-book"])
def test_engines_write_what_memory_splits_of_real_data(name, engine, tmp_path):
    if not (SHARED / name).is_dir():
        pytest.skip(f"needs {SHARED / name}, which is not in the repository")
    engine_needed(engine)
    check_same(settings_for(SHARED / name), tmp_path / "out", engine, shard_users=1000)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"item": ["1", " ", "3"]}, "the item id is empty"),
        ({"user": ["a", "b\nc", "d"]}, "the user id holds a line break"),
        ({"item": [1.0, 2.5, 3.0]}, "the item id is empty or not a whole number"),
        ({"rating": [5.0, None, 5.0]}, "the rating is empty or not a finite number"),
        ({"rating": ["5", "many", "5"]}, "the rating is empty or not a finite number"),
        ({"rating": [1.0, 2.0, 3.0]}, r"no rating reaches 4 \(the highest is 3\)"),
        ({"w": [1.0, -1.0, 3.0]}, "the weight is below 0"),
        ({}, "3 users are left of 3|no validation user has a target|no user is left|0 users are left"),
    ],
)
def test_what_the_readers_refuse_is_refused_in_one_line(columns, reason, tmp_path, duckdb_engine):
    data = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": ["a", "b", "c"], "item": ["1", "2", "3"]} | columns), data)
    settings = settings_for(data, weight_column="w" if "w" in columns else "")
    with pytest.raises(UserError, match=reason):
        prepare.prepare(settings, tmp_path / "out", prepare.Options(), silent)
    with pytest.raises(UserError):  # so does the reader in memory
        load_split(settings, silent)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_knew_of_the_log_is_not_taken_damaged(tmp_path, duckdb_engine, monkeypatch):
    settings, out = settings_for(written(events(), tmp_path / "log")), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.delattr(prepare._Job, "_check_left")  # the engine is ended and the stages so far stay
        with pytest.raises(AttributeError):
            prepare.prepare(settings, out, prepare.Options(), silent)
    facts = tmp_path / ".out.unfinished" / "tables" / "facts.json"
    whole = facts.read_text()
    facts.write_text(whole.replace("rating", "ratinh", 1))
    with pytest.raises(UserError, match=r"facts\.json is damaged"):
        prepare.prepare(settings, out, prepare.Options(), silent)
    facts.write_text(whole)
    assert prepare.prepare(settings, out, prepare.Options(), silent)["users"]


KILLED = """
import os, signal, sys
from vae_cf_tf.engines import duckdb_engine
write = duckdb_engine.DuckDB.write
def killed(self, sql, folder, order=""):
    write(self, sql, folder, order)
    if folder.name.startswith("catalogue"):
        os.kill(os.getpid(), signal.SIGKILL)
duckdb_engine.DuckDB.write = killed
sys.argv = ["prepare", *sys.argv[1:]]
from trainers.prepare import run
run()
"""


def test_a_killed_run_leaves_no_data_set_and_the_same_command_goes_on(tmp_path, duckdb_engine):
    data, out = written(events(), tmp_path / "log"), tmp_path / "out"
    command = [f"--data={data}", f"--out={out}", "--shard_users=40"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    result = here("trainers.prepare", *command)
    assert result.status == 0, result.stderr
    assert "Going on from the stages that are done already." in result.stdout
    assert "Pairs of a user" not in result.stdout
    assert "Catalogue" in result.stdout
    expected = load_split(settings_for(data), silent)
    assert json.loads((out / "manifest.json").read_text())["fingerprint"] == expected.fingerprint()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]
    mistake(here("trainers.prepare", f"--data={out}", f"--out={tmp_path / 'b'}"), "is split already")


@pytest.mark.parametrize("engine", ["duckdb", "memory"])
def test_a_kill_after_the_data_set_has_its_name_is_no_failure(engine, tmp_path, duckdb_engine, monkeypatch):
    """Of whatever a killed command did not remove, the same command removes the rest; another one is refused."""
    data, out, left = written(events(), tmp_path / "log"), tmp_path / "out", tmp_path / ".out.unfinished"
    command = [f"--data={data}", f"--out={out}", f"--engine={engine}", "--split_by=hash"]
    with monkeypatch.context() as patched:
        patched.setattr(prepare, "_remove", lambda work: None)
        assert here("trainers.prepare", *command).status == 0
    mistake(here("trainers.prepare", *command, "--split_seed=7"), "exists and is not empty")
    for kept in (None, "job.json", ".lock"):  # all of it, or what a removal had not come to
        left.mkdir(exist_ok=True)
        if kept:
            (left / kept).write_text("{}")
        again = here("trainers.prepare", *command)
        assert again.status == 0, again.stderr
        assert f"Found {out}" in again.stdout
        assert not left.exists()
    before = (out / "manifest.json").stat()
    assert here("trainers.prepare", *command).status == 0
    assert (out / "manifest.json").stat() == before
    os.utime(next(data.iterdir()), (1, 1))  # the log is another one
    mistake(here("trainers.prepare", *command), "exists and is not empty")


def test_ctrl_c_while_an_engine_is_imported_waits(tmp_path, duckdb_engine, monkeypatch):
    done = []

    def interrupted(name):
        os.kill(os.getpid(), signal.SIGINT)
        done.append(name)
        return types.SimpleNamespace(DuckDB=None)

    monkeypatch.setattr(base.importlib, "import_module", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            base.start("duckdb", base.EngineOptions(tmp_path, "", ""))
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["vae_cf_tf.engines.duckdb_engine"]


def test_ctrl_c_during_a_query_is_an_interrupt(tmp_path, duckdb_engine):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
    with contextlib.ExitStack() as restored:
        restored.callback(signal.signal, signal.SIGINT, before)
        engine = restored.enter_context(base.start("duckdb", base.EngineOptions(tmp_path, "", "")))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            engine.rows("SELECT count(DISTINCT hash(range) % 1000003) FROM range(1000000000000)")


def test_a_full_disk_and_too_little_memory_are_one_line(tmp_path, duckdb_engine):
    with (
        base.start("duckdb", base.EngineOptions(tmp_path)) as engine,
        pytest.raises(UserError, match="The disk is full"),
    ):
        engine._copy("SELECT md5(CAST(range AS STRING)) AS x FROM range(3000000)", Path("/dev/full"))
    with (
        base.start("duckdb", base.EngineOptions(tmp_path, "20MB")) as engine,
        pytest.raises(UserError, match="--memory"),
    ):
        engine.rows("SELECT list(md5(CAST(range AS STRING))) AS x FROM range(3000000)")


def test_mistakes_are_one_line(tmp_path, duckdb_engine, monkeypatch):
    data, out = written(events(), tmp_path / "log"), f"--out={tmp_path / 'out'}"
    mistake(here("trainers.prepare", f"--data={data}", out, "--split_by=permutation"), "--engine=memory")
    mistake(here("trainers.prepare", f"--data={data}", out, "--heldout_users=9"), "--heldout_share")
    mistake(here("trainers.prepare", f"--data={data}", out, "--memory=lots"), "--memory takes a size such as 4GB")
    mistake(
        here("trainers.prepare", f"--data={data}", out, "--half_life_days=2", "--timestamp_column=timestamp"),
        "--half_life_days",
    )
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.delitem(sys.modules, "vae_cf_tf.engines.duckdb_engine", raising=False)
    mistake(here("trainers.prepare", f"--data={data}", out), "--engine=duckdb needs duckdb", "pip install")


def test_a_prepared_set_that_is_not_whole_is_refused(tmp_path):
    data, out = written(events(), tmp_path / "log"), tmp_path / "out"
    result = here("trainers.prepare", f"--data={data}", f"--out={out}", "--engine=memory", "--shard_users=40")
    assert result.status == 0, result.stderr
    expected = load_split(Settings.of(data=str(data)), silent)  # the published permutation
    assert read(str(out)).fingerprint() == expected.fingerprint()
    first, second = sorted((out / "train").iterdir())[:2]
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=r"part-00000\.parquet is damaged"):
        read(str(out))
    first.unlink()
    with pytest.raises(UserError, match=r"there is no file or folder .*part-00000\.parquet"):
        read(str(out))
    first.write_bytes(kept[:100])
    with pytest.raises(UserError, match=r"part-00000\.parquet is damaged"):
        read(str(out))
    first.write_bytes(kept)
    titles = out / "items.parquet"
    titles.write_bytes(titles.read_bytes().replace(b"item", b"mete", 1))
    with pytest.raises(UserError, match=r"items\.parquet is damaged"):
        read(str(out))
    (out / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        read(str(out))


TINY = (
    "--threshold=1",
    "--hidden_dim=8",
    "--latent_dim=4",
    "--batch_size=32",
    "--epochs=2",
    "--pseudo_inputs=5",
    "--ease_l2=50",
)


@pytest.mark.slow
def test_training_takes_a_prepared_set(tmp_path, duckdb_engine):
    data, out = written(events(items=300), tmp_path / "log"), tmp_path / "out"
    assert here("trainers.prepare", f"--data={data}", f"--out={out}", "--shard_users=40", "--threshold=1").status == 0
    metrics = []
    for name, source in (("log", [f"--data={data}", "--split_by=hash"]), ("out", [f"--data={out}"])):
        result = here("trainers.main", *source, *TINY, f"--workdir={tmp_path / name / 'run'}")
        assert result.status == 0, result.stderr
        metrics.append(json.loads((tmp_path / name / "run" / "metrics.json").read_text()))
    assert metrics[0]["test"] == metrics[1]["test"]
    assert metrics[0]["data_fingerprint"] == metrics[1]["data_fingerprint"]
    by_time = here("trainers.main", f"--data={out}", *TINY, f"--workdir={tmp_path / 'w'}", "--also_time_split")
    mistake(by_time, "the data is split already")
