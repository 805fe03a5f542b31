"""export.score --workers: the parts of one process, whatever is killed meanwhile."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from serving_kit import ITEM_IDS, exported
from typed import mistake, process

from export.scoring import score_file

SECONDS = 120


def given(count: int) -> pa.Table:
    rng = np.random.default_rng(7)
    rows = [
        {
            "user": n,
            "history": [ITEM_IDS[i] for i in rng.permutation(len(ITEM_IDS))[: rng.integers(0, 38)]],
            "candidates": [ITEM_IDS[i] for i in rng.permutation(len(ITEM_IDS))[: rng.integers(1, 9)]]
            if n % 3
            else None,
        }
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


@pytest.mark.parametrize("name", ["users.parquet", "log.csv"])
@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(name, tmp_path):
    source, table = tmp_path / name, given(90)
    if name == "log.csv":
        events = [f"u{row['user']},{item}" for row in table.to_pylist() for item in row["history"] if item[0] == "i"]
        source.write_text("user,item\n" + "\n".join(events) + "\n")
    else:
        pq.write_table(table, source)
    score_file.score_file(exported(), source, tmp_path / "one", "jsonl", 16, 20)
    flags = [f"--model={exported().parent}", f"--input={source}", "--batch_size=16", "--part_rows=20", "--kind=jsonl"]
    done = process("export.score", *flags, f"--output={tmp_path / 'two'}", "--workers=2")
    assert done.status == 0, done.stderr
    assert "rows, " in done.stderr
    assert len(contents(tmp_path / "one")) == 5
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert (tmp_path / "two" / "_SUCCESS").exists()


def started(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "export.score", *arguments, "--workers=2"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    """The processes that make parts: not multiprocessing's own, which looks after its semaphores."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def until(true) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in Linux' /proc")


@pytest.mark.slow
@needs_proc
def test_the_processes_of_a_killed_job_end_and_the_job_goes_on(tmp_path):
    source, out = tmp_path / "users.parquet", tmp_path / "out"
    pq.write_table(given(900), source)
    flags = [f"--model={exported()}", f"--input={source}", f"--output={out}", "--part_rows=3"]
    job = started(*flags)
    until(lambda: any(out.glob("part-*")))
    makers = children(job.pid)
    assert len(makers) == 2
    job.send_signal(signal.SIGKILL)
    until(lambda: not any(map(is_running, makers)))
    job.communicate()
    before = len(contents(out))
    assert 0 < before < 300
    done = process("export.score", *flags, "--workers=2")
    assert done.status == 0, done.stderr
    assert f"{before} of 300 parts are there" in done.stdout
    score_file.score_file(exported(), source, tmp_path / "one", part_rows=3)
    assert contents(out) == contents(tmp_path / "one")


@needs_proc
@pytest.mark.slow
def test_a_killed_process_and_ctrl_c_are_one_line(tmp_path):
    source, out = tmp_path / "users.parquet", tmp_path / "out"
    pq.write_table(given(6000), source)
    job = started(f"--model={exported()}", f"--input={source}", f"--output={out}", "--part_rows=3")
    until(lambda: any(out.glob("part-*")))
    os.kill(children(job.pid)[0], signal.SIGKILL)
    _, error = job.communicate(timeout=SECONDS)
    assert job.returncode == 2, error
    assert error.splitlines()[-1].startswith("Error: A process of --workers was ended from outside")
    before = len(contents(out))
    job = started(f"--model={exported()}", f"--input={source}", f"--output={out}", "--part_rows=3")
    until(lambda: len(contents(out)) > before)
    job.send_signal(signal.SIGINT)
    output, error = job.communicate(timeout=SECONDS)
    assert job.returncode == 130
    assert f"{before} of 2000 parts are there" in output
    assert error.splitlines()[-1] == "Interrupted. The same command makes the parts that are missing."
    assert "Traceback" not in error


def test_a_process_tells_what_is_wrong_with_the_model(tmp_path):
    """The folder of a job that made nothing is free for another one."""
    pq.write_table(given(30), tmp_path / "users.parquet")
    model, out = tmp_path / "model", tmp_path / "out"
    subprocess.run(["cp", "-r", str(exported()), str(model)], check=True)
    saved = (model / "saved_model.pb").read_bytes()
    (model / "saved_model.pb").write_bytes(b"nonsense")
    flags = [f"--model={model}", f"--input={tmp_path / 'users.parquet'}", f"--output={out}", "--part_rows=10"]
    done = process("export.score", *flags, "--workers=2")
    assert done.status == 2
    assert "saved_model.pb is damaged" in mistake(done._replace(stderr=done.stderr.splitlines()[-1] + "\n"))
    (model / "saved_model.pb").write_bytes(saved)
    score_file.score_file(model, tmp_path / "users.parquet", out, part_rows=10)
    assert len(contents(out)) == 3
