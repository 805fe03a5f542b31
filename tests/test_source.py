"""The files that a run's data comes from: whether they are the same later on."""

import json
import os
import shutil

import pytest

from vae_cf_tf.data import source
from vae_cf_tf.data.formats import source_files
from vae_cf_tf.data.source import describe, difference
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import DataSettings


@pytest.fixture
def ratings(tmp_path):
    path = tmp_path / "data" / "ratings.csv"
    path.parent.mkdir()
    path.write_text("user,item\n1,2\n")
    return path


def test_the_same_data(ratings, monkeypatch):
    settings = DataSettings(data=str(ratings))
    stored = json.loads(json.dumps(describe(settings)))
    assert stored["name"] == "ratings.csv"
    status = ratings.stat()
    assert stored["files"] == [{"name": "ratings.csv", "size": 14, "mtime_ns": status.st_mtime_ns}]
    assert str(ratings.parent) not in json.dumps(stored)
    os.utime(ratings, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert difference(stored, settings) is None  # by content
    # A copy elsewhere, under another name, and as the one file of a folder.
    shutil.copy(ratings, ratings.parent / "copy.csv")
    assert difference(stored, DataSettings(data=str(ratings.parent / "copy.csv"))) is None
    assert difference(stored, DataSettings(data=str(ratings.parent))) is None
    os.utime(ratings, ns=(status.st_atime_ns, status.st_mtime_ns))
    monkeypatch.setattr(source, "_content", None)  # files of the same size and time are not read
    assert difference(stored, settings) is None


def test_other_data(ratings):
    settings = DataSettings(data=str(ratings))
    stored = describe(settings)
    status = ratings.stat()
    ratings.write_text("user,item\n1,3\n")
    os.utime(ratings, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert difference(stored, settings) == "the content of ratings.csv has changed (the size is the same)"
    ratings.write_text("user,item\n1,2\n" + "1,3\n" * 3000)
    assert difference(stored, settings) == "ratings.csv had 14 bytes and has 12,014"
    other = ratings.parent / "u.data"
    other.write_text("1\t2\t3\t4\n")
    assert difference(stored, DataSettings(data=str(other))) == "the data was ratings.csv and is u.data"
    assert difference(stored, DataSettings()) == "the data was ratings.csv and is the embedded data set, version 1"
    assert difference(stored, DataSettings(dataset="ml-1m")) == "the data was ratings.csv and is ml-1m"


def test_a_source_that_is_gone(ratings):
    settings = DataSettings(data=str(ratings))
    stored = describe(settings)
    ratings.unlink()
    assert difference(stored, settings) is None
    with pytest.raises(UserError, match="no file or folder"):
        describe(settings)


def test_data_without_files(monkeypatch):
    embedded, ml_1m = DataSettings(), DataSettings(dataset="ml-1m")
    stored = describe(embedded)
    assert stored["files"] == []
    assert difference(stored, embedded) is None
    assert difference(describe(ml_1m), ml_1m) is None  # without a download
    assert difference(stored, ml_1m) == "the data was the embedded data set, version 1 and is ml-1m"
    monkeypatch.setattr(source, "EMBEDDED", "the embedded data set, version 2")
    assert (
        difference(stored, embedded)
        == "the data was the embedded data set, version 1 and is the embedded data set, version 2"
    )


def test_a_folder_of_many_files(tmp_path):
    for n in (1, 2):
        (tmp_path / f"combined_data_{n}.txt").write_text(f"{n}:\n1,5,2005-09-06\n")
    settings = DataSettings(data=str(tmp_path))
    stored = describe(settings)
    assert [file["name"] for file in stored["files"]] == ["combined_data_1.txt", "combined_data_2.txt"]
    (tmp_path / "combined_data_2.txt").write_text("2:\n1,5,2005-09-06\n7,5,2005-09-06\n")
    assert difference(stored, settings) == "combined_data_2.txt had 18 bytes and has 33"
    # Two files whose contents are exchanged are other data.
    (tmp_path / "combined_data_1.txt").write_text("2:\n1,5,2005-09-06\n")
    (tmp_path / "combined_data_2.txt").write_text("1:\n1,5,2005-09-06\n")
    assert difference(stored, settings) == (
        "the content of combined_data_1.txt, combined_data_2.txt has changed (the size is the same)"
    )


def test_the_files_of_every_form(tmp_path):
    def found(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(
                "1:\n" if "mv_" in name else "1::2::3\n" if ".dat" in name else "user\titem\t3\n"
            )
        files = [path.relative_to(tmp_path).as_posix() for path in source_files(str(tmp_path))]
        for name in names:
            (tmp_path / name).unlink()
        return files

    split = ["train.csv", "validation_tr.csv", "validation_te.csv", "test_tr.csv", "test_te.csv", "unique_sid.txt"]
    assert found("movies.csv", *split) == split
    assert found("ratings.csv", "movies.csv", "tags.csv") == ["ratings.csv"]
    assert found("ratings.dat", "movies.dat") == ["ratings.dat"]
    assert found("b_triplets.txt", "a_train_triplets.txt") == ["a_train_triplets.txt"]
    assert found("training_set/mv_2.txt", "training_set/mv_1.txt", "movie_titles.txt") == [
        "training_set/mv_1.txt",
        "training_set/mv_2.txt",
    ]
    assert found("training_set/ratings.csv") == ["training_set/ratings.csv"]  # the archive's one folder
