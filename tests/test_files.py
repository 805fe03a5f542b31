"""Files that several processes write at once, or that a killed process left half written."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT

from vae_cf_tf import files
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_of_writers_at_once_the_last_ones_file_stays_whole(tmp_path):
    path, size = tmp_path / "file", 100_000

    def write(letter):
        for _ in range(5):
            with written_aside(path) as aside, open(aside, "wb") as f:
                for _ in range(10):
                    f.write(letter * (size // 10))
                    f.flush()
            assert len(set(path.read_bytes())) == 1
            assert path.stat().st_size == size

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, (b"a", b"b", b"c", b"d", b"e", b"f")))
    assert names(tmp_path) == ["file"]


def test_what_a_killed_process_left_goes_with_the_next_file_and_what_is_being_written_stays(tmp_path):
    code = (
        "import pathlib, sys, time; from vae_cf_tf.files import written_aside\n"
        "with written_aside(sys.argv[1]) as aside: aside.write_text('half'); print(flush=True); time.sleep(60)"
    )
    path = tmp_path / "file.json"
    process = subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE)
    process.stdout.readline()
    (tmp_path / ".file.json.tmp").write_text("of version 0.1, which had one name for all processes")
    for other in (".another.json.0123abcd.tmp", ".file.json.notes.tmp", "file.json.0123abcd.tmp"):
        (tmp_path / other).write_text("no temporary file of this one")
    others = {".another.json.0123abcd.tmp", ".file.json.notes.tmp", "file.json.0123abcd.tmp"}
    path.write_text("old")
    with written_aside(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    [half] = set(names(tmp_path)) - others - {"file.json"}
    assert (tmp_path / half).read_text() == "half"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with written_aside(path) as aside:
        aside.write_text("newer")
    assert path.read_text() == "newer"
    assert set(names(tmp_path)) == others | {"file.json"}


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with contextlib.suppress(ZeroDivisionError), written_aside(path) as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_lock_is_waited_for_and_a_wait_is_asked_for_only_where_it_is_held(tmp_path):
    asked = []

    def waits(seconds):
        for second in seconds:
            asked.append(second)
            yield second

    folder = tmp_path / "new"
    with files.locked(folder, "busy", waits([9.0])):
        assert asked == []
        with pytest.raises(UserError, match="busy"), files.locked(folder, "busy", waits([0.01, 0.02])):
            pass
        assert asked == [0.01, 0.02]
    assert not folder.exists()  # nothing was written to it
    with ThreadPoolExecutor(1) as pool, files.locked(folder, "busy"):

        def second():
            with files.locked(folder, "busy", [0.01] * 1000):
                return time.monotonic()

        later = pool.submit(second)
        time.sleep(0.1)
        freed = time.monotonic()
    assert later.result() >= freed
    assert not folder.exists()


def test_the_files_mode_is_the_usual_one(tmp_path):
    """And not that of a private temporary file: others may read a report."""
    (tmp_path / "usual").write_text("")
    with written_aside(tmp_path / "file") as aside:
        aside.write_text("")
    assert os.stat(tmp_path / "file").st_mode == os.stat(tmp_path / "usual").st_mode


def test_json_with_a_changed_byte_is_refused(tmp_path):
    """Or the change is of what carries no meaning."""
    path, values = tmp_path / "v.json", {"a": [1, 2.5, {"b": "süß"}], "name": "x", "none": None}
    files.write_json(path, values)
    assert files.read_json(path) == values
    content = path.read_bytes()
    for at in range(len(content)):
        for bit in range(8):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            try:
                found = files.read_json(path)
            except ValueError:
                continue
            # A name of another spelling, which no reader asks for, is all that can be left of the checksum.
            assert {name: found.get(name) for name in values} == values, path.read_bytes()
    # Nor is it the checksum's name that goes together with a value alone.
    text = content.decode()
    for at in range(text.index("checksum"), text.index('"a"')):
        for length in range(1, 90):
            path.write_text(text[:at] + text[at + length :])
            try:
                found = files.read_json(path)
            except ValueError:
                continue
            assert "a" not in found or {name: found.get(name) for name in values} == values, path.read_text()
    path.write_text('{"by": "hand"}')
    assert files.read_json(path) == {"by": "hand"}


def test_a_folder_has_its_name_only_after_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    aside, target = tmp_path / "aside", tmp_path / "target"
    (aside / "inner").mkdir(parents=True)
    (aside / "inner" / "file").write_text("x")
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (done.append(Path(os.readlink(f"/proc/self/fd/{d}")).name), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), replace(*names)))
    files.move(aside, target)
    assert (target / "inner" / "file").read_text() == "x"
    before, after = done[: done.index("rename")], done[done.index("rename") + 1 :]
    assert set(before) == {"aside", "inner", "file"}
    assert after == [tmp_path.name]
