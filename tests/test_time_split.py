"""Times of a log and splits by them, against definitions in plain Python."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import PLAIN_FLAGS, synthetic_events
from typed import mistake, process

from trainers.report import protocol
from vae_cf_tf.data.formats import ReaderOptions, read
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.split import Split, split
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import Settings, SplitSettings

NEEDED = ReaderOptions(needs_times=True)
SECONDS = [1_044_036_000.0, 1_044_036_001.5, 86_400.0 * 12_000]
"""Times of a log of three events; as numbers and as ISO 8601 below."""


def utc(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


FORMS = {
    "seconds": [f"{s}" for s in SECONDS],
    "milliseconds": [f"{s * 1000:.0f}" for s in SECONDS],
    "microseconds": [f"{s * 1e6:.0f}" for s in SECONDS],
    "iso": [utc(s).replace(tzinfo=None).isoformat() for s in SECONDS],
    "blank": [utc(s).replace(tzinfo=None).isoformat(" ") for s in SECONDS],
    "z": [utc(s).isoformat().replace("+00:00", "Z") for s in SECONDS],
    "zone": [utc(s).astimezone(datetime.timezone(datetime.timedelta(hours=5.5))).isoformat() for s in SECONDS],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["timestamp", "Event_Time", "created_at", "date"])
def test_times_of_text_files(tmp_path, form, name):
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,{name}\n" + "".join(f"1,{k},{t}\n" for k, t in enumerate(FORMS[form])))
    assert read(str(path), NEEDED).times.tolist() == SECONDS
    path.write_text("user,item,seen\n" + "".join(f"1,{k},{t}\n" for k, t in enumerate(FORMS[form])))
    assert read(str(path)).times is None
    assert read(str(path), ReaderOptions(timestamp_column="seen")).times.tolist() == SECONDS


@pytest.mark.parametrize("text", ["20030131", "2003-01-31"])
def test_dates(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,date\n1,2,{text}\n1,3,{text}\n")
    assert read(str(path), NEEDED).times.tolist() == [1_043_971_200.0] * 2


@pytest.mark.parametrize(
    "column",
    [
        pa.array(SECONDS),
        pa.array(SECONDS).cast(pa.decimal128(20, 1)),
        pa.array([utc(s) for s in SECONDS], pa.timestamp("ms", "UTC")),
        pa.array([utc(s).replace(tzinfo=None) for s in SECONDS], pa.timestamp("ns")),
        pa.array(FORMS["seconds"]),
        pa.array(FORMS["iso"]).dictionary_encode(),
        pa.array(FORMS["z"], pa.large_string()),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_times_of_parquet(tmp_path, column):
    pq.write_table(pa.table({"user": ["1"] * 3, "item": ["a", "b", "c"], "time": column}), tmp_path / "log.parquet")
    assert read(str(tmp_path / "log.parquet"), NEEDED).times.tolist() == SECONDS


def test_parquet_dates(tmp_path):
    days = pa.array([12_000, 12_001], pa.date32())
    pq.write_table(pa.table({"user": [1, 2], "item": [1, 2], "time": days}), tmp_path / "log.parquet")
    assert read(str(tmp_path / "log.parquet")).times.tolist() == [12_000 * 86_400, 12_001 * 86_400]


def test_times_of_the_layouts_without_a_header(tmp_path):
    (tmp_path / "u.data").write_text("1\t2\t3\t881250949\n1\t3\t4\t881250950\n")
    assert read(str(tmp_path / "u.data")).times.tolist() == [881250949, 881250950]
    (tmp_path / "ratings.dat").write_text("1::2::3::978300760\n")
    assert read(str(tmp_path / "ratings.dat")).times.tolist() == [978300760]
    (tmp_path / "mv_1.txt").write_text("1:\n7,5,2005-09-06\n8,4,2005-09-07\n2:\n7,1,2003-01-31\n")
    log = read(str(tmp_path / "mv_1.txt"), NEEDED)
    assert log.times.tolist() == [1125964800, 1126051200, 1043971200]
    assert log.items.tolist() == [0, 0, 1]
    assert read(str(tmp_path / "mv_1.txt")).times is None


@pytest.mark.parametrize(
    ("times", "line"), [(["5", "", "7"], 3), (["5", "6", "2003-01-31"], 4), (["2003-01-31", "x", "y"], 3)]
)
def test_times_that_cannot_be_read(tmp_path, times, line):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"1,{k},{t}\n" for k, t in enumerate(times)))
    for options in (NEEDED, ReaderOptions(timestamp_column="time")):
        with pytest.raises(UserError, match=rf"log\.csv, line {line}: the time is"):
            read(str(path), options)
    said = []
    log = read(str(path), say=said.append)
    assert log.times is None
    assert len(log.users) == 3
    assert any("The times are left out: " in line for line in said) == (times[0] == "5")


def test_a_column_that_holds_no_times(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,date\n1,2,yesterday\n")
    with pytest.raises(UserError, match=r"column date: the time is 'yesterday'.* --timestamp_column"):
        read(str(path), NEEDED)
    with pytest.raises(UserError, match="line 2: the time is 'yesterday'"):
        read(str(path), ReaderOptions(timestamp_column="date"))
    with pytest.raises(UserError, match="no column named by --timestamp_column=when"):
        read(str(path), ReaderOptions(timestamp_column="when"))
    with pytest.raises(UserError, match="--timestamp_column=item is another column already"):
        read(str(path), ReaderOptions(timestamp_column="item"))
    path.write_text("user,item\n1,2\n")
    with pytest.raises(UserError, match="no column of times"):
        read(str(path), NEEDED)
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": [1, 2], "item": [1, 2], "time": [None, 5]}), path)
    with pytest.raises(UserError, match="row 1: the time is empty"):
        read(str(path), NEEDED)
    assert read(str(path)).times is None
    pq.write_table(pa.table({"user": [1, 2], "item": [1, 2], "time": [[1], [2]]}), path)
    with pytest.raises(UserError, match=r"column time is of type list.*no times"):
        read(str(path), NEEDED)


def make_log(seed=0, events=6000, users=120, items=90, ratings=True):
    """Repeated events, users who come and go, items that appear late; the log is in no order of time."""
    random = np.random.default_rng(seed)
    times = np.floor(random.random(events) * 400)  # with ties
    user_codes = (users * random.random(events) ** 1.5).astype(np.int32)
    item_codes = (items * (0.4 + 0.6 * times / 400) * random.random(events)).astype(np.int32)
    return Interactions(
        users=user_codes,
        items=item_codes,
        user_ids=np.array([str(n) for n in random.permutation(10 * users)[:users]], object),
        item_ids=np.array([f"i{i}" for i in range(items)], object),
        ratings=random.integers(1, 6, events).astype(np.float32) if ratings else None,
        times=times,
    )


def events_of(log, threshold=4):
    """[(time, user id, item id)] of the events that count, in the log's order."""
    counts = np.full(len(log.users), True) if log.ratings is None else log.ratings >= threshold
    return [
        (log.times[k], log.user_ids[log.users[k]], log.item_ids[log.items[k]]) for k in np.flatnonzero(counts).tolist()
    ]


