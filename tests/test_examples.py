"""The files of examples/: each is run as its first lines say."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, synthetic_events
from nbclient import NotebookClient

import vae_cf_tf
from vae_cf_tf.registries import SIGNATURES

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"
FULL = {"recommend_filtered", "similar_items", "explain"} <= set(SIGNATURES.names())
needs_all_signatures = pytest.mark.skipif(not FULL, reason="this version lacks signatures that the example asks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """events.csv, and a model that was trained on it, exported as models/1."""
    folder = tmp_path_factory.mktemp("examples")
    synthetic_events(folder)
    recommender = vae_cf_tf.Recommender("multdae", hidden_dim=16, latent_dim=8, epochs=2, batch_size=50, ease_l2="200")
    recommender.fit(folder / "events.csv", verbose=0).export(folder / "models")
    return folder


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


@needs_all_signatures
def test_the_notebook_runs_and_shows_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path / "here")}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    streams = {
        stream: "".join(o["text"] for o in outputs if o.get("name") == stream) for stream in ("stdout", "stderr")
    }
    assert streams["stderr"] == ""
    assert "Epoch 4/4" in streams["stdout"]
    assert "80/80" in streams["stdout"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert not list((tmp_path / "here").iterdir())


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@needs_all_signatures
def test_the_web_service_answers_as_the_model(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = tf.saved_model.load(str(folder / "models" / "1")).signatures["recommend"]
    with open(folder / "events.csv") as log:
        history = [line.strip().split(",")[1] for line in log][1:4]
    expected = served(history=tf.constant([history]))["item_ids"].numpy()[0].astype(str).tolist()
    process = subprocess.Popen(command("web_service.py", folder / "models" / "1", port), stderr=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{port}/?" + "&".join(f"history={item}" for item in history)

        def ask(more: str) -> tuple[list[str], int]:
            with urllib.request.urlopen(base + more, timeout=30) as answer:
                body = json.load(answer)
            scores = [item["score"] for item in body["items"]]
            assert scores == sorted(scores, reverse=True)
            return [item["item_id"] for item in body["items"]], body["unknown_ids"]

        for _ in range(240):
            try:
                first = ask("")
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.5)
        assert first == (expected[:10], 0)
        assert ask(f"&k=3&exclude={expected[0]}&history=nonsense") == (expected[1:4], 1)
        assert sorted(ask(f"&candidates={expected[9]}&candidates={expected[2]}&k=x")[0]) == sorted(expected[2:10:7])
    finally:
        process.kill()
        process.wait()


def test_the_embedding_finds_the_nearest_users(folder):
    log = vae_cf_tf.load(str(folder / "events.csv"))
    user = log.user_ids[3]
    found = subprocess.run(
        command("embedding.py", folder / "models", folder / "events.csv", user),
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stderr) == (0, "")
    histories = [[log.item_ids[i] for i in log.items[log.users == u]] for u in range(len(log.user_ids))]
    embed = tf.saved_model.load(str(folder / "models" / "1")).signatures["embed"]
    points = np.concatenate([embed(history=tf.constant([history]))["embedding"].numpy() for history in histories])
    cosine = points @ points[3] / np.linalg.norm(points, axis=1) / np.linalg.norm(points[3])
    nearest = [log.user_ids[u] for u in np.argsort(-cosine)[1:6]]
    assert re.findall(r"user (\S+): cosine", found.stdout) == nearest
    stranger = subprocess.run(
        command("embedding.py", folder / "models", folder / "events.csv", "nobody"),
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert stranger.returncode == 1
    assert "the user nobody" in stranger.stderr
