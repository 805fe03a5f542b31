"""assets.extra/tf_serving_warmup_requests: what TF Serving asks a new version before it sends users to it."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from vae_cf_tf.registries import SIGNATURES

NAME = "tf_serving_warmup_requests"
SHAPES = ((1, 1), (1, 10), (1, 100), (1, 1000), (8, 100))  # batch, history


def logs(model_name: str, item_ids: list[str]) -> list[prediction_log_pb2.PredictionLog]:
    """Requests for every signature with items drawn from the catalogue: no user's history is among them."""
    random, requests = np.random.default_rng(0), []
    for batch, length in SHAPES:
        size = min(length, len(item_ids))
        histories = [[item_ids[i] for i in random.choice(len(item_ids), size, replace=False)] for _ in range(batch)]
        for signature in SIGNATURES.names():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = model_name, signature
            for name, value in SIGNATURES[signature].example(histories).items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            requests.append(
                prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            )
    return requests


def write(path: Path, model_name: str, item_ids: list[str]) -> None:
    """Writes them as the records that TF Serving reads."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs(model_name, item_ids):
            writer.write(log.SerializeToString(deterministic=True))