def expected(events, settings):
    """train: {user: items}; parts: {name: {user: (fold-in, targets)}}; catalogue in order, by the definition."""
    ordered = sorted(time for time, _, _ in events)
    cut = ordered[int(settings.cut_share * len(ordered))] if settings.cut_share else settings.cut_time
    before = sum(time < cut for time in ordered)
    first = ordered[before - (len(ordered) - before)]
    train = [(u, i) for t, u, i in events if t < first]
    users_of, items_of = {}, {}
    for user, item in train:
        users_of.setdefault(item, set()).add(user)
    kept = {item for item, users in users_of.items() if len(users) >= settings.min_users_per_item}
    for user, item in train:
        if item in kept:
            items_of.setdefault(user, set()).add(item)
    items_of = {user: items for user, items in items_of.items() if len(items) >= settings.min_items_per_user}
    catalogue = list(dict.fromkeys(i for u, i in train if u in items_of and i in kept))
    parts = {}
    for name, start, end in (("validation", first, cut), ("test", cut, np.inf)):
        parts[name] = {}
        for user in {u for _, u, _ in events}:
            seen = {i for t, u, i in events if u == user and t < start and i in catalogue}
            new = {i for t, u, i in events if u == user and start <= t < end and i in catalogue} - seen
            if seen and new:
                parts[name][user] = (seen, new)
    return items_of, parts, catalogue, first, cut


