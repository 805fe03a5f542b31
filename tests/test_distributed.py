"""Training on several devices and workers computes the same steps as on one."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, synthetic_events
from distributed_steps import STEPS
from typed import Typed, here, mistake

from vae_cf_tf.errors import UserError
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.settings import Settings
from vae_cf_tf.training import strategies
from vae_cf_tf.training.cluster import Cluster

TWO = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}


def steps(replicas: int, *names: str) -> dict:
    command = [sys.executable, str(ROOT / "tests" / "distributed_steps.py"), str(replicas), *names]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def equal_steps(replicas: int, *names: str) -> None:
    found = steps(replicas, *names)
    assert set(found) == set(names)
    for name, both in found.items():
        one, several = both["one"], both["several"]
        assert len(one["losses"]) == len(several["losses"]) == STEPS
        assert len(set(one["losses"])) > STEPS / 2  # something was learned, and by other users in each step
        tolerance = 2e-3 if name == "bfloat16" else 1e-5
        for figure in ("losses", "nll", "average_nll"):
            message = f"{name}, {replicas}, {figure}"
            np.testing.assert_allclose(several[figure], one[figure], rtol=tolerance, err_msg=message)
        assert several["equal"], name
        assert several["reads_whole"] == (name != "wide"), name
        if name == "vamp":
            assert one["nll"] != one["average_nll"]


@pytest.mark.slow
def test_two_replicas_compute_the_same_steps():
    equal_steps(2, "vamp", "wide", "batch_vamp")


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_any_number_of_replicas_computes_the_same_steps(replicas):
    equal_steps(replicas, "baseline", "evcf", "vamp", "wide", "batch_vamp", "decay", "weighted", "bfloat16")


# Two processes


def free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


CHECKPOINT_AT_EVERY_STEP = (
    "import sys; from vae_cf_tf.cli import quiet; quiet.import_tensorflow(lambda: None)\n"
    "from vae_cf_tf.training import callbacks; callbacks.WITHIN_EPOCH_SECONDS = 0\n"
    "from trainers.main import run; sys.exit(run())"
)


def started(
    workdir: Path, *flags: str, of_worker: tuple[str, ...] = (), python: tuple[str, str] = ("-m", "trainers.main")
) -> list[subprocess.Popen]:
    """Two workers with the same command, the chief first; `of_worker` are further flags of the other one."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports()]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        # The last --workdir counts, and vamp.flags has one.
        command = [sys.executable, *python, *flags, "--distribute=multi_worker", f"--workdir={workdir}"]
        processes.append(
            subprocess.Popen(
                [*command, *(of_worker if index else ())],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def ended(processes: list[subprocess.Popen], seconds: float = 600) -> list[Typed]:
    """How the workers ended. None of them lives longer than this."""
    try:
        texts = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [Typed(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def tiny(data: Path, flagfile: str, *more: str) -> list[str]:
    path = ROOT / "vamp.flags" if flagfile == "vamp" else ROOT / "trainers" / "flags" / f"{flagfile}.flags"
    return [f"--flagfile={path}", f"--data={data}", "--epochs=3", "--hidden_dim=16", "--latent_dim=6", "--ease_l2=50",
            "--pseudo_inputs=5", "--batch_size=30", "--checkpoint_seconds=0", *more]  # fmt: skip


def rows(workdir: Path) -> np.ndarray:
    with open(workdir / "history.csv") as f:
        return np.array([[float(v) for k, v in row.items() if k != "seconds"] for row in csv.DictReader(f)])


def test_metrics(workdir: Path) -> np.ndarray:
    values = json.loads((workdir / "metrics.json").read_text())
    return np.array([v["mean"] for v in values["test"].values()])


test_metrics.__test__ = False


def same_run(workdir: Path, other: Path) -> None:
    assert rows(workdir).shape == rows(other).shape
    np.testing.assert_allclose(rows(workdir)[:, :5], rows(other)[:, :5], rtol=1e-5)  # up to KL
    np.testing.assert_allclose(rows(workdir), rows(other), rtol=1e-3)
    np.testing.assert_allclose(test_metrics(workdir), test_metrics(other), atol=1e-3)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return synthetic_events(tmp_path_factory.mktemp("data"))


def test_two_workers_train_as_one_process_and_the_chief_alone_writes(log, tmp_path):
    flags = tiny(log, "baseline")
    chief, worker = ended(started(tmp_path / "two", *flags))
    assert (chief.status, chief.stderr, worker.status, worker.stderr) == (0, "", 0, ""), (chief, worker)
    assert "The training has ended. Results are in the chief's workdir." in worker.stdout
    assert here("trainers.main", *flags, f"--workdir={tmp_path / 'one'}").status == 0
    same_run(tmp_path / "two", tmp_path / "one")
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("flagfile", ["evcf", "vamp", "wide"])
def test_two_workers_train_as_one_process(flagfile, log, tmp_path):
    flags = tiny(log, flagfile, *(["--softmax_samples=40", "--initial_items=factors"] if flagfile == "wide" else []))
    assert [typed.status for typed in ended(started(tmp_path / "two", *flags))] == [0, 0]
    assert here("trainers.main", *flags, f"--workdir={tmp_path / 'one'}").status == 0
    same_run(tmp_path / "two", tmp_path / "one")


def is_written(checkpoint: Path, within: bool) -> bool:
    """Whether there is a checkpoint; `within`: one of the first epoch, after a few steps."""
    partial = checkpoints.read_meta(checkpoint)["partial"] if checkpoint.exists() else {}
    return partial is None or (within and partial.get("steps", 0) > 3)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "within"), [(0, False), (1, True)])
def test_when_a_worker_is_killed_the_other_ends_and_the_same_command_resumes(victim, within, log, tmp_path):
    flags, workdir = tiny(log, "vamp", "--epochs=8", "--patience=8"), tmp_path / "two"
    assert here("trainers.main", *flags, f"--workdir={tmp_path / 'one'}").status == 0
    python = ("-c", CHECKPOINT_AT_EVERY_STEP) if within else ("-m", "trainers.main")
    processes = started(workdir, *flags, python=python)
    while not is_written(workdir / "checkpoint.npz", within):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[victim].send_signal(signal.SIGKILL)
    other = processes[1 - victim]
    mistake(ended([other], seconds=60)[0], "A worker has ended or cannot be reached", "Start the same command")
    processes[victim].communicate()
    assert not (workdir / "metrics.json").exists()
    chief, worker = ended(started(workdir, *flags))
    assert (chief.status, worker.status) == (0, 0), (chief, worker)
    assert ("Resuming in epoch" if within else "Resuming after epoch") in chief.stdout
    same_run(workdir, tmp_path / "one")


@pytest.mark.slow
def test_workers_with_other_flags_end_with_a_line_each(log, tmp_path):
    chief, worker = ended(started(tmp_path / "w", *tiny(log, "baseline"), of_worker=("--learning_rate=0.5",)))
    line = "Workers differ: --learning_rate=0.0005 at worker 0, --learning_rate=0.5 at worker 1."
    mistake(chief, line)
    mistake(worker, line)


# Mistakes


class Told(strategies.OneDevice):
    """A group whose other process has other values."""

    def told(self, text):
        return [text, json.dumps(json.loads(text) | {"--epochs": 9})]


def test_workers_with_other_values_are_told_which():
    same = {"--epochs": 9, "--seed": 0}
    assert strategies.agree(Told(), same) == same
    with pytest.raises(UserError, match=r"Workers differ: --epochs=8 at worker 0, --epochs=9 at worker 1\. Give all"):
        strategies.agree(Told(), same | {"--epochs": 8})


def test_tf_config_names_the_workers():
    with_chief = {"cluster": {"worker": ["b:2"], "chief": ["a:1"]}, "task": {"type": "worker", "index": "0"}}
    for config in (TWO, with_chief):
        cluster = Cluster.from_environment({"TF_CONFIG": json.dumps(config)})
        assert cluster == Cluster(("a:1", "b:2"), 1, ("chief" if "chief" in config["cluster"] else "worker", "worker"))
        assert (cluster.own_address, cluster.is_chief) == ("b:2", False)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "needs the environment variable TF_CONFIG, such as {"),
        ("{", "TF_CONFIG cannot be read"),
        ("[]", "TF_CONFIG cannot be read"),
        ({}, "TF_CONFIG cannot be read (KeyError('cluster'))"),
        (TWO | {"task": {"type": "worker", "index": "x"}}, "TF_CONFIG cannot be read"),
        (TWO | {"cluster": {"worker": ["a:1", "b"]}}, "'b' is no host:port"),
        (TWO | {"cluster": {"worker": ["a:1", "a:1"]}}, "two workers or more, each with an address of its own"),
        (TWO | {"cluster": {"worker": ["a:1"]}}, "Received: a:1."),
        (TWO | {"cluster": {"ps": ["c:1"], **TWO["cluster"]}}, "tasks of type 'ps'"),
        (TWO | {"task": {"type": "worker", "index": 2}}, "this is task 2 of type 'worker'"),
        (TWO | {"task": {"type": "chief", "index": 0}}, "this is task 0 of type 'chief'"),
    ],
)
def test_a_wrong_tf_config_is_told_in_one_line(config, words, monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    mistake(here("trainers.main", "--distribute=multi_worker", f"--workdir={tmp_path / 'w'}"), words)
    assert not (tmp_path / "w").exists()


def test_mirrored_needs_two_devices(tmp_path):
    mistake(here("trainers.main", "--distribute=mirrored", f"--workdir={tmp_path / 'w'}"), "needs two devices")
    typed = here("trainers.main", "--distribute=mirrored", "--replicas=2", f"--workdir={tmp_path / 'w'}")
    mistake(typed, "once TensorFlow has computed")  # this process has
    for flags in (["--replicas=2"], ["--distribute=multi_worker", "--also_time_split"]):
        mistake(here("trainers.main", *flags, f"--workdir={tmp_path / 'w'}"), "Contradictory flags")


def test_a_run_is_the_same_run_on_other_devices():
    assert not Settings().differences(Settings.of(distribute="mirrored", replicas=2))
