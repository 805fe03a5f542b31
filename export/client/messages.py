"""What a client sends to TF Serving and what comes back, over gRPC and over REST. Opens no connection.

Imports no TensorFlow, so that a client starts at once.
"""

import base64
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from export.client import protos

PREDICT = "/tensorflow.serving.PredictionService/Predict"
Ranked = list[tuple[str, float]]  # item id and score, best first


class Rules(NamedTuple):
    """What may be recommended for a history."""

    candidates: Sequence[str] = ()  # only these; none: the whole catalogue
    exclude: Sequence[str] = ()  # never these
    include_history: bool = False  # whether items of the history may come back


def is_utf8(text: str) -> bool:
    """Whether a text can be sent: bytes of the command line that are no UTF-8, and half a character, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def rectangle(histories: Sequence[Sequence[str]]) -> list[list[str]]:
    """The histories padded with "" to one length, at least 1.

    A server with pad_variable_length_inputs pads a request with the value of its first cell. In a request of several
    histories, that would add an item of the first one to the others. So each of their rows begins with "".
    """
    lead = [""] if len(histories) > 1 else []
    width = max([len(lead) + len(history) for history in histories] + [1])
    return [[*lead, *history, *[""] * (width - len(lead) - len(history))] for history in histories]


def first_items(histories: Sequence[Sequence[str]]) -> list[str]:
    """The first item of each history, "" for an empty one: the input `item` of a request."""
    return [history[0] if history else "" for history in histories]


def example(history: Sequence[str], rules: Rules = Rules()) -> bytes:  # noqa: B008
    """A serialized tf.Example with the bytes feature `history`, and the features of those rules that are given."""
    message = protos.Example()
    feature = message.features.feature
    lists = {"history": history, "candidates": rules.candidates, "exclude": rules.exclude}
    for name, ids in lists.items():
        if ids or name == "history":
            feature[name].bytes_list.value.extend(item.encode() for item in ids)
    if rules.include_history:
        feature["include_history"].int64_list.value.append(1)
    return message.SerializeToString(deterministic=True)


def inputs_of(
    signature: str, histories: Sequence[Sequence[str]], rules: Sequence[Rules] | None = None
) -> dict[str, list]:
    """The inputs of a signature of histories, by name: texts, bytes or truth values.

    Args:
      signature: its name.
      histories: raw item ids.
      rules: of each history, for `recommend_examples` and `recommend_filtered`; None: none.
    """
    rules = rules or [Rules()] * len(histories)
    if signature == "recommend_examples":
        return {"examples": list(map(example, histories, rules))}
    if signature == "recommend_filtered":
        lists = {
            "history": histories,
            "candidates": [r.candidates for r in rules],
            "exclude": [r.exclude for r in rules],
        }
        return {n: rectangle(v) for n, v in lists.items()} | {"include_history": [r.include_history for r in rules]}
    if signature == "similar_items":
        return {"item": first_items(histories)}
    return {"history": rectangle(histories)}


def request_bytes(
    model: str,
    signature: str,
    histories: Sequence[Sequence[str]],
    version: int | None = None,
    rules: Sequence[Rules] | None = None,
) -> bytes:
    """The serialized PredictRequest of PredictionService.Predict; `rules` as `inputs_of`."""
    request = protos.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    for name, rows in inputs_of(signature, histories, rules).items():
        tensor, shape, values = request.inputs[name], [len(rows)], rows
        if name == "item":
            values = [item.encode() for item in rows]
        elif name not in ("examples", "include_history"):
            shape, values = [len(rows), len(rows[0]) if rows else 0], [item.encode() for row in rows for item in row]
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        if name == "include_history":
            tensor.dtype = protos.DT_BOOL
            tensor.bool_val.extend(values)
        else:
            tensor.dtype = protos.DT_STRING
            tensor.string_val.extend(values)
    return request.SerializeToString(deterministic=True)


def decoded_response(response: bytes) -> list[Ranked]:
    """Recommendations of a serialized PredictResponse, a list a history, without the "" behind the last one.

    Raises:
      ValueError: it is no answer of `recommend`.
    """
    try:
        outputs = protos.PredictResponse.FromString(response).outputs
    except DecodeError as error:
        raise ValueError("the answer is no PredictResponse") from error
    ids, scores = (_tensor(outputs[name]) if name in outputs else None for name in ("item_ids", "scores"))
    return _rankings(ids, scores)


def _tensor(tensor: Any) -> Any:
    """The nested lists of a string or float32 TensorProto, as tf.make_ndarray would give them."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype == protos.DT_STRING:
        values = np.array([value.decode() for value in tensor.string_val], object)
    elif tensor.dtype == protos.DT_FLOAT:
        values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val)
    else:
        return None
    missing = math.prod(shape) - len(values)
    if missing > 0 and len(values):  # a TensorProto may leave out repeats of its last value
        values = np.concatenate([values, values[-1:].repeat(missing)])
    return values.reshape(shape).tolist()


def rest_body(
    signature: str,
    histories: Sequence[Sequence[str]],
    row_format: bool = True,
    rules: Sequence[Rules] | None = None,
) -> str:
    """The JSON of POST /v1/models/NAME:predict: `instances` (a history a row) or `inputs` (a tensor, column format);
    `rules` as `inputs_of`."""
    inputs = inputs_of(signature, histories, rules)
    if "examples" in inputs:
        inputs["examples"] = [{"b64": base64.b64encode(value).decode()} for value in inputs["examples"]]
    rows = [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
    body = {"instances": rows} if row_format else {"inputs": inputs}
    return json.dumps({"signature_name": signature, **body}, ensure_ascii=False)


def decoded_json(text: bytes) -> list[Ranked]:
    """Recommendations of a REST answer in either format.

    Raises:
      ValueError: the server's own error, or no answer of `recommend`.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("the answer is no JSON") from error
    if not isinstance(answer, dict):
        answer = {}
    if "error" in answer:
        raise ValueError(answer["error"])
    rows, columns = answer.get("predictions"), answer.get("outputs")
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        columns = {name: [row.get(name) for row in rows] for name in ("item_ids", "scores")}
    elif not isinstance(columns, dict):
        columns = {}
    return _rankings(columns.get("item_ids"), columns.get("scores"))


def _rankings(ids: Any, scores: Any) -> list[Ranked]:
    """Pairs two lists of lists, after a check that they are what `recommend` answers."""
    if not (_all(list, [ids, scores]) and _all(list, [*ids, *scores]) and len(ids) == len(scores)):
        raise ValueError("the answer lacks item_ids or scores, which `recommend` gives")
    for row, values in zip(ids, scores, strict=True):
        if not (len(row) == len(values) and _all(str, row) and _all((int, float), values)):
            raise ValueError("item_ids and scores of the answer are no texts and numbers in pairs")
    return [[pair for pair in zip(*row, strict=True) if pair[0]] for row in zip(ids, scores, strict=True)]


def _all(kind: type | tuple[type, ...], values: Iterable[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)