def rows(matrix, item_ids):
    return [{item_ids[i] for i in matrix[u].indices} for u in range(matrix.shape[0])]


@pytest.mark.parametrize("ratings", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        SplitSettings(split="time"),
        SplitSettings(split="time", cut="0.75", min_users_per_item=6, min_items_per_user=8),
        SplitSettings(split="time", cut=utc(330.0).isoformat(), min_items_per_user=0),
    ],
)
def test_split_by_time_is_as_defined(ratings, settings, tmp_path):
    log = make_log(ratings=ratings)
    items_of, parts, catalogue, first, cut = expected(events_of(log), settings)
    made = split(log, settings)
    assert made.item_ids == catalogue
    assert rows(made.train, catalogue) == [items_of[u] for u in sorted(items_of, key=int)]
    for name, users in parts.items():
        part = getattr(made, name)
        pairs = list(zip(rows(part.fold_in, catalogue), rows(part.target, catalogue), strict=True))
        assert len(pairs) > 10
        assert pairs == [users[u] for u in sorted(users, key=int)]
    assert made.about == {
        "by": "time",
        "targets": "after the cut",
        "cut": utc(cut).isoformat().replace("+00:00", "Z"),
        "training_ends": utc(first).isoformat().replace("+00:00", "Z"),
        "training_has_later_events": False,
        "training_later_share": 0.0,
    }
    made.save(tmp_path)
    loaded = Split.load(tmp_path)
    assert (loaded.fingerprint(), loaded.about) == (made.fingerprint(), made.about)


def test_nothing_after_a_cut_reaches_training_or_an_earlier_part():
    """A planted leak: an item that everybody has after the cut, and only there."""
    log, settings = make_log(ratings=False), SplitSettings(split="time", cut=utc(330.0).isoformat())
    plain = split(log, settings)

    late = log.times >= 330.0
    planted = Interactions(
        log.users,
        np.where(late, len(log.item_ids), log.items).astype(np.int32),
        log.user_ids,
        np.array([*log.item_ids, "planted"], object),
        times=log.times,
    )
    with pytest.raises(UserError, match="no test user"):  # an item that training does not know is no target
        split(planted, settings)
    some = np.where(late & (np.arange(len(late)) % 2 == 0), len(log.item_ids), log.items).astype(np.int32)
    leak = split(Interactions(log.users, some, log.user_ids, planted.item_ids, times=log.times), settings)
    assert "planted" not in leak.item_ids
    assert leak.item_ids == plain.item_ids
    assert (leak.train != plain.train).nnz == 0
    assert (leak.validation.fold_in != plain.validation.fold_in).nnz == 0
    assert (leak.validation.target != plain.validation.target).nnz == 0
    assert leak.test.target.nnz < plain.test.target.nnz


def test_latest_targets_are_a_held_out_users_last_items():
    log = make_log(3)
    settings = SplitSettings(targets="latest", heldout_users=15)
    made, random = split(log, settings), split(log, SplitSettings(heldout_users=15))
    assert made.item_ids == random.item_ids
    assert (made.train != random.train).nnz == 0
    first = {}
    for number, (time, user, item) in enumerate(events_of(log)):
        first[user, item] = min(first.get((user, item), (time, number)), (time, number))
    for part, other in ((made.validation, random.validation), (made.test, random.test)):
        assert np.diff(part.target.indptr).tolist() == np.diff(other.target.indptr).tolist()
        fold_in, target = (rows(m, made.item_ids) for m in (part.fold_in, part.target))
        assert [f | t for f, t in zip(fold_in, target, strict=True)] == [
            f | t for f, t in zip(*(rows(m, made.item_ids) for m in (other.fold_in, other.target)), strict=True)
        ]
        for seen, new in zip(fold_in, target, strict=True):
            [user] = [
                u for u in log.user_ids if {i for v, i in first if v == u and i in set(made.item_ids)} == seen | new
            ]
            assert max(first[user, i] for i in seen) < min(first[user, i] for i in new)
    assert made.about["targets"] == "latest"
    assert made.about["training_has_later_events"]


