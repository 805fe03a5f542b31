"""Requests to a running TF Serving, over gRPC and over REST."""

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence

import grpc

from export.client import messages
from vae_cf_tf.errors import UserError


def ask_grpc(
    server: str,
    model: str,
    signature: str,
    histories: Sequence[Sequence[str]],
    timeout: float = 10.0,
    rules: Sequence[messages.Rules] | None = None,
) -> list[messages.Ranked]:
    """Recommendations over gRPC, a list of (item id, score) a history. Raises UserError where there is no answer.

    `rules` has one entry for each history; None: none.
    """
    with grpc.insecure_channel(server, options=[("grpc.max_receive_message_length", -1)]) as channel:
        try:
            answer = channel.unary_unary(messages.PREDICT)(
                messages.request_bytes(model, signature, histories, rules=rules), timeout=timeout
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
    rules: Sequence[messages.Rules] | None = None,
) -> list[messages.Ranked]:
    """As `ask_grpc`, over REST: `row_format` sends `instances`, otherwise `inputs`."""
    url = f"http://{server}/v1/models/{urllib.parse.quote(model, safe='')}:predict"
    body = messages.rest_body(signature, histories, row_format, rules).encode()
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
