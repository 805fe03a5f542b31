"""Asks a running TF Serving for recommendations: `python -m export.client --model=vamp 1193,3408 2355`.

Each argument is a history of raw item ids separated by commas. gRPC by default; --rest=row or --rest=column send JSON.
"""

import csv
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

from absl import flags

from vae_cf_tf import commands, quiet
from vae_cf_tf.errors import UserError


def define_flags() -> None:
    flags.DEFINE_string("server", "", "HOST:PORT; empty: localhost:8500 for gRPC, localhost:8501 for REST.")
    flags.DEFINE_string("model", "vamp", "Name of the model, as in models.config.")
    flags.DEFINE_enum("signature", "recommend", ["recommend", "recommend_examples"], "Signature to ask.")
    flags.DEFINE_enum("rest", "", ["", "row", "column"], "JSON over HTTP in this format; empty: gRPC.")
    commands.define_path("titles", "", "SavedModel version, or the folder of versions, whose titles are printed.")
    flags.DEFINE_integer("show", 10, "Recommendations printed for each history.", lower_bound=1)
    flags.DEFINE_float("timeout", 10.0, "Seconds to wait for the answer.", lower_bound=0.001)


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        raise UserError('A history is missing. Usage: python -m export.client --model=NAME "ID,ID,…" ["ID,ID,…" …]')
    histories = [next(csv.reader([text]), []) for text in argv[1:]]
    quiet.import_tensorflow()
    from export import card, titles

    values = flags.FLAGS
    known = titles.read(card.version_in(Path(values.titles))) if values.titles else {}
    server = values.server or ("localhost:8501" if values.rest else "localhost:8500")
    if values.rest:
        answer = ask_rest(server, values.model, values.signature, histories, values.rest == "row", values.timeout)
    else:
        answer = ask_grpc(server, values.model, values.signature, histories, values.timeout)
    for history, ranked in zip(histories, answer, strict=True):
        print(f"{', '.join(known.get(item, item) for item in history) or 'An empty history'}:")
        for item, score in ranked[: values.show]:
            print(f"  {score:9.4f}  {item}  {known.get(item, '')}".rstrip())


def ask_grpc(server: str, model: str, signature: str, histories: list[list[str]], timeout: float = 10.0):
    """Recommendations over gRPC, a list of (item id, score) a history. Raises UserError where there is no answer."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    from export import messages

    with grpc.insecure_channel(server) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            answer = service.Predict(messages.predict_request(model, signature, histories), timeout=timeout)
        except grpc.RpcError as error:
            said = " ".join(str(error.details()).split())[:200]
            raise UserError(
                f"{server} gave no answer for {model!r} ({error.code().name}: {said}). Check both."
            ) from error
    return messages.decoded_response(answer)


def ask_rest(
    server: str, model: str, signature: str, histories: list[list[str]], row_format: bool = True, timeout: float = 10.0
):
    """As `ask_grpc`, over REST: `row_format` sends `instances`, otherwise `inputs`."""
    from export import messages

    body = messages.rest_body(signature, histories, row_format).encode()
    request = urllib.request.Request(
        f"http://{server}/v1/models/{model}:predict", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return messages.decoded_json(answer.read().decode())
    except urllib.error.HTTPError as error:
        said = " ".join(error.read().decode(errors="replace").split())[:200]
        raise UserError(f"{server} refused the request for {model!r} ({error.code}: {said}). Check both.") from error
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{server} gave no answer for {model!r} ({error}). Check --server and the port.") from error


if __name__ == "__main__":
    define_flags()
    sys.exit(commands.run(main, "HISTORY [HISTORY …]"))
