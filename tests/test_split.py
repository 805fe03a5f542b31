"""The split, against a plain rewrite of the published notebook, and splits that were made already."""

from pathlib import Path

import numpy as np
import pytest

from vae_cf_tf.data.formats import ReaderOptions, read
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.split import HeldOut, Split, SplitOptions, split
from vae_cf_tf.errors import UserError

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


def notebook(log, options):
    """The notebook's steps in plain Python: lists of rows (user id, item id) and the order of users and items."""
    rows, seen = [], set()
    for k in range(len(log.users)):
        pair = (log.user_ids[log.users[k]], log.item_ids[log.items[k]])
        if (log.ratings is None or log.ratings[k] >= options.threshold) and pair not in seen:
            seen.add(pair)
            rows.append(pair)

    def keep(rows, place, least):
        counts = {}
        for row in rows:
            counts[row[place]] = counts.get(row[place], 0) + 1
        return [row for row in rows if counts[row[place]] >= least]

    rows = keep(rows, 1, options.min_users_per_item)
    rows = keep(rows, 0, options.min_items_per_user)
    numeric = all(u.isdigit() for u in log.user_ids)
    users = sorted({u for u, _ in rows}, key=int if numeric else str)
    random = np.random.RandomState(options.seed)
    users = [users[k] for k in random.permutation(len(users))]
    n, held = len(users), options.heldout_users
    training = set(users[: n - 2 * held])
    train = [row for row in rows if row[0] in training]
    catalogue = list(dict.fromkeys(item for _, item in train))
    parts = []
    for members in (users[n - 2 * held : n - held], users[n - held :]):
        if options.reseed:
            random = np.random.RandomState(options.seed)
        fold_in, target = {}, {}
        for user in sorted(members, key=int if numeric else str):
            own = [item for u, item in rows if u == user and item in catalogue]
            if not own:
                continue
            drawn = []
            if len(own) >= 5:
                # .2 for the published share of .8
                share = {0.8: 0.2, 0.5: 0.5}[options.fold_in_share]
                drawn = random.choice(len(own), size=int(share * len(own)), replace=False).tolist()
            target[user] = {own[k] for k in drawn}
            fold_in[user] = set(own) - target[user]
        members = [u for u in members if u in fold_in]
        parts.append(([fold_in[u] for u in members], [target[u] for u in members]))
    histories = [{item for u, item in train if u == user} for user in users[: n - 2 * held]]
    return histories, parts[0], parts[1], catalogue


def sets(matrix, item_ids):
    """Each row as the set of its items' ids."""
    return [{item_ids[c] for c in matrix.indices[a:b]} for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False)]


@pytest.mark.parametrize("numeric", [True, False])
@pytest.mark.parametrize("ratings", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        SplitOptions(heldout_users=20),
        SplitOptions(heldout_users=20, reseed=False, seed=7),
        SplitOptions(heldout_users=10, min_users_per_item=18, min_items_per_user=7, threshold=3, fold_in_share=0.5),
        SplitOptions(heldout_users=30, min_items_per_user=0),
    ],
)
def test_split_is_the_notebooks(numeric, ratings, options):
    log = make_log(numeric=numeric, ratings=ratings)
    data = split(log, options)
    train, validation, test, catalogue = notebook(log, options)
    assert data.item_ids == catalogue
    assert sets(data.train, catalogue) == train
    for part, (fold_in, target) in ((data.validation, validation), (data.test, test)):
        assert sets(part.fold_in, catalogue) == fold_in
        assert sets(part.target, catalogue) == target


def test_split_reproduces_a_published_protocol_split():
    if not (SHARED / "ml-1m-split").is_dir():
        pytest.skip(f"needs {SHARED}/ml-1m and ml-1m-split, which are not in the repository")
    made = split(read(str(SHARED / "ml-1m")), SplitOptions(heldout_users=600, reseed=False))
    assert made.fingerprint() == read(str(SHARED / "ml-1m-split")).fingerprint()
    # With the published re-seeding only the choice of targets differs.
    reseeded = split(read(str(SHARED / "ml-1m")), SplitOptions(heldout_users=600))
    assert reseeded.item_ids == made.item_ids
    assert (reseeded.train != made.train).nnz == 0
    for part in ("validation", "test"):
        ours, theirs = getattr(reseeded, part), getattr(made, part)
        assert (ours.fold_in + ours.target != theirs.fold_in + theirs.target).nnz == 0
        assert ours.target.nnz == theirs.target.nnz


def test_split_properties():
    log = make_log(1, events=8000)
    options = SplitOptions(heldout_users=25, seed=1)
    data = split(log, options)
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
    assert split(log, options).fingerprint() == data.fingerprint()
    assert split(log, SplitOptions(heldout_users=25, seed=2)).fingerprint() != data.fingerprint()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            SplitOptions(heldout_users=75),
            r"\d+ users are left .*2 × 75 .*lower --heldout_users or --threshold or --min_items",
        ),
        (SplitOptions(heldout_users=10, min_items_per_user=200), r"^0 users are left .*--min_items_per_user"),
        (SplitOptions(threshold=6), r"no rating reaches 6 \(the highest is 5\).*--threshold"),
        (SplitOptions(threshold=float("nan")), "--threshold .*nan"),
        (SplitOptions(min_items_per_user=-1), "--min_items_per_user .*Received: -1"),
        (SplitOptions(min_users_per_item=-2), "--min_users_per_item .*Received: -2"),
        (SplitOptions(heldout_users=-1), "--heldout_users .*Received: -1"),
        (SplitOptions(fold_in_share=0.0), "--fold_in_share .*Received: 0.0"),
        (SplitOptions(fold_in_share=1.0), "--fold_in_share .*Received: 1.0"),
        (SplitOptions(seed=-1), "--split_seed .*Received: -1"),
        (
            SplitOptions(heldout_users=10, fold_in_share=0.999),
            "no validation user has a target: .* one has are 14; lower --fold_in_share",
        ),
    ],
)
def test_split_errors(options, words):
    with pytest.raises(UserError, match=words) as error:
        split(make_log(), options)
    assert "\n" not in str(error.value)


def test_save_and_load(tmp_path):
    data = split(make_log(), SplitOptions(heldout_users=20))
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
    data = split(make_log(), SplitOptions(heldout_users=20))
    other = data.test.target.copy()
    other.indices[0] = (other.indices[0] + 1) % other.shape[1]
    changed = Split(data.train, data.validation, HeldOut(data.test.fold_in, other), data.item_ids, data.titles)
    renamed = Split(data.train, data.validation, data.test, ["x", *data.item_ids[1:]], data.titles)
    assert len({d.fingerprint() for d in (data, changed, renamed)}) == 3


def test_load_errors(tmp_path):
    with pytest.raises(UserError, match=r"no file or folder .*split\.npz"):
        Split.load(tmp_path)
    split(make_log(), SplitOptions(heldout_users=20)).save(tmp_path)
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
