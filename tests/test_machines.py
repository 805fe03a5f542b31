"""Machines and terminals that are not ours: encodings, closed and broken pipes, odd paths, other users, one core."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import PLAIN_FLAGS, ROOT, synthetic_events
from typed import fresh_process, mistake, process

TINY = [*PLAIN_FLAGS, "--hidden_dim=16", "--latent_dim=6", "--batch_size=32", "--ease_l2=50", "--epochs=2"]


def finished(workdir) -> dict:
    return json.loads((workdir / "metrics.json").read_text())


def test_another_folder_language_home_and_number_of_cores(tmp_path):
    """One run: LANG=C, no HOME, an ASCII terminal, one core, a path with blanks and umlauts, another folder."""
    folder = tmp_path / "Ä b ö"
    folder.mkdir()
    data = synthetic_events(folder, titles=True)
    titles = data.with_name("movies.csv")
    titles.write_text(titles.read_text(encoding="utf-8").replace("Jazz", "Jäzz 映画"), encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "LANG": "C", "PYTHONIOENCODING": "ascii"}
    core = min(os.sched_getaffinity(0))
    typed = fresh_process(
        "trainers.main", f"--flagfile={ROOT / 'vamp.flags'}", "--data=Ä b ö/events.csv", "--workdir=Ä b ö/läuft", *TINY,
        cwd=tmp_path, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    assert typed.status == 0, typed.stderr
    assert typed.stderr == ""
    assert "+- " in typed.stdout  # ± in letters that this terminal has
    assert "lambda 50" in typed.stdout
    assert finished(folder / "läuft")["epochs"] == 2


def test_a_reader_that_goes_does_not_end_the_training(tmp_path):
    data = synthetic_events(tmp_path)
    flags = " ".join([f"--data={data}", f"--workdir={tmp_path / 'w'}", *TINY])
    command = f"{sys.executable} -m trainers.main {flags} | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    assert finished(tmp_path / "w")["epochs"] == 2
    command = f"{sys.executable} -m trainers.main {flags} --epochs=3 >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], cwd=ROOT).returncode == 0
    assert finished(tmp_path / "w")["epochs"] == 3


def test_a_user_who_may_not_write_is_told_so(tmp_path):
    """Where the tests run as root, without root's right to pass by permissions."""
    prefix = []
    if not os.getuid():
        if not shutil.which("setpriv"):
            pytest.skip("needs setpriv, to give up root's rights")
        rights = "-dac_override,-dac_read_search"
        prefix = ["setpriv", f"--inh-caps={rights}", f"--bounding-set={rights}"]
    data = synthetic_events(tmp_path)
    (tmp_path / "readable").mkdir(mode=0o555)
    environment = os.environ | {"HOME": str(tmp_path / "readable"), "PYTHONPATH": str(ROOT)}

    def typed(workdir) -> subprocess.CompletedProcess:
        command = [*prefix, sys.executable, "-m", "trainers.main", f"--data={data}", f"--workdir={workdir}", *TINY]
        return subprocess.run(command, cwd=tmp_path / "readable", env=environment, capture_output=True, text=True)

    mistake(typed(tmp_path / "readable" / "w"), "permission is denied")
    result = typed(tmp_path / "w")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_tilde_is_the_home_folder(tmp_path):
    data = synthetic_events(tmp_path)
    environment = os.environ | {"HOME": str(tmp_path)}
    typed = process("trainers.main", f"--data=~/{data.name}", "--workdir=~/w", "--split_seed=-1", env=environment)
    mistake(typed, "--split_seed must be at least 0")
    typed = process("export.inspect", "~/nothing", env=environment)
    mistake(typed, str(tmp_path / "nothing"))
    typed = process("export.main", "--workdir=~/w", "--export_dir=~/models/x", env=environment)
    mistake(typed, str(tmp_path / "w"))
    assert not (ROOT / "~").exists()
    typed = process("export.inspect", "~nosuchuser/x", env=environment)
    mistake(typed, "~nosuchuser is nobody's home folder")


def test_peak_memory_is_that_of_the_process_alone():
    """The one that started it had more than 1 GiB."""
    child = "from vae_cf_tf import machine; print(machine.peak_rss())"
    code = (
        "import subprocess, sys; import numpy as np; used = np.ones(5 * 2**28, np.uint8)\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 100 < float(done.stdout) < 1024
