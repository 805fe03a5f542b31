"""The main job through its real command at a small size: files, resuming, repeating, and the user's mistakes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, synthetic_events
from typed import Started, Typed, fresh_process, mistake, process

from vae_cf_tf.runs import checkpoints

SHARED = ROOT.parent / "shared" / "data"
TINY = ["--hidden_dim=16", "--latent_dim=6", "--pseudo_inputs=5", "--batch_size=32", "--ease_l2=50",
        "--checkpoint_seconds=0"]  # fmt: skip


def run(*flags: str) -> Typed:
    return process("trainers.main", *flags)


def tiny(data: Path, workdir: Path, *more: str) -> list[str]:
    return ["--flagfile=vamp.flags", f"--data={data}", f"--workdir={workdir}", "--epochs=6", *TINY, *more]


def rows_but_times(workdir: Path) -> list[dict]:
    with open(workdir / "history.csv") as f:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(f)]


def metrics(workdir: Path) -> dict:
    values = json.loads((workdir / "metrics.json").read_text())
    return {name: values[name] for name in ("test", "validation", "best_epoch", "epochs", "data_fingerprint")}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """A small log with titles, as a user might bring it."""
    return synthetic_events(tmp_path_factory.mktemp("data"), titles=True)


@pytest.fixture(scope="module")
def finished(log, tmp_path_factory):
    """A run that nothing disturbed, in a fresh process: TensorFlow's noise would be seen."""
    workdir = tmp_path_factory.mktemp("runs") / "alone"
    result = fresh_process("trainers.main", *tiny(log, workdir))
    assert result.status == 0, result.stderr
    return workdir, result


def test_the_workdir_holds_what_the_contract_names(finished):
    workdir, _ = finished
    values = json.loads((workdir / "metrics.json").read_text())
    names = {f"ndcg@{k}" for k in (10, 20, 50, 100)} | {f"recall@{k}" for k in (1, 5, 10, 20, 50, 100)}
    for part in ("test", "validation"):
        assert set(values[part]) == names
        assert all(0 <= v["mean"] <= 1 and v["stderr"] >= 0 for v in values[part].values())
    for of_part in values["elbo"].values():
        elbo, nll, kl = (of_part[name]["mean"] for name in ("elbo", "elbo_nll", "elbo_kl"))
        assert elbo == pytest.approx(-nll - kl)
    assert set(values["elbo"]) == {"test", "validation"}
    assert values["latent"]["active"][0] <= values["latent"]["dimensions"]
    assert values["epochs"] == 6
    assert 1 <= values["best_epoch"] <= 6
    assert values["seconds_per_epoch"] > 0
    assert values["users_per_second"] > 0
    assert values["peak_rss_mb"] > 100
    assert values["config"]["hidden_dim"] == 16
    assert [baseline["name"] for baseline in values["baselines"]] == ["popularity", "item_knn", "ease"]
    assert values["baselines"][-1]["label"] == "EASE, λ 50"
    rows = rows_but_times(workdir)
    assert [int(r["epoch"]) for r in rows] == [1, 2, 3, 4, 5, 6]
    assert {"epoch", "beta", "loss", "nll", "kl", "val_ndcg@100", "val_nll", "val_kl"} <= set(rows[0])
    assert float(rows[0]["beta"]) == pytest.approx(0.005)
    best = max(float(r["val_ndcg@100"]) for r in rows)
    assert float(rows[values["best_epoch"] - 1]["val_ndcg@100"]) == best
    item_item = checkpoints.read_meta(workdir / "item_path.npz")
    assert item_item["epoch"] == values["best_epoch"]
    tried = item_item["tried"]
    assert tried[0] == [0, 0, pytest.approx(best, abs=1e-12), 0]  # the network alone
    assert values["validation"]["ndcg@100"]["mean"] == pytest.approx(max(t[2] for t in tried), abs=1e-6)
    assert list((workdir / "tensorboard").rglob("events.out.*"))


