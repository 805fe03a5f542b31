"""A format of one's own, in this file alone, from the path to the split."""

import json

import pyarrow as pa
import pytest

from vae_cf_tf.data import formats
from vae_cf_tf.data.events import EventLog
from vae_cf_tf.data.formats import FORMATS, Format, ReaderOptions, register, source_files
from vae_cf_tf.data.load import load_split
from vae_cf_tf.data.source import describe, difference
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import Settings


class JsonLines(Format):
    """An object a line: user, item, stars."""

    accepts = "*.jsonl"
    has_column_names = False

    def sniff(self, path):
        return path.suffix == ".jsonl"

    def in_folder(self, folder):
        return sorted(folder.glob("*.jsonl"))

    def read(self, files, options, say):
        say(f"Reading {len(files)} files of JSON lines.")
        log = EventLog()
        for path in files:
            events = [json.loads(line) for line in path.read_text().splitlines()]
            columns = (pa.array([event[name] for event in events]) for name in ("user", "item", "stars"))
            log.add(*columns)
        return log.interactions()


@pytest.fixture
def json_lines():
    known = list(FORMATS)
    register(JsonLines())
    yield
    FORMATS[:] = known


@pytest.fixture
def folder(tmp_path):
    """Two files: 40 users with 9 of 20 items each, ids as numbers in one and as text in the other."""
    for part, as_id in ((0, int), (1, str)):
        events = [
            {"user": as_id(u), "item": f" i{(u * 7 + k) % 20}", "stars": 5 - (k == 0)}
            for u in range(part, 40, 2)
            for k in range(9)
        ]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return tmp_path


def test_a_format_of_ones_own(json_lines, folder):
    said = []
    settings = Settings.of(data=str(folder), heldout_users=5)
    split = load_split(settings, said.append)
    assert said[:2] == [
        "Reading 2 files of JSON lines.",
        "360 rows read, 360 with a rating of 4 or more; distinct: 360 pairs of 40 users and 20 items.",
    ]
    assert split.train.shape == (30, 20)
    assert set(split.item_ids) == {f"i{k}" for k in range(20)}
    assert source_files(str(folder)) == [folder / "0.jsonl", folder / "1.jsonl"]
    assert source_files(str(folder / "0.jsonl")) == [folder / "0.jsonl"]
    stored = describe(settings.data)
    (folder / "2.jsonl").write_text('{"user": 1, "item": "i1", "stars": 5}\n')
    assert (
        difference(stored, settings.data)
        == f"the data was {folder.name} (0.jsonl and 1 more) and is {folder.name} (0.jsonl and 2 more)"
    )
    with pytest.raises(UserError, match="has no column names, so --item_column=item means nothing here"):
        formats.read(str(folder), ReaderOptions(item_column="item"))


def test_faults_of_an_event_log_of_ones_own(json_lines, folder):
    (folder / "1.jsonl").write_text('{"user": "1", "item": "2", "stars": 5}\n{"user": null, "item": "2", "stars": 5}\n')
    with pytest.raises(UserError, match="row 182: the user id is empty") as error:
        formats.read(str(folder))
    assert str(error.value).startswith(f"{folder}, row ")
    (folder / "0.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no rows"):
        formats.read(str(folder / "0.jsonl"))


def test_an_unregistered_format_is_not_known(folder):
    with pytest.raises(UserError, match=r"is no data set known here: it holds 0\.jsonl, 1\.jsonl"):
        formats.read(str(folder))


def test_registered_formats_are_named_where_a_folder_is_of_none(json_lines, tmp_path):
    with pytest.raises(UserError, match=r"it holds nothing.*\*\.jsonl"):
        formats.read(str(tmp_path))
