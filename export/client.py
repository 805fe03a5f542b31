"""Asks a running TF Serving for recommendations: `python -m export.client --model=vamp "1193,3408" "2355"`.

Each argument is a history of raw item ids separated by commas. gRPC by default; --rest=row or --rest=column send JSON.
"""

import csv
import http.client
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from export import card, catalogue, messages, titles
from vae_cf_tf import commands
from vae_cf_tf.errors import UserError

_USAGE = 'python -m export.client --model=NAME "ID,ID,…" ["ID,ID,…" …]'


def define_flags() -> None:
    flags.DEFINE_string("server", "", "HOST:PORT; empty: localhost:8500 for gRPC, localhost:8501 for REST.")
    flags.DEFINE_string("model", "vamp", "Name of the model, as in models.config.")
    flags.DEFINE_enum(
        "signature",
        "recommend_examples",
        ["recommend", "recommend_examples"],
        "Signature to ask. Both give the same answers; recommend_examples is safe with any batching of the server.",
    )
    flags.DEFINE_enum("rest", "", ["", "row", "column"], "JSON over HTTP in this format; empty: gRPC.")
    commands.define_path(
        "titles",
        "",
        "SavedModel version, or the folder of versions: prints its titles and how many ids its catalogue lacks.",
    )
    flags.DEFINE_integer("show", 10, "Recommendations printed for each history.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 64, "Histories in a request; more are sent in several requests.", lower_bound=1)
    flags.DEFINE_float("timeout", 10.0, "Seconds to wait for an answer.", lower_bound=0.001)


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        raise UserError(f"A history is missing. Usage: {_USAGE}")
    values = flags.FLAGS
    for text in (*argv[1:], values.model, values.server):
        if not messages.is_utf8(text):
            raise UserError(f"{text!r} holds bytes that are not UTF-8. Ids and names are UTF-8 text.")
    histories = [_parsed(text) for text in argv[1:]]
    version = card.version_in(Path(values.titles)) if values.titles else None
    known = titles.read(version) if version else {}
    server = values.server or ("localhost:8501" if values.rest else "localhost:8500")
    answer: list[messages.Ranked] = []
    for start in range(0, len(histories), values.batch_size):
        asked = histories[start : start + values.batch_size]
        if values.rest:
            answer += ask_rest(server, values.model, values.signature, asked, values.rest == "row", values.timeout)
        else:
            answer += ask_grpc(server, values.model, values.signature, asked, values.timeout)
    for history, ranked in zip(histories, answer, strict=True):
        print(f"{', '.join(known.get(item, item) for item in history) or 'An empty history'}:")
        for item, score in ranked[: values.show]:
            print(f"  {score:9.4f}  {item}  {known.get(item, '')}".rstrip())
    if version:
        item_ids = catalogue.item_ids(version)
        counts = [catalogue.count(history, item_ids) for history in histories]
        print(catalogue.unknown_line(*map(sum, zip(*counts, strict=True))))


def _parsed(text: str) -> list[str]:
    """The ids of a history; an id with a comma, a quote or a blank at its start stands in double quotes, as in CSV."""
    try:
        rows = list(csv.reader([text], skipinitialspace=True))
    except csv.Error as error:
        raise UserError(f"{text[:60]!r} is no list of ids separated by commas. Quote an id as CSV does.") from error
    return [item for row in rows for item in row if item]


def ask_grpc(
    server: str, model: str, signature: str, histories: Sequence[Sequence[str]], timeout: float = 10.0
) -> list[messages.Ranked]:
    """Recommendations over gRPC, a list of (item id, score) a history. Raises UserError where there is no answer."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # otherwise its C++ core writes lines of its own to stderr
    import grpc

    with grpc.insecure_channel(server, options=[("grpc.max_receive_message_length", -1)]) as channel:
        try:
            answer = channel.unary_unary(messages.PREDICT)(
                messages.request_bytes(model, signature, histories), timeout=timeout
            )
            return _complete(messages.decoded_response(answer), histories)
        except grpc.RpcError as error:
            raise _no_answer(server, model, f"{error.code().name}: {error.details()}") from error
        except ValueError as error:
            raise _no_answer(server, model, str(error)) from error


def ask_rest(
    server: str,
    model: str,
    signature: str,
    histories: Sequence[Sequence[str]],
    row_format: bool = True,
    timeout: float = 10.0,
) -> list[messages.Ranked]:
    """As `ask_grpc`, over REST: `row_format` sends `instances`, otherwise `inputs`."""
    url = f"http://{server}/v1/models/{urllib.parse.quote(model, safe='')}:predict"
    body = messages.rest_body(signature, histories, row_format).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return _complete(messages.decoded_json(answer.read()), histories)
    except urllib.error.HTTPError as error:
        raise _no_answer(server, model, f"{error.code}: {_text(error)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _no_answer(server, model, str(reason) or type(reason).__name__) from error


def _text(error: urllib.error.HTTPError) -> str:
    """The body of an error's answer, which the server may cut off too."""
    try:
        return error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return error.reason


def _complete(rankings: list[messages.Ranked], histories: Sequence[Sequence[str]]) -> list[messages.Ranked]:
    if len(rankings) != len(histories):
        raise ValueError(f"the answer has {len(rankings)} rankings for {len(histories)} histories")
    return rankings


def _no_answer(server: str, model: str, reason: str) -> UserError:
    reason = " ".join(reason.split())[:200]
    return UserError(f"{server} gave no recommendations of {model!r} ({reason}). Check --server, its port and --model.")


if __name__ == "__main__":
    define_flags()
    sys.exit(commands.run(main, "HISTORY [HISTORY …]"))
