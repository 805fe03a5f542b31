"""The client: what it sends is what the signatures take, and what comes back is printed, over gRPC and REST."""

import base64
import http.server
import json
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from serving_kit import exported
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from export import client, messages
from vae_cf_tf.errors import UserError

HISTORIES = [["i3", "été"], [], ["i1", "i2", "i9"]]


def answered(signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the SavedModel says, as a server would ask it."""
    loaded = tf.saved_model.load(str(exported()))
    answer = loaded.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}


def expected(histories: list[list[str]]) -> list[list[tuple[str, float]]]:
    found = []
    for row in histories:
        answer = answered("recommend", {"history": np.array([[i.encode() for i in row] or [b""]], object)})
        found.append(
            [(i.decode(), s) for i, s in zip(answer["item_ids"][0], answer["scores"][0].tolist(), strict=True)]
        )
    return found


def decoded_history(values: list[list[bytes]]) -> list[list[str]]:
    return [[item.decode() for item in row if item] for row in values]


@pytest.mark.parametrize("signature", ["serving_default", "recommend", "embed"])
def test_a_grpc_request_decodes_to_the_histories(signature):
    sent = messages.predict_request("vamp", signature, HISTORIES, version=3).SerializeToString()
    request = predict_pb2.PredictRequest.FromString(sent)
    assert (request.model_spec.name, request.model_spec.signature_name) == ("vamp", signature)
    assert request.model_spec.version.value == 3
    assert list(request.inputs) == ["history"]
    values = tf.make_ndarray(request.inputs["history"])
    assert decoded_history(values.tolist()) == HISTORIES
    assert values[0, 0] == b"", "a request of several histories must start with padding"


def test_a_grpc_request_of_one_history_starts_with_an_item_and_one_of_none_is_empty():
    request = messages.predict_request("m", "recommend", [["i3", "i4"]])
    assert tf.make_ndarray(request.inputs["history"]).tolist() == [[b"i3", b"i4"]]
    assert tf.make_ndarray(messages.predict_request("m", "recommend", []).inputs["history"]).shape == (0, 0)


def test_a_grpc_request_of_examples_decodes_to_the_histories():
    request = messages.predict_request("m", "recommend_examples", HISTORIES)
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


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers as TF Serving does, through the loaded SavedModel."""

    def Predict(self, request, context):
        if request.model_spec.name != "vamp":
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for name, value in answered(request.model_spec.signature_name, inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


class Handler(http.server.BaseHTTPRequestHandler):
    """POST /v1/models/vamp:predict, row and column format, as in TF Serving's REST API."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/models/vamp:predict":
            return self.reply(404, {"error": "Servable not found"})
        rows = "instances" in body
        inputs = (
            {name: [row[name] for row in body["instances"]] for name in body["instances"][0]}
            if rows
            else body["inputs"]
        )
        arrays = {name: np.array(self.text(value), object) for name, value in inputs.items()}
        outputs = {}
        for name, value in answered(body["signature_name"], arrays).items():
            outputs[name] = [[v.decode() for v in row] for row in value] if value.dtype == object else value.tolist()
        if not rows:
            return self.reply(200, {"outputs": outputs})
        names = list(outputs)
        found = [dict(zip(names, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
        return self.reply(200, {"predictions": found})

    def text(self, value):
        if isinstance(value, dict):
            return base64.b64decode(value["b64"])
        return [self.text(v) for v in value] if isinstance(value, list) else value.encode()

    def reply(self, status, answer):
        data = json.dumps(answer, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def grpc_server():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture(scope="module")
def http_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def check(answer: list, histories: list[list[str]]) -> None:
    wanted = expected(histories)
    assert [[item for item, _ in row] for row in answer] == [[item for item, _ in row] for row in wanted]
    for row, wanted_row in zip(answer, wanted, strict=True):
        np.testing.assert_allclose([s for _, s in row], [s for _, s in wanted_row], atol=1e-5)


@pytest.mark.parametrize("signature", ["recommend", "recommend_examples"])
def test_end_to_end(grpc_server, http_server, signature):
    check(client.ask_grpc(grpc_server, "vamp", signature, HISTORIES), HISTORIES)
    for row_format in (True, False):
        check(client.ask_rest(http_server, "vamp", signature, HISTORIES, row_format), HISTORIES)


def test_nothing_left_to_recommend_is_an_empty_list(http_server, grpc_server):
    from serving_kit import ITEM_IDS

    assert client.ask_grpc(grpc_server, "vamp", "recommend", [ITEM_IDS]) == [[]]
    assert client.ask_rest(http_server, "vamp", "recommend", [ITEM_IDS]) == [[]]


def test_errors_are_one_line(grpc_server, http_server):
    for ask, server in ((client.ask_grpc, grpc_server), (client.ask_rest, http_server)):
        with pytest.raises(UserError, match="Servable not found") as error:
            ask(server, "other", "recommend", HISTORIES)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="gave no answer"):
        client.ask_rest("127.0.0.1:9", "vamp", "recommend", HISTORIES, timeout=2)
    with pytest.raises(UserError, match="gave no answer"):
        client.ask_grpc("127.0.0.1:9", "vamp", "recommend", HISTORIES, timeout=2)


@pytest.mark.parametrize("rest", ["", "row", "column"])
def test_the_command_prints_titles_and_scores(rest, grpc_server, http_server, capsys):
    from absl import flags

    values = flags.FlagValues()
    for name, value in {
        "server": http_server if rest else grpc_server,
        "model": "vamp",
        "signature": "recommend",
        "rest": rest,
        "titles": str(exported()),
        "show": 40,
        "timeout": 10.0,
    }.items():
        flags.DEFINE_string(name, None, "", flag_values=values)
        values[name].value = value
    values.mark_as_parsed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flags, "FLAGS", values)
        client.main(["client", 'i0,"a""b;c=d"', "映画 7"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'The First (1999), a"b;c=d:'
    first = expected([["i0", 'a"b;c=d']])[0]
    assert [line.split()[1] for line in lines[1 : 1 + len(first)] if "padded" not in line] == [
        item.split()[0] for item, _ in first if "padded" not in item
    ]
    assert lines[1 + len(first)] == "七人の侍:"
    titled = [line for line in lines[2 + len(first) :] if line.endswith("i0  The First (1999)")]
    assert len(titled) == sum(item == "i0" for item, _ in expected([["映画 7"]])[0])
