"""A web service over an exported model: `python examples/web_service.py models/mine/1 8000`.

It needs TensorFlow and no code of this project. For many requests at a time, use TensorFlow Serving (docs/serving.md).

    curl 'http://127.0.0.1:8000/?history=1193&history=3408&exclude=260&k=5'
"""

import json
import sys
from urllib.parse import parse_qs
from wsgiref.simple_server import make_server

import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])


def application(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"])
    ids = {name: tf.constant([query.get(name, [""])]) for name in ("history", "candidates", "exclude")}
    answer = loaded.signatures["recommend_filtered"](**ids, include_history=tf.constant([False]))
    best = zip(answer["item_ids"].numpy()[0], answer["scores"].numpy()[0], strict=True)
    items = [{"item_id": item.decode(), "score": float(score)} for item, score in best if item]
    k = query.get("k", ["10"])[0]
    body = {"items": items[: int(k) if k.isdecimal() else 10], "unknown_ids": int(answer["unknown_ids"].numpy()[0])}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]


make_server("127.0.0.1", int(sys.argv[2]), application).serve_forever()
