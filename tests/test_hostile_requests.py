"""Requests that no client should send, through the C API: a server checks the types of a request, not its shapes."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from serving_kit import ITEM_IDS, exported
from torture import asked
from torture.asked import Request, Row
from torture.c_api import TENSORS, Answer, Strings
from torture.requests import Requests, slope, tensors

from export.client import messages

HERE = Path(__file__).parent
ASK = """
import pickle, sys
from pathlib import Path
import serving_c_api
from torture.c_api import Session
session = Session(serving_c_api.api(sys.argv[1]), Path(sys.argv[2]))
requests = pickle.loads(Path(sys.argv[3]).read_bytes())
Path(sys.argv[3]).write_bytes(pickle.dumps([session.run(*request) for request in requests]))
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> Path:
    """A version with the names that `Session` reads beside it."""
    copied = tmp_path_factory.mktemp("hostile") / "model" / "1"
    shutil.copytree(exported(item_item="whole"), copied)
    (copied / "assets.extra" / TENSORS).write_text(json.dumps(tensors(copied)))
    return copied


def answers(version: Path, requests: list, folder: Path) -> list[Answer]:
    """What a process that imports no TensorFlow is answered."""
    path = folder / "requests"
    path.write_bytes(pickle.dumps(requests))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    words = [sys.executable, "-c", ASK, str(Path(tf.__file__).parent), str(version), str(path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return pickle.loads(path.read_bytes())


def ids(*shape: int) -> Strings:
    return Strings(shape, [ITEM_IDS[i % 7].encode() for i in range(int(np.prod(shape)))])


def filtered(history: int = 2, candidates: int = 2, exclude: int = 2, include: int = 2, width: int = 3) -> dict:
    lists = {"history": ids(history, width), "candidates": ids(candidates, width), "exclude": ids(exclude, width)}
    return lists | {"include_history": np.ones(include, bool)}


WRONG = {
    "rank 1": ("recommend", {"history": ids(2)}, "history"),
    "rank 3": ("serving_default", {"history": ids(2, 1, 3)}, "history"),
    "rank 2 of items": ("similar_items", {"item": ids(2, 1)}, "item"),
    "more items": ("explain", {"history": ids(1, 3), "item": ids(2)}, "history and item"),
    "fewer items": ("explain", {"history": ids(2, 3), "item": ids(1)}, "history and item"),
    "more truth values": ("recommend_filtered", filtered(include=3), "history and include_history"),
    "more candidates": ("recommend_filtered", filtered(candidates=4), "history and candidates"),
    "fewer exclusions": ("recommend_filtered", filtered(exclude=1), "history and exclude"),
    "no ids, so that nothing is shifted": ("recommend_filtered", filtered(exclude=1, width=0), "history and exclude"),
}


def test_wrong_shapes_are_errors_that_name_the_input(version, tmp_path):
    right = [("recommend_filtered", filtered()), ("explain", {"history": ids(2, 3), "item": ids(2)})]
    found = answers(version, [(name, inputs) for name, inputs, _ in WRONG.values()] + right, tmp_path)
    assert [answer.code for answer in found[len(WRONG) :]] == [0, 0]
    for name, (_, _, text), answer in zip(WRONG, WRONG.values(), found[: len(WRONG)], strict=True):
        assert answer.code == tf.errors.INVALID_ARGUMENT, name
        assert text in answer.message or "Shape of tensor" in answer.message, (name, answer.message)


def test_a_tf_example_that_is_cut_off_is_an_error(version, tmp_path):
    rules = messages.Rules(ITEM_IDS[2:30], ITEM_IDS[3:6], include_history=True)
    for whole in (messages.example(ITEM_IDS[:3], rules), messages.example(ITEM_IDS[:3])):
        cuts = [("recommend_examples", {"examples": Strings([1], [whole[:n]])}) for n in range(len(whole) + 1)]
        codes = [answer.code for answer in answers(version, cuts, tmp_path)]
        assert (codes[0], codes[-1]) == (0, 0)  # no bytes are an example without features
        assert set(codes[1:-1]) == {tf.errors.INVALID_ARGUMENT}


def test_hostile_requests_from_eight_threads(version, tmp_path):
    result = Requests(tmp_path, 0, 1.0)._asked("extract", [version.parent], requests=400)
    assert result["found"] == ""
    assert result["requests"] == 400
    assert 20 < result["refused"] < 120


class Doctored:
    """A right answer to a `Request`, to be made wrong."""

    def __init__(self, version: Path, folder: Path):
        self.catalogue = asked.Catalogue(version)
        self.request = Request(
            "recommend_filtered", "rows", filtered(1, 1, 1, 1), [Row([b"i0", b"i1", b"i2"], [], [b"i0", b"i1", b"i2"])]
        )
        self.request.inputs["candidates"] = Strings([1, 1], [b""])
        self.request.inputs["include_history"][:] = False
        [self.answer] = answers(version, [("recommend_filtered", self.request.inputs)], folder)

    def fault(self, **outputs) -> str:
        answer = self.answer._replace(outputs=self.answer.outputs | outputs)
        return asked.faults(self.request, answer, self.catalogue, None, random.Random(0))


def test_faults_are_found(version, tmp_path, monkeypatch):
    monkeypatch.setattr(asked, "COMPARED", 0)
    case = Doctored(version, tmp_path)
    scores, items = case.answer.outputs["scores"], case.answer.outputs["item_ids"]
    assert case.fault() == ""

    def with_first(item: bytes) -> Strings:
        return items._replace(values=[item, *items.values[1:]])

    assert "not allowed" in case.fault(item_ids=with_first(b"i1"))
    assert "lacks" in case.fault(item_ids=with_first(b"no item"))
    assert "twice" in case.fault(item_ids=with_first(items.values[1]))
    assert "padding" in case.fault(item_ids=with_first(b""))
    assert "not finite" in case.fault(scores=np.where(scores == scores.max(), np.float32("nan"), scores))
    assert "order" in case.fault(scores=scores[:, ::-1])
    assert "shape" in case.fault(scores=scores[:, 1:])
    assert "unknown_ids" in case.fault(unknown_ids=np.array([1], np.int32))
    refused = case.answer._replace(code=3, message="no")
    assert "error 3" in asked.faults(case.request, refused, case.catalogue, None, random.Random(0))
    wrong = case.request._replace(rows=None)
    assert "answered" in asked.faults(wrong, case.answer, case.catalogue, None, random.Random(0))


def test_the_slope_of_memory_and_its_interval():
    times, rng = np.linspace(0, 2, 2400), np.random.default_rng(0)
    low, middle, high = slope(times, 300 + 5 * times + rng.normal(0, 2, 2400))
    assert low < 5 < high
    assert high - low < 1
    assert abs(middle - 5) < 0.3
    walk = slope(times, 300 + np.cumsum(rng.normal(0, 1, 2400)))  # neighbours depend on each other: a wide interval
    assert walk[2] - walk[0] > 5
