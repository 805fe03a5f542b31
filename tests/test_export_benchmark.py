"""The benchmark, at toy size: its figures are complete and its arithmetic is that of the network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export import floors

ROOT = Path(__file__).parents[1]


def run(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "export.benchmark", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command_measures_and_writes_json(tmp_path):
    done = run(
        "--items=300", "--lengths=3,500", "--hidden_dim=16", "--latent_dim=4", "--requests=10", "--batch=3",
        f"--output={tmp_path / 'out.json'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "out.json").read_text())
    assert "| 1 | 3 |" in done.stdout
    (catalogue,) = found["catalogues"]
    assert [(r["batch"], r["length"]) for r in catalogue["requests"]] == [(1, 3), (3, 3), (1, 500), (3, 500)]
    for row in catalogue["requests"]:
        assert row["largest_difference_to_numpy"] < 1e-5
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert min(row["floor_read_ms"], row["floor_gemm_ms"], row["numpy_ms"]) > 0
    assert catalogue["requests"][0]["goal_ms"] == pytest.approx(
        1.5 * max(catalogue["requests"][0][f"floor_{kind}_ms"] for kind in ("read", "gemm")) + 0.3
    )


def test_the_floors_count_what_a_request_needs():
    shapes = {"first": (1000, 8), "gate": (1000, 8), "hidden": (8, 4), "output": (4, 1000)}
    assert floors.work(shapes, items=1000, batch=2, length=10) == (
        2 * 20 * 8 + 8 * 4 + 4 * 1000,
        2 * 20 * 8 + 2 * (8 * 4 + 4 * 1000),
    )
    assert floors.work(shapes, items=1000, batch=200, length=10)[0] == 2 * 1000 * 8 + 8 * 4 + 4 * 1000


def test_bad_flags_are_one_line():
    done = run("--items=ten")
    assert done.returncode == 2
    assert done.stderr == "Error: --items takes whole numbers separated by commas. Received: 'ten'.\n"
