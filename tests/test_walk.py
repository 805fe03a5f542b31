"""The walk of docs/large_logs.md as typed: a folder of Parquet, two workers, an export, Spark."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from test_distributed import free_ports
from test_prepare import engine_needed

from vae_cf_tf.data.synthetic import synthetic_log

SMALL = "--hidden_dim=16\n--latent_dim=6\n--pseudo_inputs=5\n--batch_size=40\n--epochs=2\n--ease_l2=50\n"


@pytest.mark.slow
def test_the_walk_from_a_folder_of_parquet_to_recommendations_on_spark(tmp_path):
    engine_needed("duckdb")
    engine_needed("spark")
    text = (ROOT / "docs" / "large_logs.md").read_text(encoding="utf-8")
    script = re.search(r"<!-- not run: tests/test_walk.py runs it -->\n```sh\n(.*?)```", text, re.S)[1]
    for port, free in zip(("12345", "12346"), free_ports(), strict=True):
        script = script.replace(port, str(free))
    shutil.copytree(ROOT / "trainers" / "flags", tmp_path / "trainers" / "flags")
    (tmp_path / "vamp.flags").write_text((ROOT / "vamp.flags").read_text() + SMALL)
    log = synthetic_log(users=300, items=120, communities=4, mean_items=12)
    (tmp_path / "events").mkdir()
    for part in range(3):
        events = {"user_id": log.user_ids[log.users[part::3]], "item_id": log.item_ids[log.items[part::3]]}
        pq.write_table(pa.table(events), tmp_path / "events" / f"part-{part}.parquet")
    histories = {"user": ["a", "b"], "history": [[str(i) for i in log.item_ids[:4]], [str(log.item_ids[9])]]}
    pq.write_table(pa.table(histories), tmp_path / "users.parquet")

    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    answers = pq.read_table(tmp_path / "recommended").to_pylist()
    assert {row["user"] for row in answers} == {"a", "b"}
    for row, history in zip(sorted(answers, key=lambda row: row["user"]), histories["history"], strict=True):
        assert len(row["item_ids"]) == 100
        assert not set(row["item_ids"]) & set(history)
