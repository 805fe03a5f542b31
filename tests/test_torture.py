"""An extract of `make torture`: some cases of each part. Kills, disk, power and together have the two quickest
commands."""

import os
import re
import subprocess
import sys

from typed import ROOT

SAMPLE, STEPS = 2, ("prepare", "export")
PARTS = {"kills": SAMPLE, "disk": SAMPLE, "power": len(STEPS), "together": SAMPLE, "files": SAMPLE, "bytes": SAMPLE}


def test_an_extract_finds_nothing(tmp_path):
    environment = dict(os.environ) | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    words = [*PARTS, f"--sample={SAMPLE}", f"--steps={','.join(STEPS)}", "--seed=7", f"--dir={tmp_path}"]
    ended = subprocess.run(
        [sys.executable, "-m", "torture", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    for part, cases in PARTS.items():
        assert len(re.findall(rf"^{part} \d+/{cases} .*: as it should be$", ended.stdout, re.M)) == cases
        assert re.search(rf"^\| {part} \| {cases} \| 0 \|", ended.stdout, re.M)