def test_a_lost_item_item_model_is_made_again(finished, log, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(finished[0], workdir)
    (workdir / "item_path.npz").write_bytes(b"damaged")
    result = run(*tiny(log, workdir))
    assert result.status == 0, result.stderr
    chosen = checkpoints.read_meta(finished[0] / "item_path.npz")["model"]
    assert f"Item–item model: {chosen}, weight" in result.stdout
    assert metrics(workdir) == metrics(finished[0])


def test_a_person_reads_table_paths_and_titles_and_no_noise(finished):
    workdir, result = finished
    assert "± " in result.stdout
    for part in ("this model", "popularity", "EASE", f"Checkpoint: {workdir}", f"SavedModel: {workdir}", "beta:"):
        assert part in result.stdout
    assert any(genre in result.stdout for genre in ("Jazz", "Ambient", "Blues", "Funk", "Baroque", "Country"))
    assert result.stderr == ""


def test_the_same_seed_gives_the_same_run(finished, log, tmp_path):
    """That another seed gives another run is in test_flags."""
    assert run(*tiny(log, tmp_path / "again")).status == 0
    assert rows_but_times(tmp_path / "again") == rows_but_times(finished[0])


def kill_and_restart(flags: list[str], workdir: Path, kills: int, rng: np.random.Generator, between: tuple) -> None:
    """Starts the command, kills it so often at random moments after its first epoch, then lets it finish."""
    for _ in range(kills):
        command = Started("trainers.main", *flags)
        before = (workdir / "history.csv").stat().st_mtime_ns if (workdir / "history.csv").exists() else 0
        while command.is_running():
            if (workdir / "history.csv").exists() and (workdir / "history.csv").stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(*between))
        command.send_signal(signal.SIGKILL)
        command.ended()
    assert run(*flags).status == 0


def test_killed_and_restarted_it_ends_as_if_never_stopped(finished, log, tmp_path):
    kill_and_restart(tiny(log, tmp_path / "w"), tmp_path / "w", 2, np.random.default_rng(1), (0, 0.3))
    assert rows_but_times(tmp_path / "w") == rows_but_times(finished[0])
    assert metrics(tmp_path / "w") == metrics(finished[0])
    assert not list((tmp_path / "w").glob(".*.tmp"))


def test_ctrl_c_leaves_a_workdir_that_resumes(finished, log, tmp_path):
    flags = tiny(log, tmp_path / "w")
    command = Started("trainers.main", *flags)
    while command.is_running() and not (tmp_path / "w" / "checkpoint.npz").exists():
        time.sleep(0.01)
    command.send_signal(signal.SIGINT)
    result = command.ended()
    assert result.status == 130
    assert "The same command goes on" in result.stderr
    assert "Traceback" not in result.stderr
    assert run(*flags).status == 0
    assert metrics(tmp_path / "w") == metrics(finished[0])


def versions(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.isdecimal())


def test_mistakes_are_one_line_and_leave_nothing(log, tmp_path):
    work = tmp_path / "w"
    mistake(run(*tiny(tmp_path / "nowhere.csv", work)), "nowhere.csv")
    mistake(run(*tiny(log, work, "--latent=none")), "Contradictory flags")
    mistake(run("--no_such_flag=1"), "no_such_flag")
    mistake(run(*tiny(log, work, "--heldout_users=500")), "500", "--heldout_users")
    small = tmp_path / "small.csv"
    small.write_text("user,item\n" + "".join(f"{u},{i}\n" for u in range(40) for i in range(u % 9, u % 9 + 8)))
    mistake(run(*tiny(small, work)), "The catalogue has 16 items")
    (tmp_path / "file").write_text("")
    mistake(run(*tiny(log, tmp_path / "file" / "w")), "a part of the path is a file")
    assert not work.exists()


