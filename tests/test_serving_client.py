"""The client: what it sends is what the signatures take, and what comes back is printed, over gRPC and REST."""

import base64
import contextlib
import functools
import json
import re
import socket
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from serving_kit import ITEM_IDS, TITLES, exported
from stand_in_server import serving
from tensorflow_serving.apis import predict_pb2
from typed import Typed, fresh_process, mistake, process

from export import titles
from export.client import messages
from export.client.ask import ask_grpc, ask_rest
from vae_cf_tf.errors import UserError

HISTORIES = [["i3", "été"], [], ["i1", "i2", "i9"]]


@functools.cache
def loaded():
    return tf.saved_model.load(str(exported()))


def answered(signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the SavedModel says, as a server would ask it."""
    answer = loaded().signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}


def expected(histories: list[list[str]]) -> list[list[tuple[str, float]]]:
    rankings = []
    for row in histories:
        answer = answered("recommend", {"history": np.array([[i.encode() for i in row] or [b""]], object)})
        rankings.append(
            [(i.decode(), s) for i, s in zip(answer["item_ids"][0], answer["scores"][0].tolist(), strict=True)]
        )
    return rankings


def decoded_history(values: list[list[bytes]]) -> list[list[str]]:
    return [[item.decode() for item in row if item] for row in values]


def sent(*arguments, **options) -> predict_pb2.PredictRequest:
    """What TensorFlow Serving's own message reads in the bytes that the client sends."""
    return predict_pb2.PredictRequest.FromString(messages.request_bytes(*arguments, **options))


@pytest.mark.parametrize("signature", ["serving_default", "recommend", "embed"])
def test_a_grpc_request_decodes_to_the_histories(signature):
    request = sent("vamp", signature, HISTORIES, version=3)
    assert (request.model_spec.name, request.model_spec.signature_name) == ("vamp", signature)
    assert request.model_spec.version.value == 3
    assert list(request.inputs) == ["history"]
    values = tf.make_ndarray(request.inputs["history"])
    assert decoded_history(values.tolist()) == HISTORIES
    assert values[0, 0] == b"", "a request of several histories must start with padding"


def test_a_grpc_request_of_one_history_starts_with_an_item_and_one_of_none_is_empty():
    request = sent("m", "recommend", [["i3", "i4"]])
    assert tf.make_ndarray(request.inputs["history"]).tolist() == [[b"i3", b"i4"]]
    assert tf.make_ndarray(sent("m", "recommend", []).inputs["history"]).shape == (0, 0)


def test_a_grpc_request_of_examples_decodes_to_the_histories():
    request = sent("m", "recommend_examples", HISTORIES)
    examples = tf.make_ndarray(request.inputs["examples"])
    assert examples.shape == (3,)
    parsed = [tf.train.Example.FromString(e).features.feature["history"].bytes_list.value for e in examples]
    assert decoded_history(parsed) == HISTORIES


@pytest.mark.parametrize("row_format", [True, False])
def test_rest_bodies_decode_to_the_histories(row_format):
    body = json.loads(messages.rest_body("recommend", HISTORIES, row_format))
    values = [i["history"] for i in body["instances"]] if row_format else body["inputs"]["history"]
    assert body["signature_name"] == "recommend"
    assert [[item for item in row if item] for row in values] == HISTORIES
    assert len({len(row) for row in values}) == 1
    body = json.loads(messages.rest_body("recommend_examples", HISTORIES, row_format))
    values = [i["examples"] for i in body["instances"]] if row_format else body["inputs"]["examples"]
    parsed = [tf.train.Example.FromString(base64.b64decode(v["b64"])).features.feature["history"] for v in values]
    assert decoded_history([p.bytes_list.value for p in parsed]) == HISTORIES


@pytest.fixture(scope="module")
def servers():
    with serving(exported()) as running:
        yield running


@pytest.fixture
def grpc_server(servers):
    return servers.grpc


@pytest.fixture
def http_server(servers):
    return servers.http


def check(answer: list, histories: list[list[str]]) -> None:
    wanted = expected(histories)
    assert [[item for item, _ in row] for row in answer] == [[item for item, _ in row] for row in wanted]
    for row, wanted_row in zip(answer, wanted, strict=True):
        np.testing.assert_allclose([s for _, s in row], [s for _, s in wanted_row], atol=1e-5)


@pytest.mark.parametrize("signature", ["recommend", "recommend_examples"])
def test_end_to_end(grpc_server, http_server, signature):
    check(ask_grpc(grpc_server, "vamp", signature, HISTORIES), HISTORIES)
    for row_format in (True, False):
        check(ask_rest(http_server, "vamp", signature, HISTORIES, row_format), HISTORIES)


RULES = [
    messages.Rules(["i4", "été", "i5", "none such"], ["i5"], True),
    messages.Rules(),
    messages.Rules(["i7", "i8"], ["i8"]),
]


def by_rules(histories: list[list[str]], rules: list[messages.Rules]) -> list[list[tuple[str, float]]]:
    """What the SavedModel says for each history alone."""
    rankings = []
    for history, rule in zip(histories, rules, strict=True):
        one = {name: np.array([[item.encode() for item in [*ids, ""]]], object) for name, ids in (
            ("history", history), ("candidates", rule.candidates), ("exclude", rule.exclude)
        )}  # fmt: skip
        answer = answered("recommend_filtered", one | {"include_history": np.array([rule.include_history])})
        pairs = zip(answer["item_ids"][0], answer["scores"][0].tolist(), strict=True)
        rankings.append([(item.decode(), score) for item, score in pairs if item])
    return rankings


@pytest.mark.parametrize("signature", ["recommend_filtered", "recommend_examples"])
def test_rules_reach_the_server(grpc_server, http_server, signature):
    wanted = by_rules(HISTORIES, RULES)
    assert [item for item, _ in wanted[0]] in (["été", "i4"], ["i4", "été"])
    assert [item for item, _ in wanted[2]] == ["i7"]
    answers = [ask_grpc(grpc_server, "vamp", signature, HISTORIES, rules=RULES)]
    answers += [ask_rest(http_server, "vamp", signature, HISTORIES, row, rules=RULES) for row in (True, False)]
    for answer in answers:
        assert [[item for item, _ in row] for row in answer] == [[item for item, _ in row] for row in wanted]
        for row, wanted_row in zip(answer, wanted, strict=True):
            np.testing.assert_allclose([s for _, s in row], [s for _, s in wanted_row], atol=1e-5)


def test_the_bytes_of_rules_are_read_by_tensorflows_own_messages():
    request = sent("vamp", "recommend_filtered", HISTORIES, rules=RULES)
    values = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
    assert decoded_history(values["candidates"].tolist()) == [list(rule.candidates) for rule in RULES]
    assert decoded_history(values["exclude"].tolist()) == [list(rule.exclude) for rule in RULES]
    assert values["include_history"].tolist() == [True, False, False]
    example = tf.train.Example.FromString(messages.example(HISTORIES[0], RULES[0])).features.feature
    assert list(example["include_history"].int64_list.value) == [1]
    assert [item.decode() for item in example["candidates"].bytes_list.value] == RULES[0].candidates
    assert set(tf.train.Example.FromString(messages.example(["i1"])).features.feature) == {"history"}


@pytest.mark.parametrize("flags", [["--signature=recommend_filtered"], ["--rest=row"]], ids=["gRPC", "REST"])
def test_the_command_takes_rules(flags, grpc_server, http_server, tmp_path):
    server = http_server if "--rest=row" in flags else grpc_server
    rules = ["--candidates=i4,i5,i1", "--exclude=i5", "--include_history"]
    done = command(tmp_path, f"--server={server}", *flags, *rules, "i1,i2", "")
    assert (done.status, done.stderr) == (0, "")
    first, second = by_rules([["i1", "i2"], []], [messages.Rules(["i4", "i5", "i1"], ["i5"], True)] * 2)
    assert {item for item, _ in first} == {"i4", "i1"}
    assert done.stdout.splitlines() == [*plain("i1, i2", first), *plain("An empty history", second)]


def test_similar_items_end_to_end(grpc_server, http_server):
    asked = [["i3"], ["no such item"], ["été"]]
    answer = answered("similar_items", {"item": np.array([row[0].encode() for row in asked], object)})
    expected = [[item.decode() for item in ids if item] for ids in answer["item_ids"]]
    assert [len(ids) for ids in expected] == [15, 0, 15]
    for shelves in (
        ask_grpc(grpc_server, "vamp", "similar_items", asked),
        ask_rest(http_server, "vamp", "similar_items", asked, True),
        ask_rest(http_server, "vamp", "similar_items", asked, False),
    ):
        assert [[item for item, _ in shelf] for shelf in shelves] == expected
    arguments = ("--signature=similar_items", f"--server={grpc_server}", "i3")
    printed = process("export.client", *arguments)
    lines = printed.stdout.splitlines()[1:]
    assert [line.split(maxsplit=1)[1] for line in lines] == [item.strip() for item in expected[0][:10]]
    mistake(process("export.client", *arguments, "i1,i2"), "one item an argument", "2 items")


def test_nothing_left_to_recommend_is_an_empty_list(http_server, grpc_server):
    assert ask_grpc(grpc_server, "vamp", "recommend", [ITEM_IDS]) == [[]]
    assert ask_rest(http_server, "vamp", "recommend", [ITEM_IDS]) == [[]]


def test_a_response_may_leave_out_repeats_of_a_last_value():
    response = predict_pb2.PredictResponse()
    response.outputs["item_ids"].CopyFrom(tf.make_tensor_proto([["a", "b", "c"], ["d", "d", "d"]]))
    del response.outputs["item_ids"].string_val[4:]
    scores = response.outputs["scores"]
    scores.CopyFrom(tf.make_tensor_proto([[3.0, 2.0, 1.0], [0.5, 0.5, 0.5]]))
    scores.tensor_content = b""
    scores.float_val.extend([3.0, 2.0, 1.0, 0.5])
    rankings = messages.decoded_response(response.SerializeToString())
    assert rankings == [[("a", 3.0), ("b", 2.0), ("c", 1.0)], [("d", 0.5)] * 3]


def command(tmp_path, *arguments: str) -> Typed:
    """The client as typed, in a folder where an import of TensorFlow fails."""
    (tmp_path / "tensorflow").mkdir(exist_ok=True)
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise AssertionError('TensorFlow is imported')")
    return fresh_process("export.client", *arguments, cwd=tmp_path)


def shown(history: str, row: list[tuple[str, float]]) -> list[str]:
    lines = [f"  {score:9.4f}  {item}  {TITLES.get(item, '')}".rstrip() for item, score in row]
    return [f"{history}:", *lines]


@pytest.mark.parametrize("rest", ["", "row", "column"])
def test_the_command_prints_titles_scores_and_the_share_of_unknown_ids(rest, grpc_server, http_server, tmp_path):
    server = http_server if rest else grpc_server
    flags = [f"--server={server}", "--model=vamp", f"--rest={rest}", "--show=40", f"--titles={exported().parent}"]
    done = command(tmp_path, *flags, 'i0, "a""b;c=d",nothing', "映画 7", "")
    assert (done.status, done.stderr) == (0, "")
    first, second, third = expected([["i0", 'a"b;c=d'], ["映画 7"], []])
    assert done.stdout.splitlines() == [
        *shown('The First (1999), a"b;c=d, nothing', first),
        *shown("七人の侍", second),
        *shown("An empty history", third),
        "Ids in the histories: 4, of which 1 (25.00%) are not in the catalogue.",
    ]


@pytest.mark.parametrize("rest", ["", "row"])
def test_many_histories_go_in_several_requests(rest, servers, tmp_path):
    histories = [[ITEM_IDS[n % 36], ITEM_IDS[(n * 7 + 1) % 36]] for n in range(100)]
    servers.sizes.clear()
    done = command(
        tmp_path, f"--server={servers.http if rest else servers.grpc}", f"--rest={rest}", "--show=3",
        *(",".join(history) for history in histories),
    )  # fmt: skip
    assert (done.status, done.stderr) == (0, "")
    assert servers.sizes == [("recommend_examples", 64), ("recommend_examples", 36)]
    rows = dict(zip(map(tuple, histories), expected(histories), strict=True))
    titled = [", ".join(history) for history in histories]
    wanted = [
        line for text, history in zip(titled, histories, strict=True) for line in plain(text, rows[tuple(history)][:3])
    ]
    lines, score = done.stdout.splitlines(), re.compile(r"-?\d+\.\d{4}")
    assert [score.sub("", line) for line in lines] == [score.sub("", line) for line in wanted]
    found, by_one = ([float(number) for line in text for number in score.findall(line)] for text in (lines, wanted))
    np.testing.assert_allclose(found, by_one, atol=2e-4)  # a batch of 64 may round otherwise than one history


def plain(history: str, row: list[tuple[str, float]]) -> list[str]:
    return [f"{history}:", *(f"  {score:9.4f}  {item}".rstrip() for item, score in row)]


@contextlib.contextmanager
def answering(answer: bytes):
    """A server that answers each connection with these bytes and closes it; yields HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(1 << 16):  # a close with unread bytes would reset the connection
                            pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def predicting(answer: bytes):
    """A gRPC server whose Predict answers these bytes."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    service = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def http_answer(body: str, length: int | None = None) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n{body}".encode()


def response(**outputs: object) -> bytes:
    message = predict_pb2.PredictResponse()
    for name, value in outputs.items():
        message.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message.SerializeToString()


TROUBLE = {
    # REST
    "refused": ("row", lambda: contextlib.nullcontext("127.0.0.1:9"), "Connection refused"),
    "bad host": ("row", lambda: contextlib.nullcontext("nohost.invalid:8501"), "Errno"),
    "bad port": ("row", lambda: contextlib.nullcontext("localhost:port"), "nonnumeric port"),
    "cut": ("row", lambda: answering(http_answer('{"predictions": [', 1000)), "IncompleteRead"),
    "an error cut": ("row", lambda: answering(b"HTTP/1.1 500 Lost\r\nContent-Length: 9\r\n\r\nx"), "500: Lost"),
    "silent": ("row", lambda: answering(b""), "closed connection"),
    "no HTTP": ("row", lambda: answering(b"\x00\x00\x12\x04nonsense\r\n\r\n"), "BadStatusLine|nonsense"),
    "no JSON": ("row", lambda: answering(http_answer("<html>")), "no JSON"),
    "nested JSON": ("column", lambda: answering(http_answer("[" * 100_000)), "no JSON"),
    "JSON of a list": ("row", lambda: answering(http_answer("[1]")), "lacks item_ids or scores"),
    "other fields": ("row", lambda: answering(http_answer('{"predictions": [[0.5]]}')), "lacks item_ids or scores"),
    "no pairs": (
        "column",
        lambda: answering(http_answer('{"outputs": {"item_ids": [["a"]], "scores": [["b"]]}}')),
        "no texts and numbers",
    ),
    "too few rows": ("row", lambda: answering(http_answer('{"predictions": []}')), "0 rankings for 1 histories"),
    "an error": ("row", lambda: answering(http_answer('{"error": "two\\nlines"}')), "two lines"),
    # gRPC
    "grpc refused": ("", lambda: contextlib.nullcontext("127.0.0.1:9"), "UNAVAILABLE"),
    "grpc bad host": ("", lambda: contextlib.nullcontext("nohost.invalid:8500"), "UNAVAILABLE"),
    "grpc silent": ("", lambda: answering(b""), "UNAVAILABLE"),
    "grpc at HTTP": ("", lambda: answering(http_answer("{}")), "UNAVAILABLE"),
    "grpc no message": ("", lambda: predicting(b"\xff\xff"), "no PredictResponse"),
    "grpc other fields": ("", lambda: predicting(response(scores=[[0.5]])), "lacks item_ids or scores"),
    "grpc other types": ("", lambda: predicting(response(item_ids=[[1]], scores=[[0.5]])), "lacks item_ids or scores"),
    "grpc no pairs": ("", lambda: predicting(response(item_ids=[["a", "b"]], scores=[[0.5]])), "no texts and numbers"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_a_server_in_trouble_is_told_in_one_line(name):
    rest, server, message = TROUBLE[name]
    ask = functools.partial(ask_rest, row_format=rest == "row") if rest else ask_grpc
    with server() as address, pytest.raises(UserError, match=message) as error:
        ask(address, "vamp", "recommend_examples", [["i1"]], timeout=5.0)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{address} gave no recommendations of 'vamp' (")


def test_the_command_ends_with_one_line(grpc_server, http_server, tmp_path):
    odd = b"i1,\xff".decode(errors="surrogateescape")
    for arguments, message in (
        ([f"--server={grpc_server}", "--rest=row", "i1"], "gave no recommendations"),
        ([f"--server={http_server}", "--timeout=5", "i1"], "UNAVAILABLE"),
        ([f"--server={grpc_server}", "--model=other", "i1"], "NOT_FOUND: Servable not found"),
        ([f"--server={http_server}", "--model=../other", "--rest=column", "i1"], "404: "),
        ([f"--server={grpc_server}", odd], "bytes that are not UTF-8"),
        ([f"--server={http_server}", "--rest=row", odd], "bytes that are not UTF-8"),
        ([f"--server={http_server}", "--rest=row", "a\nb"], "is no list of ids separated by commas"),
        ([], "A history is missing"),
        (["--signature=recommend", "--exclude=i1", "i2"], "are no inputs of --signature=recommend"),
        (["--candidates=,", "i2"], "names no item"),
    ):
        done = command(tmp_path, *arguments)
        mistake(done, message)
        assert done.stdout == ""


def test_damaged_titles_are_told(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    for content in ("{", "[]"):
        (tmp_path / "assets.extra" / titles.NAME).write_text(content)
        with pytest.raises(UserError, match="is damaged"):
            titles.read(tmp_path)
