"""An extract of `make torture`: some cases of each part."""

import os
import re
import subprocess
import sys

from typed import ROOT

PARTS, SAMPLE = ("kills", "disk", "power", "together", "files", "bytes"), 3


def test_an_extract_finds_nothing(tmp_path):
    environment = dict(os.environ) | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    words = [*PARTS, f"--sample={SAMPLE}", "--seed=7", f"--dir={tmp_path}"]
    ended = subprocess.run(
        [sys.executable, "-m", "torture", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    for part in PARTS:
        assert len(re.findall(rf"^{part} \d+/{SAMPLE} .*: as it should be$", ended.stdout, re.M)) == SAMPLE
        assert re.search(rf"^\| {part} \| {SAMPLE} \| 0 \|", ended.stdout, re.M)