def test_the_share_of_training_that_is_later():
    log, settings = make_log(5), SplitSettings(heldout_users=15)
    made = split(log, settings)
    events = events_of(log)
    target = rows(made.test.target, made.item_ids)
    everything = [a | b for a, b in zip(rows(made.test.fold_in, made.item_ids), target, strict=True)]
    trained = rows(made.train, made.item_ids)
    known = set(made.item_ids)
    items_of = {}
    for _, user, item in events:
        if item in known:
            items_of.setdefault(user, set()).add(item)
    train_users = {u for u, items in items_of.items() if items in trained}
    train = [t for t, u, i in events if u in train_users]
    shares = []
    for whole, targets in zip(everything, target, strict=True):
        [user] = [u for u, items in items_of.items() if items == whole]
        for item in targets:
            at = next(t for t, u, i in events if (u, i) == (user, item))  # the first in the log
            shares.append(np.mean([t > at for t in train]))
    assert made.about["training_later_share"] == pytest.approx(np.mean(shares))
    assert made.about["training_has_later_events"] is True
    assert f"{np.mean(shares):.0%} of its events are later" in protocol.words(made.about)
    bare = Interactions(log.users, log.items, log.user_ids, log.item_ids, log.ratings)
    unknown = split(bare, settings)
    assert unknown.about["training_has_later_events"] is None
    assert unknown.fingerprint() == made.fingerprint()
    assert "not known" in protocol.words(unknown.about)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"split": "time", "targets": "latest"}, "Contradictory flags: --targets is for --split=users"),
        ({"split": "time", "heldout_users": 5}, "Contradictory flags: --heldout_users is for --split=users"),
        ({"split": "time", "fold_in_share": 0.5}, "Contradictory flags: --fold_in_share"),
        ({"split": "time", "cut": "soon"}, "--cut takes a share such as 0.9 or a date .* Received: 'soon'"),
        ({"split": "time", "cut": "0.4"}, "--cut as a share .* between 0.5 and 1. Received: '0.4'"),
        ({"split": "week"}, "--split must be one of users, time"),
    ],
)
def test_settings_that_contradict(values, words):
    with pytest.raises(UserError, match=words):
        SplitSettings(**values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"cut": "2030-01-01"},
            r"--cut=2030-01-01 leaves no event after it: .* 1970-01-01T00:00:00Z to 1970-01-01T00:06",
        ),
        ({"cut": "1960-01-01"}, "leaves no event before it"),
        ({"cut": utc(100.0).isoformat()}, "too few events before it for training and validation"),
        ({"min_items_per_user": 80}, "no user has 80 items before .* lower --min_items_per_user"),
        ({"min_users_per_item": 119}, "no user has 5 items before"),
    ],
)
def test_cuts_that_leave_nothing(values, words):
    with pytest.raises(UserError, match=words) as error:
        split(make_log(), SplitSettings(split="time", **values))
    assert "\n" not in str(error.value)


def test_a_log_without_times():
    log = make_log()
    bare = Interactions(log.users, log.items, log.user_ids, log.item_ids)
    for settings in (SplitSettings(split="time"), SplitSettings(targets="latest")):
        with pytest.raises(UserError, match=r"needs times, and the data has none; .*--timestamp_column"):
            split(bare, settings)
    with pytest.raises(UserError, match="--split=time needs times"):
        load_split(Settings.of(split="time"), lambda line: None)  # the embedded data set


