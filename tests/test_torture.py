"""An extract of `make torture`: a case of each part. Kills, disk, power and together have the two quickest
commands."""

import os
import re
import subprocess
import sys

from typed import ROOT

SAMPLE, STEPS = 1, ("prepare", "export")
PARTS = ("kills", "disk", "power", "together", "files", "bytes")


def test_an_extract_finds_nothing(tmp_path):
    environment = dict(os.environ) | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    words = [*PARTS, f"--sample={SAMPLE}", f"--steps={','.join(STEPS)}", "--seed=7", f"--dir={tmp_path}"]
    ended = subprocess.run(
        [sys.executable, "-m", "torture", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    for part in PARTS:
        assert re.search(rf"^{part} 1/1 .*: as it should be$", ended.stdout, re.M)
        assert re.search(rf"^\| {part} \| 1 \| 0 \|", ended.stdout, re.M)
    for step in STEPS:  # by the seed, power draws prepare and kills export
        assert re.search(rf"1/1 {step}", ended.stdout), "no part drew it: choose another seed"
