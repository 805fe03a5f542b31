"""Every command line and script of README.md and docs/, as a user types it: a process each, in order, in one folder.

A block that cannot run here has a comment before it, `<!-- not run: REASON -->`; NOT_RUN lists the reasons.
"""

import contextlib
import gzip
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from stand_in_server import serving

from export import versions
from vae_cf_tf.data.synthetic import synthetic_log

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {
    "sets up an environment of its own",
    "needs TensorFlow Serving",
    "needs the network",
    "takes minutes",
    "needs Docker",
    "tests/test_extension.py runs it",
    "tests/test_score_workers.py runs it",
    "tests/test_spark_scoring.py runs it",
    "tests/test_walk.py runs it",
    "tests/test_prepare.py runs it",
    "tests/test_distributed.py runs it",
    "takes an hour",
}
_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)


class Command(NamedTuple):
    """A command line of a page, or a script."""

    page: str
    line: int
    words: list[str]  # of the process
    reason: str  # why it is not run; "": it is

    @property
    def text(self) -> str:
        return self.words[-1]


def commands(page: Path) -> list[Command]:
    """The command lines of a page's sh blocks, and its Python blocks. A line that ends with a backslash goes on."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in _BLOCK.finditer(text):
        line, reason = text.count("\n", 0, block.start("text")) + 1, block["reason"] or ""
        if block["language"] == "python":
            found.append(Command(page.name, line, ["python", "-c", block["text"]], reason))
        if block["language"] != "sh":
            assert "python -m" not in block["text"] or block["language"] == "text", f"{page}: a command outside ```sh"
            continue
        for command in re.split(r"(?<!\\)\n", block["text"].rstrip("\n")):
            if command.strip() and not command.startswith("#"):
                found.append(Command(page.name, line, ["bash", "-c", command], reason))
            line += command.count("\n") + 1
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkout, with the data that the pages speak of, made small."""
    checkout = tmp_path_factory.mktemp("typed")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("runs", "models", "sweeps", "site"):
            (checkout / path.name).symlink_to(path)
    log = synthetic_log(users=160, items=130, communities=4, mean_items=20)
    rng, ids = np.random.default_rng(0), [f"{n + 1}" for n in range(4000)]
    ids[0], ids[1], ids[2] = "1193", "3408", "2355"  # the films of the examples
    ratings = [(f"{u}", ids[i], rng.integers(3, 6)) for u, i in zip(log.users, log.items, strict=True)]
    rows = ["userId,movieId,rating", *(f"{u},{i},{r}" for u, i, r in ratings)]
    titles = ["movieId,title", *(f'{ids[i]},"{log.titles[log.item_ids[i]]}"' for i in range(130))]
    (checkout / "ratings.csv").write_text("\n".join(rows) + "\n")
    for name in ("ml-1m", "ml-100k"):
        (checkout / name).mkdir()
        (checkout / name / "ratings.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
        (checkout / name / "movies.csv").write_text("\n".join(titles) + "\n")
    (checkout / "movies.csv").write_text("\n".join(titles) + "\n")
    histories = [[i for u, i, _ in ratings if u == str(user)][:9] for user in range(40)]
    users = pa.table({"user": [f"u{n}" for n in range(40)], "history": histories})
    pq.write_table(users, checkout / "users.parquet")
    return checkout


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.stem == "training" else []) for page in PAGES],
    ids=lambda page: page.stem,
)
def test_what_the_page_says_can_be_typed(page, folder):
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": binaries, "MPLBACKEND": "Agg"}
    with contextlib.ExitStack() as stack:
        server = None
        for command in commands(page):
            if command.reason:
                continue
            if server is None and ("export.client" in command.text or "curl" in command.text):
                if not (free(8500) and free(8501)):
                    pytest.skip("needs the ports 8500 and 8501, which the page names")
                server = stack.enter_context(serving(versions.newest_in(folder / "models" / "mine"), 8500, 8501))
            result = subprocess.run(command.words, cwd=folder, env=environment, capture_output=True, text=True)
            place = f"{command.page}, line {command.line}: {command.text}"
            assert result.returncode == 0, f"{place}\n{result.stdout[-2000:]}{result.stderr}"
            assert "Traceback" not in result.stderr, f"{place}\n{result.stderr}"
            # Scoring shows its progress there, and TensorFlow by itself its start-up.
            may_write = "export.score" in command.text or "import tensorflow" in command.text
            assert may_write or result.stderr == "", (place, result.stderr)


def test_what_is_not_run_has_a_reason():
    reasons = {command.reason for page in PAGES for command in commands(page)} - {""}
    assert reasons <= NOT_RUN, reasons - NOT_RUN
    assert sum(not command.reason for command in commands(PAGES[0])) >= 5