def write_log(folder):
    """events.csv with times: user n has item k of its list at time n + 40·k."""
    lines = synthetic_events(folder, users=200, items=110).read_text().splitlines()[1:]
    order = {}
    rows = []
    for line in lines:
        user = line.partition(",")[0]
        place = order[user] = order.get(user, 0) + 1
        rows.append(f"{line},{1_000_000_000 + 86_400 * (int(user[4:]) % 50 + 4 * place)}")
    (folder / "events.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    return folder / "events.csv"


def test_a_run_split_by_time_as_typed(tmp_path):
    data = write_log(tmp_path)
    flags = [f"--data={data}", f"--workdir={tmp_path / 'run'}", "--split=time", "--cut=.8", "--epochs=1"]
    flags += ["--hidden_dim=16", "--latent_dim=6", "--ease_l2=50", *PLAIN_FLAGS]
    done = process("trainers.main", *flags)
    assert done.status == 0, done.stderr
    assert "Training ends before 2001-" in done.stdout
    values = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert values["split"]["by"] == "time"
    assert values["split"]["training_has_later_events"] is False
    assert values["config"]["split"] == "time"
    again = process("trainers.main", *flags, "--cut=.7")
    mistake(again, "--cut=.8 there, --cut=.7 here")
    mistake(process("trainers.main", *flags, "--targets=latest", f"--workdir={tmp_path / 'b'}"), "Contradictory flags")
    page = process("trainers.report", f"--workdir={tmp_path / 'run'}")
    assert page.status == 0, page.stderr
    assert (
        "Split by time: the model was trained on events before"
        in (tmp_path / "run" / "report" / "index.html").read_text()
    )


@pytest.mark.slow
def test_a_time_split_beside_the_published_one_as_typed(tmp_path):
    data, run = write_log(tmp_path), tmp_path / "run"
    flags = [f"--data={data}", f"--workdir={run}", "--also_time_split", "--cut=0.8", "--heldout_users=20", "--epochs=1"]
    flags += ["--hidden_dim=16", "--latent_dim=6", "--ease_l2=50", *PLAIN_FLAGS]
    done = process("trainers.main", *flags)
    assert done.status == 0, done.stderr
    values = json.loads((run / "metrics.json").read_text())
    inner = json.loads((run / "time_split" / "metrics.json").read_text())
    assert (values["split"]["by"], values["time_split"]["split"]["by"]) == ("users", "time")
    assert values["split"]["training_has_later_events"] is True
    assert values["time_split"]["split"]["training_has_later_events"] is False
    assert values["time_split"]["test"] == inner["test"] != values["test"]
    assert inner["config"]["cut"] == "0.8"
    from_page = protocol.beside(values)
    assert f"NDCG@100 {inner['test']['ndcg@100']['mean']:.4f} ±" in from_page
    assert all(baseline["label"] in from_page for baseline in inner["baselines"])
    # The run beside is gone on with: a lost file of it alone is made again, with the same figures.
    (run / "time_split" / "metrics.json").unlink()
    weights = (run / "best.npz").stat().st_mtime_ns, (run / "time_split" / "best.npz").stat().st_mtime_ns
    again = process("trainers.main", *flags)
    assert again.status == 0, again.stderr
    assert again.stdout.count("Trained already: 1 epochs.") == 2
    assert json.loads((run / "metrics.json").read_text())["time_split"]["test"] == inner["test"]
    assert ((run / "best.npz").stat().st_mtime_ns, (run / "time_split" / "best.npz").stat().st_mtime_ns) == weights
    mistake(process("trainers.main", "--also_time_split", f"--workdir={tmp_path / 'b'}"), "needs times")


def test_also_time_split_contradicts():
    with pytest.raises(UserError, match="--also_time_split adds what --split=time does by itself"):
        Settings.of(also_time_split=True, split="time")
    with pytest.raises(UserError, match="--cut is for --split=time or --also_time_split"):
        Settings.of(cut="0.8")
    inner = Settings.of(also_time_split=True, heldout_users=9, fold_in_share=0.5, cut="0.7").of_time_split()
    assert (inner["split"], inner["heldout_users"], inner["cut"]) == ("time", 0, "0.7")
