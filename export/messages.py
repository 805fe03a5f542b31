"""What a client sends to TF Serving and what comes back, over gRPC and over REST. Pure: no connection is made here."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

SIGNATURES = ("serving_default", "recommend", "recommend_examples", "embed")
Ranked = list[tuple[str, float]]  # item id and score, best first


def rectangle(histories: Sequence[Sequence[str]]) -> list[list[str]]:
    """The histories padded with "" to one length, at least 1.

    Where the server pads too (pad_variable_length_inputs), it repeats the tensor's first element: with several
    histories that must be "", so each row then starts with one.
    """
    lead = [""] if len(histories) > 1 else []
    width = max([len(lead) + len(history) for history in histories] + [1])
    return [[*lead, *history, *[""] * (width - len(lead) - len(history))] for history in histories]


def example(history: Sequence[str]) -> bytes:
    """A serialized tf.Example with the bytes feature `history`."""
    values = tf.train.BytesList(value=[item.encode() for item in history])
    return tf.train.Example(
        features=tf.train.Features(feature={"history": tf.train.Feature(bytes_list=values)})
    ).SerializeToString(deterministic=True)


def predict_request(
    model: str, signature: str, histories: Sequence[Sequence[str]], version: int | None = None
) -> predict_pb2.PredictRequest:
    """The gRPC request, PredictionService.Predict."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    if signature == "recommend_examples":
        request.inputs["examples"].CopyFrom(tf.make_tensor_proto([example(h) for h in histories], tf.string))
    else:
        rows = rectangle(histories)
        shape = [len(rows), len(rows[0]) if rows else 0]
        values = [[item.encode() for item in row] for row in rows]
        request.inputs["history"].CopyFrom(tf.make_tensor_proto(values, tf.string, shape))
    return request


def decoded_response(response: predict_pb2.PredictResponse) -> list[Ranked]:
    """Recommendations of a gRPC answer, a list a history; the "" behind the last recommendation is left out."""
    ids, scores = (tf.make_ndarray(response.outputs[name]).tolist() for name in ("item_ids", "scores"))
    return [_ranked([item.decode() for item in row], values) for row, values in zip(ids, scores, strict=True)]


def rest_body(signature: str, histories: Sequence[Sequence[str]], row_format: bool = True) -> str:
    """The JSON of POST /v1/models/NAME:predict: `instances` (a history a row) or `inputs` (a tensor, column format)."""
    if signature == "recommend_examples":
        values: list[Any] = [{"b64": base64.b64encode(example(h)).decode()} for h in histories]
        rows: list[Any] = [{"examples": value} for value in values]
        name = "examples"
    else:
        values = rectangle(histories)
        rows, name = [{"history": row} for row in values], "history"
    body = {"instances": rows} if row_format else {"inputs": {name: values}}
    return json.dumps({"signature_name": signature, **body}, ensure_ascii=False)


def decoded_json(text: str) -> list[Ranked]:
    """Recommendations of a REST answer in either format.

    Raises:
      ValueError: the server's own error, or no answer of `recommend`.
    """
    answer = json.loads(text)
    if "error" in answer:
        raise ValueError(answer["error"])
    if "predictions" in answer:
        rows = [(row["item_ids"], row["scores"]) for row in answer["predictions"]]
    else:
        rows = list(zip(answer["outputs"]["item_ids"], answer["outputs"]["scores"], strict=True))
    return [_ranked(*row) for row in rows]


def _ranked(ids: list[str], scores: list[float]) -> Ranked:
    return [(item, score) for item, score in zip(ids, scores, strict=True) if item]
