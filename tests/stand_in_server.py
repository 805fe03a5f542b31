"""A small gRPC and REST server on 127.0.0.1 that answers as TF Serving does, through a loaded SavedModel."""

import base64
import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Servers(NamedTuple):
    """Addresses, and what was asked."""

    grpc: str
    http: str
    sizes: list[tuple[str, int]]  # signature and histories of each request that was answered


@contextlib.contextmanager
def serving(version: Path, grpc_port: int = 0, http_port: int = 0) -> Iterator[Servers]:
    """Serves a SavedModel as the model `vamp`; port 0: any that is free."""
    loaded = tf.saved_model.load(str(version))
    sizes: list[tuple[str, int]] = []

    def answered(signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes.append((signature, len(next(iter(inputs.values())))))
        answer = loaded.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in answer.items()}

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
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
            instances = body.get("instances")
            inputs = {n: [row[n] for row in instances] for n in instances[0]} if instances else body["inputs"]
            texts = {name: self.text(value) for name, value in inputs.items()}
            arrays = {
                n: np.array(value, bool if value and value[0] in (True, False) else object)
                for n, value in texts.items()
            }
            outputs = {}
            for name, value in answered(body["signature_name"], arrays).items():
                is_text = value.dtype == object
                outputs[name] = [[v.decode() for v in row] for row in value] if is_text else value.tolist()
            if not instances:
                return self.reply(200, {"outputs": outputs})
            rows = zip(*outputs.values(), strict=True)
            return self.reply(200, {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]})

        def text(self, value):
            if isinstance(value, dict):
                return base64.b64decode(value["b64"])
            if isinstance(value, bool):
                return value
            return [self.text(v) for v in value] if isinstance(value, list) else value.encode()

        def reply(self, status, answer):
            data = json.dumps(answer, allow_nan=False).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    service = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), service)
    grpc_port = service.add_insecure_port(f"127.0.0.1:{grpc_port}")
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", http_port), Handler)
    service.start()
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    try:
        yield Servers(f"127.0.0.1:{grpc_port}", f"127.0.0.1:{rest.server_port}", sizes)
    finally:
        service.stop(None)
        rest.shutdown()
        rest.server_close()
