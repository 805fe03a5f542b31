"""The download, against a small archive on this machine."""

import hashlib
import http.server
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from vae_cf_tf.data import download as module
from vae_cf_tf.data.download import DATASETS, download
from vae_cf_tf.data.formats import read
from vae_cf_tf.errors import UserError


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An HTTP server on 127.0.0.1 that holds ml-1m.zip; yields the paths that were asked for."""
    archive = tmp_path / "served" / "ml-1m.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as f:
        f.writestr("ml-1m/ratings.dat", "1::10::5::978300760\n2::20::3::978302109\n")
        f.writestr("ml-1m/movies.dat", "10::Toy Story (1995)::Comedy\n")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(archive.parent))

        def log_message(self, *args):
            asked.append(self.path)

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    monkeypatch.setattr(module, "_URL", f"http://127.0.0.1:{http_server.server_port}/{{name}}.zip")
    monkeypatch.setitem(DATASETS, "ml-1m", hashlib.md5(archive.read_bytes()).hexdigest())
    yield asked
    http_server.shutdown()
    http_server.server_close()


def test_downloads_once_and_gives_a_folder_that_can_be_read(server, tmp_path):
    cache = tmp_path / "cache" / "not there yet"
    said = []
    for _ in range(2):
        folder = download("ml-1m", str(cache), said.append)
        log = read(folder)
        assert log.item_ids.tolist() == ["10", "20"]
        assert log.titles == {"10": "Toy Story (1995)"}
        assert cache in (cache / folder).parents
    assert server == ["/ml-1m.zip"]
    [line] = said
    assert line.startswith("Downloading http://127.0.0.1:")
    assert line.endswith("/ml-1m.zip (0 MB) …")


def test_a_damaged_archive_in_the_cache_is_fetched_again(server, tmp_path):
    (tmp_path / "movielens").mkdir()
    (tmp_path / "movielens" / "ml-1m.zip").write_bytes(b"half of it")
    assert read(download("ml-1m", str(tmp_path))).item_ids.tolist() == ["10", "20"]
    assert server == ["/ml-1m.zip"]
    assert sorted(path.name for path in (tmp_path / "movielens").iterdir()) == ["ml-1m", "ml-1m.zip"]


def test_an_archive_in_the_cache_is_not_fetched_again(server, tmp_path):
    download("ml-1m", str(tmp_path))
    shutil.rmtree(tmp_path / "movielens" / "ml-1m")
    download("ml-1m", str(tmp_path))
    assert server == ["/ml-1m.zip"]


def test_of_two_downloads_at_once_one_fetches_and_the_other_waits(server, tmp_path):
    waits, said = threading.Event(), []

    def say(line):
        said.append(line)
        if line.startswith("Another process is downloading ml-1m"):
            waits.set()
        else:
            assert waits.wait(20)  # the download goes on when the other one has noticed it

    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(lambda _: download("ml-1m", str(tmp_path), say), range(2)))
    assert read(folders.pop()).item_ids.tolist() == ["10", "20"]
    assert not folders
    assert server == ["/ml-1m.zip"]
    assert len(said) == 2
    assert sorted(path.name for path in (tmp_path / "movielens").iterdir()) == ["ml-1m", "ml-1m.zip"]


def test_a_wrong_checksum_is_an_error(server, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "ml-1m", "0" * 32)
    with pytest.raises(UserError, match=r"corrupt.*--data=FOLDER"):
        download("ml-1m", str(tmp_path / "cache"))


def test_without_network_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_URL", "http://127.0.0.1:9/{name}.zip")  # nobody listens there
    with pytest.raises(UserError) as error:
        download("ml-1m", str(tmp_path))
    assert "http://127.0.0.1:9/ml-1m.zip by hand" in str(error.value)
    assert "--data=FOLDER" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name_is_an_error():
    with pytest.raises(UserError, match=r"'ml-7m'.*ml-100k, ml-1m, ml-20m"):
        download("ml-7m")