def test_a_workdir_of_another_configuration_is_refused(finished, log):
    workdir, _ = finished
    before = (workdir / "config.json").read_text()
    line = mistake(run(*tiny(log, workdir, "--beta_cap=0.9", "--learning_rate=1e-4")))
    differing = "--learning_rate=0.003 there, --learning_rate=0.0001 here; --beta_cap=0.005 there, --beta_cap=0.9 here"
    assert f"{workdir} was trained with other settings: {differing}." in line
    assert line.endswith("Give another --workdir, or the settings of that run.\n")
    assert (workdir / "config.json").read_text() == before


def test_a_damaged_checkpoint_is_named(finished, log, tmp_path):
    shutil.copytree(finished[0], tmp_path / "w")
    path = tmp_path / "w" / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:-1000])
    mistake(run(*tiny(log, tmp_path / "w")), "checkpoint.npz is damaged")


def test_a_finished_run_is_judged_again_but_not_exported_again(finished, log, tmp_path):
    shutil.copytree(finished[0], tmp_path / "w")
    (tmp_path / "w" / "baselines.json").write_text("{")  # a cache: made again
    result = run(*tiny(log, tmp_path / "w"))
    assert result.status == 0, result.stderr
    assert "Trained already: 6 epochs." in result.stdout
    assert metrics(tmp_path / "w") == metrics(finished[0])
    assert versions(tmp_path / "w" / "export") == ["1"]


def test_without_the_best_weights_training_starts_anew_and_says_so(finished, log, tmp_path):
    shutil.copytree(finished[0], tmp_path / "w")
    (tmp_path / "w" / "best.npz").unlink()
    result = run(*tiny(log, tmp_path / "w"))
    assert result.status == 0
    assert "best.npz is missing: training starts from the first epoch." in result.stdout
    assert metrics(tmp_path / "w") == metrics(finished[0])


def test_fewer_epochs_than_the_best_one_are_refused(finished, log, tmp_path):
    shutil.copytree(finished[0], tmp_path / "w")
    best = metrics(finished[0])["best_epoch"]
    assert best > 1
    before = {path.name: path.read_bytes() for path in (tmp_path / "w").glob("*.npz")}
    mistake(run(*tiny(log, tmp_path / "w", "--epochs=1")), f"is {best}", f"Give --epochs={best} or more")
    assert {path.name: path.read_bytes() for path in (tmp_path / "w").glob("*.npz")} == before


def test_divergence_stops_the_run_and_names_the_step(log, tmp_path):
    result = run(*tiny(log, tmp_path / "w", "--optimizer=adam", "--learning_rate=1e30"))
    mistake(result, "Training diverged at step ", "--learning_rate")


def test_export_of_a_run_without_an_epoch_is_refused(log, tmp_path):
    mistake(
        process("export.main", f"--workdir={tmp_path}", f"--export_dir={tmp_path / 'x'}"), "not the workdir of a run"
    )
    assert not (tmp_path / "x").exists()


def test_help_needs_no_tensorflow_and_names_every_setting():
    code = (
        "import sys, runpy; sys.argv = ['main', '--help']\n"
        "try: runpy.run_module('trainers.main', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'tensorflow', 'pandas', 'pyarrow'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in ("--data", "--workdir", "--epochs", "--seed", "--batch_size", "--beta_cap"):
        assert name in result.stdout


@pytest.mark.slow
def test_five_kills_on_real_data(tmp_path):
    """About ten minutes: Multi-VAE on ml-1m-split, killed at five random moments."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED}, which is not in the repository")
    flags = ["--flagfile=trainers/flags/baseline.flags", f"--data={SHARED / 'ml-1m-split'}", "--epochs=30"]
    assert run(*flags, f"--workdir={tmp_path / 'alone'}").status == 0
    seed = int(os.environ.get("KILL_SEED", "0"))
    killed = [*flags, f"--workdir={tmp_path / 'w'}", "--checkpoint_seconds=1"]
    kill_and_restart(killed, tmp_path / "w", 5, np.random.default_rng(seed), (0, 5))
    assert rows_but_times(tmp_path / "w") == rows_but_times(tmp_path / "alone")
    assert metrics(tmp_path / "w") == metrics(tmp_path / "alone")
