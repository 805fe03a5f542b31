"""Asks a running TF Serving for recommendations: `python -m export.client --model=vamp "1193,3408" "2355"`.

Each argument is a history of raw item ids separated by commas. gRPC by default; --rest=row or --rest=column send JSON.
--candidates, --exclude and --include_history are rules for all of them.
"""

import csv
import sys
from pathlib import Path

from absl import flags

from export import catalogue, titles, versions
from export.client import messages
from export.client.ask import ask_grpc, ask_rest
from vae_cf_tf.cli import commands
from vae_cf_tf.errors import UserError

_USAGE = 'python -m export.client --model=NAME "ID,ID,…" ["ID,ID,…" …]'


def define_flags() -> None:
    flags.DEFINE_string("server", "", "HOST:PORT; empty: localhost:8500 for gRPC, localhost:8501 for REST.")
    flags.DEFINE_string("model", "vamp", "Name of the model, as in models.config.")
    flags.DEFINE_enum(
        "signature",
        "recommend_examples",
        ["recommend", "recommend_examples", "recommend_filtered", "similar_items"],
        "Signature to ask. The first three give the same answers; recommend_examples is safe with any batching of the "
        "server. similar_items takes one item in the place of a history.",
    )
    flags.DEFINE_string("candidates", "", "Item ids separated by commas: only these are ranked; empty: all.")
    flags.DEFINE_string("exclude", "", "Item ids separated by commas that are never recommended.")
    flags.DEFINE_boolean("include_history", False, "Whether items of a history may be recommended again.")
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
    for text in (*argv[1:], values.model, values.server, values.candidates, values.exclude):
        if not messages.is_utf8(text):
            raise UserError(f"{text!r} holds bytes that are not UTF-8. Ids and names are UTF-8 text.")
    histories = [_parsed(text) for text in argv[1:]]
    rule = messages.Rules(_parsed(values.candidates), _parsed(values.exclude), values.include_history)
    if values.signature in ("recommend", "similar_items") and any(rule):
        raise UserError(
            f"--candidates, --exclude and --include_history are no inputs of --signature={values.signature}. Leave "
            "--signature out, or give --signature=recommend_filtered."
        )
    if values.signature == "similar_items" and (wrong := [history for history in histories if len(history) != 1]):
        raise UserError(f"similar_items takes one item an argument. Received: {len(wrong[0])} items. Give one ID.")
    if values.candidates and not rule.candidates:
        raise UserError(f"--candidates={values.candidates} names no item, so nothing could be ranked. Name one.")
    version = versions.newest_in(Path(values.titles)) if values.titles else None
    known = titles.read(version) if version else {}
    server = values.server or ("localhost:8501" if values.rest else "localhost:8500")
    answer: list[messages.Ranked] = []
    for start in range(0, len(histories), values.batch_size):
        asked = histories[start : start + values.batch_size]
        to, rules = (server, values.model, values.signature, asked), [rule] * len(asked)
        if values.rest:
            answer += ask_rest(*to, values.rest == "row", values.timeout, rules)
        else:
            answer += ask_grpc(*to, values.timeout, rules)
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


def run() -> int:
    return commands.run(main, define_flags, "HISTORY [HISTORY …]")


if __name__ == "__main__":
    sys.exit(run())
