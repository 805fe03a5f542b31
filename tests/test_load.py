"""From the settings to a split: what is said on the way, and mistakes that show at once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vae_cf_tf.data.load import load_split
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import silent
from vae_cf_tf.settings import Settings

ROOT = Path(__file__).parents[1]


def rows(rating="5"):
    return [(f"u{u}", f"i{(u + k) % 12}", rating) for u in range(40) for k in range(8)]


def write_csv(path, header, events):
    path.write_text("\n".join([header, *(",".join(event) for event in events), ""]))
    return path


def said_of(**settings):
    said = []
    load_split(Settings.of(**settings), said.append)
    return said


def test_what_is_read_is_said(tmp_path):
    path = write_csv(tmp_path / "log.csv", "userId,movieId,Stars,timestamp,helpful", [(*e, "97", "3") for e in rows()])
    assert said_of(data=str(path)) == [
        f"Reading {path}: user = userId, item = movieId, rating = Stars, "
        "4 or more counts, time = timestamp; not used: helpful.",
        "320 rows read, 320 with a rating of 4 or more; distinct: 320 pairs of 40 users and 12 items.",
        "Dropped users of fewer than 5 items; left: 320 pairs of 40 users and 12 items.",
    ]
    assert "rating = Stars, 3.5 or more counts" in said_of(data=str(path), threshold=3.5)[0]


def test_a_rating_column_of_an_unknown_name_is_said_to_be_unused(tmp_path):
    path = write_csv(tmp_path / "log.csv", "userId,movieId,value", rows("1"))
    said = said_of(data=str(path))
    assert said[0].endswith("user = userId, item = movieId, no rating column: every event counts; not used: value.")
    assert said[1] == "320 rows read; distinct: 320 pairs of 40 users and 12 items."
    with pytest.raises(UserError, match=r"no rating reaches 4 \(the highest is 1\)"):
        said_of(data=str(path), rating_column="value")


def test_columns_without_a_name(tmp_path):
    path = write_csv(tmp_path / "log.csv", ",user,item,", [("0", u, i, "") for u, i, _ in rows()])  # pandas' index
    assert said_of(data=str(path))[0].endswith("every event counts; not used: (no name), (no name).")


def test_many_unused_columns_are_cut_short(tmp_path):
    header = ",".join(["user", "item", *(f"c{n}" for n in range(99))])
    path = write_csv(tmp_path / "log.csv", header, [(u, i, *"9" * 99) for u, i, _ in rows()])
    assert said_of(data=str(path))[0].endswith("not used: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, ….")


def test_every_form_says_what_it_reads(tmp_path):
    events = rows()
    users, items, ratings = zip(*events, strict=True)
    parquet, dat, triplets = (tmp_path / name for name in ("log.parquet", "ratings.dat", "train_triplets.txt"))
    pq.write_table(pa.table({"user": users, "item": items, "rating": np.array(ratings, float), "t": ratings}), parquet)
    dat.write_text("".join(f"{u}::{i}::{r}::97\n" for u, i, r in events))
    triplets.write_text("".join(f"{u}\t{i}\t{r}\n" for u, i, r in events))
    netflix = tmp_path / "netflix"
    netflix.mkdir()
    for n in range(3):
        (netflix / f"mv_000000{n}.txt").write_text(f"{n}:\n" + "".join(f"{u},5,2005-09-06\n" for u in range(9)))
    # The same file read in two forms: `::` and its time stamps, and `Parquet`.
    assert said_of(data=str(parquet))[0] == (
        f"Reading {parquet}: user = user, item = item, rating = rating, 4 or more counts; not used: t."
    )
    assert said_of(data=str(dat))[0] == (
        f"Reading {dat} in MovieLens' layout: user = column 1, item = column 2, rating = column 3, 4 or more counts, "
        "time = column 4."
    )
    assert said_of(data=str(triplets))[0] == (
        f"Reading {triplets}, a Million Song taste profile: user = column 1, item = column 2, "
        "no rating column: every event counts; not used: column 3 (play count)."
    )
    with pytest.raises(UserError, match="no validation user has a target"):
        said_of(data=str(netflix), min_items_per_user=0)
    assert said_of()[0] == "Making the embedded data set: every event counts."


def test_a_threshold_for_data_without_ratings_is_an_error(tmp_path):
    path = write_csv(tmp_path / "log.csv", "userId,movieId,value", rows("1"))
    for settings in (Settings.of(data=str(path), threshold=3.0), Settings.of(threshold=3.0)):
        with pytest.raises(UserError, match=r"--threshold=3 is given, but the data has no ratings; .*--rating_column"):
            load_split(settings, lambda line: None, {"data", "threshold"})
    said = []
    load_split(Settings.of(data=str(path)), said.append, {"data"})
    assert len(said) == 3


def test_settings_of_the_split_that_change_nothing_are_said(tmp_path):
    for name in ("train", "validation_tr", "validation_te", "test_tr", "test_te"):
        user = {"t": 1, "v": 2, "te": 3}["te" if name.startswith("test") else name[0]]
        (tmp_path / f"{name}.csv").write_text(f"uid,sid\n{user},{int(name.endswith('te'))}\n")
    (tmp_path / "unique_sid.txt").write_text("a\nb\n")
    said = []
    load_split(Settings.of(data=str(tmp_path)), said.append, {"data", "threshold", "heldout_users", "epochs"})
    assert said == [
        f"Reading {tmp_path}, which is split already: no rating, filter or split is applied.",
        "The data is split already: --threshold, --heldout_users change nothing.",
    ]


def test_mistakes_of_paths_and_columns(tmp_path):
    (tmp_path / "empty").mkdir()
    path = write_csv(tmp_path / "log.csv", "userId,movieId,rating", rows())
    for settings, words in (
        ({"data": str(tmp_path / "nowhere.csv")}, "no file or folder"),
        ({"data": str(path), "user_column": "who"}, "no column named by --user_column=who"),
        ({"data": str(path), "item_titles": str(tmp_path / "no.csv")}, "no file or folder"),
        ({"data": str(tmp_path / "empty"), "item_titles": str(path)}, "is no data set known here"),
    ):
        with pytest.raises(UserError, match=words):
            load_split(Settings.of(**settings), silent)


def test_data_is_read_and_split_without_tensorflow_or_keras(tmp_path):
    path = write_csv(tmp_path / "log.csv", "userId,movieId,rating", rows())
    code = (
        "import sys\n"
        "from vae_cf_tf.settings import Settings\n"
        "from vae_cf_tf.data import download, load, source\n"
        "load.load_split(Settings.of(data=sys.argv[1]), print)\n"
        "source.describe(Settings.of(data=sys.argv[1]).data)\n"
        "try: download.download('ml-1m', sys.argv[1])\n"  # a cache folder that is a file
        "except Exception as e: print(type(e).__name__)\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    assert result.stdout.splitlines()[-2:] == ["UserError", "[]"]
