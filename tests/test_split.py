"""The split, against a plain rewrite of the published notebook, and splits that were made already."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference

from vae_cf_tf.data.formats import ReaderOptions, read
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.split import HeldOut, Split, split, target_counts
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import SplitSettings

SHARED = Path(__file__).parents[2] / "shared" / "data"


def make_log(seed=0, events=4000, users=150, items=80, numeric=True, ratings=True):
    """A random log with repeated events, users of very different activity, and ids in no order."""
    random = np.random.default_rng(seed)
    user_codes = (users * random.random(events) ** 2).astype(np.int32)
    item_codes = (items * random.random(events) ** 2).astype(np.int32)
    numbers = random.permutation(10 * users)[:users]
    return Interactions(
        users=user_codes,
        items=item_codes,
        user_ids=np.array([str(n) if numeric else f"u{n}" for n in numbers], object),
        item_ids=np.array([f"item {i}" for i in range(items)], object),
        ratings=random.integers(1, 6, events).astype(np.float32) if ratings else None,
        titles={f"item {i}": f"Title {i}" for i in range(0, items, 2)},
    )


def events_of(log):
    """The log as the reference has it: [(user, item, rating or None)]."""
    ratings = [None] * len(log.users) if log.ratings is None else log.ratings
    return list(zip(log.user_ids[log.users], log.item_ids[log.items], ratings, strict=True))


@pytest.mark.parametrize("numeric", [True, False])
@pytest.mark.parametrize("ratings", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        SplitSettings(heldout_users=20),
        SplitSettings(heldout_users=20, target_draws="continued", split_seed=7),
        SplitSettings(heldout_users=10, min_users_per_item=18, min_items_per_user=7, threshold=3, fold_in_share=0.5),
        SplitSettings(heldout_users=30, min_items_per_user=0),
    ],
)
def test_split_is_the_notebooks(numeric, ratings, settings):
    log = make_log(numeric=numeric, ratings=ratings)
    reference.assert_same_split(split(log, settings), reference.split_of(events_of(log), settings))


def test_split_reproduces_a_published_protocol_split():
    if not (SHARED / "ml-1m-split").is_dir():
        pytest.skip(f"needs {SHARED}/ml-1m and ml-1m-split, which are not in the repository")
    made = split(read(str(SHARED / "ml-1m")), SplitSettings(heldout_users=600, target_draws="continued"))
    assert made.fingerprint() == read(str(SHARED / "ml-1m-split")).fingerprint()
    # With the published re-seeding only the choice of targets differs.
    reseeded = split(read(str(SHARED / "ml-1m")), SplitSettings(heldout_users=600))
    assert reseeded.item_ids == made.item_ids
    assert (reseeded.train != made.train).nnz == 0
    for part in ("validation", "test"):
        ours, theirs = getattr(reseeded, part), getattr(made, part)
        assert (ours.fold_in + ours.target != theirs.fold_in + theirs.target).nnz == 0
        assert ours.target.nnz == theirs.target.nnz


def test_split_properties():
    log = make_log(1, events=8000)
    settings = SplitSettings(heldout_users=25, split_seed=1)
    data = split(log, settings)
    assert data.train.shape[1] == data.test.target.shape[1] == len(data.item_ids)
    assert np.bincount(data.train.indices, minlength=len(data.item_ids)).min() >= 1
    assert np.diff(data.train.indptr).min() >= 5
    assert data.titles == {item: log.titles[item] for item in data.item_ids if item in log.titles}
    for part in (data.validation, data.test):
        assert part.fold_in.shape == part.target.shape
        assert part.fold_in.multiply(part.target).nnz == 0
        n = np.diff(part.fold_in.indptr) + np.diff(part.target.indptr)
        expected = [k // 5 if k >= 5 else 0 for k in n.tolist()]  # int(.2 · k)
        assert np.diff(part.target.indptr).tolist() == expected
    for matrix in (data.train, data.validation.fold_in, data.validation.target, data.test.fold_in, data.test.target):
        assert matrix.dtype == np.float32
        assert matrix.indices.dtype == np.int32
        assert matrix.has_sorted_indices
        assert set(matrix.data.tolist()) == {1.0}
    assert split(log, settings).fingerprint() == data.fingerprint()
    assert split(log, SplitSettings(heldout_users=25, split_seed=2)).fingerprint() != data.fingerprint()


def test_the_share_of_targets_is_exact():
    # 100 - 71 = 29; 1 - .71 as a float is a little less than .29.
    assert target_counts([100, 5, 4], 0.71) == [29, 1, 0]
    # The notebook's own formula for the published share.
    assert target_counts(range(5000), 0.8) == [int(0.2 * n) if n >= 5 else 0 for n in range(5000)]
    for percent in range(1, 100):
        wanted = [n * (100 - percent) // 100 if n >= 5 else 0 for n in range(1000)]
        assert target_counts(range(1000), percent / 100) == wanted


def test_of_100_items_29_are_targets_at_a_share_of_71_percent():
    ids = np.array([str(n) for n in range(100)], object)
    users, items = (a.ravel().astype(np.int32) for a in np.indices((20, 100)))
    data = split(Interactions(users, items, ids[:20], ids), SplitSettings(heldout_users=5, fold_in_share=0.71))
    assert np.diff(data.test.target.indptr).tolist() == [29] * 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            SplitSettings(heldout_users=75),
            r"users are left .*2 × 75 .*lower --heldout_users or --threshold or --min_items",
        ),
        (SplitSettings(heldout_users=10, min_items_per_user=200), r"^0 users are left .*--min_items_per_user"),
        (SplitSettings(threshold=6), r"no rating reaches 6 \(the highest is 5\).*--threshold"),
        (
            SplitSettings(heldout_users=10, fold_in_share=0.999),
            "no validation user has a target: .* one has are 14; lower --fold_in_share",
        ),
    ],
)
def test_split_errors(settings, words):
    with pytest.raises(UserError, match=words) as error:
        split(make_log(), settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"threshold": float("nan")}, "--threshold .*nan"),
        ({"min_items_per_user": -1}, "--min_items_per_user .*Received: -1"),
        ({"min_users_per_item": -2}, "--min_users_per_item .*Received: -2"),
        ({"heldout_users": -1}, "--heldout_users .*Received: -1"),
        ({"fold_in_share": 0.0}, r"--fold_in_share .*Received: 0\.0"),
        ({"fold_in_share": 1.0}, r"--fold_in_share .*Received: 1\.0"),
        ({"split_seed": -1}, "--split_seed .*Received: -1"),
        ({"split_seed": 2**32}, "--split_seed .*Received: 4294967296"),
        ({"target_draws": "both"}, "--target_draws must be one of reseeded, continued. Received: 'both'"),
    ],
)
def test_settings_of_a_split_that_cannot_be_are_refused(values, words):
    with pytest.raises(UserError, match=words) as error:
        SplitSettings(**values)
    assert "\n" not in str(error.value)


def log_of(events):
    """Interactions of [(user, item, rating)]."""
    users, items, ratings = zip(*events, strict=True)
    (user_codes, user_ids), (item_codes, item_ids) = (pd.factorize(np.array(c, object)) for c in (users, items))
    as_codes = (codes.astype(np.int32) for codes in (user_codes, item_codes))
    return Interactions(*as_codes, user_ids, item_ids, np.array(ratings, np.float32))


def test_what_each_step_drops_is_said():
    # 30 users like items 0 to 5 and repeat one of them; u30 likes item 6 alone; u31 likes nothing.
    events = [(f"u{u}", str(i), 5) for u in range(30) for i in (0, 1, 2, 3, 4, 5, 0)]
    events += [("u30", "6", 4), ("u31", "0", 1), ("u0", "7", 5)]
    said = []
    split(log_of(events), SplitSettings(min_users_per_item=2), said.append)
    assert said == [
        "213 rows read, 212 with a rating of 4 or more; distinct: 182 pairs of 31 users and 8 items.",
        "Dropped items of fewer than 2 users; left: 180 pairs of 30 users and 6 items.",
        "Dropped users of fewer than 5 items; left: 180 pairs of 30 users and 6 items.",
    ]


def test_held_out_users_without_an_item_of_the_catalogue_are_counted():
    events = [(f"u{u}", f"{u if u % 2 else ''}i{i}", 5) for u in range(40) for i in range(6)]  # odd users share nothing
    said = []
    data = split(log_of(events), SplitSettings(heldout_users=6), said.append)
    lost = 12 - data.validation.target.shape[0] - data.test.target.shape[0]
    assert lost > 0
    assert said[-1] == f"Left out: {lost} held-out users of whose items no training user has any."


@pytest.mark.parametrize(
    ("events", "settings", "message"),
    [
        # 40 users with 6 items, 30 with 3, 20 with low ratings
        (
            {"a": (40, 6, 5), "b": (30, 3, 5), "c": (20, 6, 2)},
            SplitSettings(heldout_users=20),
            "40 users are left (of 90 in the data --threshold=4 took 20 and --min_items_per_user=5 took 30), too few "
            "for 2 × 20 held-out users and some to train on; lower --heldout_users or --threshold or "
            "--min_items_per_user",
        ),
        (
            {"a": (2, 6, 5), "b": (5, 3, 5)},
            SplitSettings(),
            "2 users are left (of 7 in the data --min_items_per_user=5 took 5), too few for training, validation and "
            "test, which need one each; lower --min_items_per_user",
        ),
        (
            {"a": (2, 6, 5)},
            SplitSettings(),
            "2 users are left, too few for training, validation and test, which need one each; give data of more users",
        ),
        (
            {"a": (9, 6, 5)},
            SplitSettings(min_users_per_item=10),
            "0 users are left (of 9 in the data --min_users_per_item=10 took 9), too few for training, validation and "
            "test, which need one each; lower --min_users_per_item",
        ),
        (
            {"a": (30, 4, 5)},
            SplitSettings(min_items_per_user=0),
            "no validation user has a target: the most items of the catalogue that one has are 4; 5 are needed: hold "
            "out more users with --heldout_users, or give more data",
        ),
    ],
)
def test_too_few_users_names_the_filter_that_took_them(events, settings, message):
    rows = [
        (f"{k}{u}", str(i), r) for k, (users, items, r) in events.items() for u in range(users) for i in range(items)
    ]
    with pytest.raises(UserError) as error:
        split(log_of(rows), settings)
    assert str(error.value) == message


def test_save_and_load(tmp_path):
    data = split(make_log(), SplitSettings(heldout_users=20))
    data.save(tmp_path / "new")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["split.npz"]
    again = Split.load(tmp_path / "new")
    assert again.fingerprint() == data.fingerprint()
    assert again.item_ids == data.item_ids
    assert again.titles == data.titles
    for a, b in ((again.train, data.train), (again.test.fold_in, data.test.fold_in)):
        assert a.shape == b.shape
        assert (a != b).nnz == 0


def test_fingerprint_sees_every_part():
    data = split(make_log(), SplitSettings(heldout_users=20))
    other = data.test.target.copy()
    other.indices[0] = (other.indices[0] + 1) % other.shape[1]
    changed = Split(data.train, data.validation, HeldOut(data.test.fold_in, other), data.item_ids, data.titles)
    renamed = Split(data.train, data.validation, data.test, ["x", *data.item_ids[1:]], data.titles)
    assert len({d.fingerprint() for d in (data, changed, renamed)}) == 3


def test_load_errors(tmp_path):
    with pytest.raises(UserError, match=r"no file or folder .*split\.npz"):
        Split.load(tmp_path)
    split(make_log(), SplitSettings(heldout_users=20)).save(tmp_path)
    whole = (tmp_path / "split.npz").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        (tmp_path / "split.npz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"split\.npz"):
            Split.load(tmp_path)


# --- a folder that is split already


@pytest.fixture
def folder(tmp_path):
    files = {
        "train.csv": "uid,sid\n4,0\n4,2\n1,1\n4,0\n",
        "validation_tr.csv": "uid,sid\n7,0\n9,1\n",
        "validation_te.csv": "uid,sid\n9,2\n",
        "test_tr.csv": "uid,sid\n3,1\n",
        "test_te.csv": "uid,sid\n3,0\n2,2\n",
        "unique_sid.txt": "007\nB b\nü\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_read_split_folder(folder):
    data = read(str(folder))
    assert isinstance(data, Split)
    assert data.item_ids == ["007", "B b", "ü"]
    assert data.train.toarray().tolist() == [[0, 1, 0], [1, 0, 1]]  # uid 1, uid 4
    assert data.validation.fold_in.toarray().tolist() == [[1, 0, 0], [0, 1, 0]]
    assert data.validation.target.toarray().tolist() == [[0, 0, 0], [0, 0, 1]]  # uid 7 has none and stays
    assert data.test.fold_in.toarray().tolist() == [[0, 0, 0], [0, 1, 0]]
    assert data.test.target.toarray().tolist() == [[0, 0, 1], [1, 0, 0]]
    assert data.titles == {}


def test_read_split_folder_titles(folder, tmp_path):
    (folder / "movies.csv").write_text('movieId,title\n007,"Goldfinger, 1964"\nother,No\n', encoding="utf-8")
    assert read(str(folder)).titles == {"007": "Goldfinger, 1964"}
    (folder / "own.tsv").write_text("ü\tUmlaut\n", encoding="utf-8")
    assert read(str(folder), ReaderOptions(item_titles=str(folder / "own.tsv"))).titles == {"ü": "Umlaut"}


def test_crlf_and_no_final_line_break(folder):
    plain = read(str(folder)).fingerprint()
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().rstrip(b"\n").replace(b"\n", b"\r\n"))
    assert read(str(folder)).fingerprint() == plain


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("test_te.csv", None, r"test_te\.csv is missing"),
        ("unique_sid.txt", None, r"unique_sid\.txt is missing"),
        ("unique_sid.txt", "", r"unique_sid\.txt is empty"),
        ("unique_sid.txt", "a\n\nc\n", r"unique_sid\.txt, line 2: the item id is empty"),
        ("unique_sid.txt", "a\nb\na\n", r"unique_sid\.txt, line 3: 'a' stands in line 1"),
        (
            "unique_sid.txt",
            "a\nb\n",
            r"train\.csv, line 3: sid 2 has no line in unique_sid\.txt, whose 2 lines are sid 0 to 1",
        ),
        ("train.csv", "uid,sid\n1,0\n-1,1\n", r"train\.csv, line 3: the uid is '-1', not a whole number"),
        ("train.csv", "uid,sid\n1,0\n1,1.5\n", r"train\.csv, line 3: the sid is '1\.5'"),
        ("train.csv", "uid,sid\n1,0\n1,-1\n", r"train\.csv, line 3: the sid is '-1'"),
        ("train.csv", "uid,sid\n1,0\n\n,1\n", r"train\.csv, line 4: the uid is ''"),
        ("train.csv", "uid,sid\n1,0\n1\n", r"train\.csv, line 3: 1 column where the header has 2"),
        ("train.csv", "uid,sid\n1,99999999999999999999\n", r"train\.csv, line 2: the sid is"),
        ("test_tr.csv", "uid,sid\n", r"test_tr\.csv holds no rows"),
        ("test_tr.csv", "", r"test_tr\.csv is empty"),
        ("validation_tr.csv", "user,item\n1,1\n", r"validation_tr\.csv should have the columns uid and sid"),
    ],
)
def test_read_split_folder_errors(folder, name, text, words):
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read(str(folder))
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"validation_te.csv": "9,2\n9,1\n"},
            r"validation_te\.csv: sid 1 of uid 9 stands in validation_tr\.csv too \(1 such",
        ),
        ({"test_te.csv": "3,0\n3,1\n"}, r"test_te\.csv: sid 1 of uid 3 stands in test_tr\.csv too .*drop each pair"),
        ({"test_tr.csv": "4,1\n"}, r"test_tr\.csv: uid 4 is also in train\.csv; .* must be different ones: drop them"),
        ({"validation_te.csv": "1,2\n"}, r"validation_te\.csv: uid 1 is also in train\.csv"),
        ({"test_te.csv": "7,0\n3,2\n"}, r"test_te\.csv: uid 7 is also in validation_tr\.csv"),
        ({"test_te.csv": "1,0\n4,2\n"}, r"test_te\.csv: 2 users, uid 1 among them, are also in train\.csv"),
    ],
)
def test_a_split_folder_whose_parts_overlap(folder, files, words):
    for name, rows in files.items():
        (folder / name).write_text("uid,sid\n" + rows)
    with pytest.raises(UserError, match=words) as error:
        read(str(folder))
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_a_warning_where_sids_seem_to_count_from_1(folder):
    said = []
    read(str(folder), say=said.append)
    assert said == [f"Reading {folder}, which is split already: no rating, filter or split is applied."]
    for name in ("train", "validation_tr", "validation_te", "test_tr", "test_te"):
        header, *rows = (folder / f"{name}.csv").read_text().splitlines()
        rows = [",".join((row.split(",")[0], str(max(int(row.split(",")[1]), 1)))) for row in rows]
        (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder / "validation_te.csv").write_text("uid,sid\n9,2\n")
    (folder / "test_te.csv").write_text("uid,sid\n2,2\n")
    read(str(folder), say=said.append)
    assert len(said) == 3
    assert "count from 1? None is 0, and the largest is that of the last line of unique_sid.txt" in said[2]


def test_ids_of_a_split_folder_stay_as_they_are(folder):
    (folder / "unique_sid.txt").write_text(" 10\n10.0\nNA\n")
    (folder / "movies.csv").write_text("movieId,title\n10,Ten\n")
    data = read(str(folder))
    assert data.item_ids == [" 10", "10.0", "NA"]
    assert data.titles == {" 10": "Ten"}
