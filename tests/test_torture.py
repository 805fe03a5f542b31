"""An extract of `make torture`: a few cases of each part, in a process of their own."""

import os
import re
import subprocess
import sys

import pytest
from typed import ROOT

EXTRACT = {"kills": 0.01, "disk": 0.008, "power": 1, "together": 0.1, "files": 0.005, "bytes": 0.005}
"""Parts, and the share of their cases."""


@pytest.mark.parametrize("part", EXTRACT)
def test_an_extract_finds_nothing(part, tmp_path_factory):
    environment = dict(os.environ) | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    words = [part, f"--scale={EXTRACT[part]}", "--seed=0", f"--dir={tmp_path_factory.getbasetemp() / 'torture'}"]
    ended = subprocess.run(
        [sys.executable, "-m", "torture", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    cases = int(re.search(rf"^\| {part} \| ([\d,]+) \|", ended.stdout, re.M)[1].replace(",", ""))
    assert len(re.findall(rf"^{part} \d+/{cases} .*: as it should be$", ended.stdout, re.M)) == cases > 0
