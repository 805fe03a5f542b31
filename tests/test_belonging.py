"""Figures and models that belong together: weights, item path, metrics, card, ranked lists and exports of one run."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import weakref
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import EVCF, ROOT, synthetic_events
from vae_cf_tf.settings.config import Config

from export import card, savedmodel
from trainers import job, summary
from trainers.main import train_and_evaluate
from vae_cf_tf import files
from vae_cf_tf.errors import UserError
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.training import checkpoints
from vae_cf_tf.training.callbacks import CheckpointAndEarlyStop, interruptible

TINY = {"hidden_dim": 16, "latent_dim": 6, "pseudo_inputs": 5, "batch_size": 32, "ease_l2": "50", "epochs": 4}


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of four epochs."""
    folder = tmp_path_factory.mktemp("belonging")
    config = Config(data=str(synthetic_events(folder)), workdir=str(folder / "w"), **TINY)
    return config, go(config)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that a test may continue."""
    config, _ = finished
    shutil.copytree(config.workdir, tmp_path / "w")
    return dataclasses.replace(config, workdir=str(tmp_path / "w"))


def go(config: Config) -> list[str]:
    """Runs the main job and returns the lines that it says."""
    lines: list[str] = []
    train_and_evaluate(config, say=lines.append)
    return lines


def metrics(config: Config) -> dict:
    return json.loads(Path(config.workdir, "metrics.json").read_text())


def exported(config: Config) -> list[Path]:
    return versions.of(Path(config.export_dir or Path(config.workdir, "export")))


def scores(version: Path) -> np.ndarray:
    ids = (version / "assets" / "item_ids.txt").read_text().split()
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    return served(history=tf.constant([ids[:3]]))["scores"].numpy()


def kill_at(name: str, owner: object, monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    """Runs the main job, which is killed where it calls `owner.name`."""

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            go(config)


def test_everything_of_a_run_carries_one_identity(finished):
    config, _ = finished
    (version,) = exported(config)
    assert card.read(version)["model_id"] == metrics(config)["model_id"]
    assert card.read(version)["metrics"]["test"] == metrics(config)["test"]
    assert card.read(version)["best_epoch"] == metrics(config)["best_epoch"]
    meta = checkpoints.read_meta(Path(config.workdir, "item_path.npz"))
    assert meta["weights"] == checkpoints.digest(Path(config.workdir, "best.npz"))


def test_killed_between_training_and_export_the_new_weights_are_exported(copied, monkeypatch):
    longer = dataclasses.replace(copied, epochs=12)
    before = metrics(copied)["best_epoch"]
    kill_at("export_model", job, monkeypatch, longer)
    assert len(exported(copied)) == 1
    lines = go(longer)
    assert metrics(longer)["best_epoch"] > before
    newest, first = exported(copied)
    assert f"SavedModel: {newest}" in lines[-1]
    assert card.read(newest)["best_epoch"] == metrics(longer)["best_epoch"]
    assert not np.array_equal(scores(newest), scores(first))
    assert go(longer)[-1] == lines[-1]
    assert len(exported(copied)) == 2  # a finished run is exported once


def test_another_runs_versions_are_not_taken_for_this_ones(copied, tmp_path):
    models = tmp_path / "models"
    other = dataclasses.replace(copied, workdir=str(tmp_path / "other"), seed=7, epochs=1, export_dir=str(models))
    go(other)
    here = dataclasses.replace(copied, export_dir=str(models))
    lines = go(here)
    assert f"SavedModel: {models / '2'}" in lines[-1]
    assert card.read(models / "2")["model_id"] == metrics(copied)["model_id"]


def test_an_interrupted_continuation_is_not_exported_with_old_figures(copied, monkeypatch, tmp_path):
    longer = dataclasses.replace(copied, epochs=12)
    kill_at("_item_path", job.evaluate, monkeypatch, longer)
    with pytest.raises(UserError, match=r"item_path\.npz was made for other weights.*best epoch is now"):
        savedmodel.export_run(Workdir(longer.workdir), tmp_path / "models")
    assert not (tmp_path / "models").exists()
    kill_at("export_model", job, monkeypatch, longer)  # judged, but metrics.json is put back to the earlier ones
    old = metrics(copied) | {"model_id": "0" * 16}
    Path(longer.workdir, "metrics.json").write_text(json.dumps(old))
    version = savedmodel.export_run(Workdir(longer.workdir), tmp_path / "models")
    assert card.read(version)["metrics"] is None
    assert card.read(version)["best_epoch"] == checkpoints.read_meta(Path(longer.workdir, "best.npz"))["epoch"]


def test_other_settings_of_the_item_path_make_it_again_and_need_no_training(copied):
    before, weights = metrics(copied), Path(copied.workdir, "best.npz").read_bytes()
    other = dataclasses.replace(copied, item_path_l2=300.0)
    lines = go(other)
    assert "Trained already: 4 epochs." in lines
    assert any(line.startswith("Item path: weight") for line in lines)
    assert Path(copied.workdir, "best.npz").read_bytes() == weights
    assert metrics(other)["test"] != before["test"]
    assert card.read(exported(other)[0])["model_id"] == metrics(other)["model_id"] != before["model_id"]
    without = dataclasses.replace(copied, item_path="none", item_path_discount="none")
    go(without)
    assert metrics(without)["chosen_on_validation"] == ["best_epoch"]
    assert len(exported(copied)) == 3


def test_a_singular_item_path_can_be_mended_without_training_again(copied, monkeypatch):
    from vae_cf_tf.linear import item_path

    def singular(x, l2):
        raise item_path.gram.Singular

    other = dataclasses.replace(copied, item_path_l2=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(item_path.gram, "inverse", singular)
        with pytest.raises(UserError, match="singular at --item_path_l2=1"):
            go(other)
    assert "Trained already: 4 epochs." in go(dataclasses.replace(copied, item_path_l2=2.0))


def test_other_settings_of_ease_are_heard_and_the_peak_memory_stays_that_of_training(copied):
    before = metrics(copied)
    peak = {"peak_rss_mb": 12345.0}
    meta = checkpoints.read_meta(Path(copied.workdir, "checkpoint.npz"))
    assert before["peak_rss_mb"] == meta["peak_rss_mb"] > 100
    go(dataclasses.replace(copied, ease_l2="7,80"))
    after = metrics(copied)
    assert [b["label"] for b in before["baselines"]] == ["popularity", "EASE, λ 50"]
    assert after["baselines"][1]["settings"]["l2"] in (7.0, 80.0)
    assert after["peak_rss_mb"] == before["peak_rss_mb"] != peak["peak_rss_mb"]
    go(dataclasses.replace(copied, ease_max_items=5))
    assert [b["label"] for b in metrics(copied)["baselines"]] == ["popularity"]


def test_what_was_chosen_on_validation_is_said(finished):
    config, _ = finished
    values = metrics(config)
    assert values["chosen_on_validation"] == ["best_epoch", "item_path_weight", "item_path_discount"]
    assert "judge by test" in values["note"]
    assert "judge by test" in card.text(card.read(exported(config)[0]))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"test": 3}', '{"test": {}, "validation": {}}'])
def test_damaged_figures_are_a_line_or_made_anew(copied, content):
    for name in ("metrics.json", "baselines.json"):
        Path(copied.workdir, name).write_text(content)
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        savedmodel.export_run(Workdir(copied.workdir), Path(copied.workdir, "models"))
    go(copied)
    assert [b["label"] for b in metrics(copied)["baselines"]] == ["popularity", "EASE, λ 50"]


def test_other_data_under_the_same_path_is_refused(finished, tmp_path):
    config, _ = finished
    shutil.copytree(config.workdir, tmp_path / "w")
    data = Path(shutil.copy(config.data, tmp_path / "events.csv"))
    here = dataclasses.replace(config, workdir=str(tmp_path / "w"), data=str(data))
    assert "Trained already: 4 epochs." in go(here)  # the same content, elsewhere and with another time
    text = data.read_text()
    data.write_text(text + "u1,i1\n")
    with pytest.raises(
        UserError, match=r"trained on other data: .*bytes.*Give another --workdir for the data of today"
    ):
        go(here)
    data.write_text(text[:-2] + ("1" if text[-2] != "1" else "2") + "\n")
    with pytest.raises(UserError, match="has changed"):
        go(here)
    data.unlink()
    assert "Trained already: 4 epochs." in go(dataclasses.replace(here, data=config.data))  # it is no longer needed
    with pytest.raises(UserError, match="no file or folder"):
        go(here)
    with pytest.raises(UserError, match="trained on other data"):
        go(dataclasses.replace(here, data=""))  # the embedded data set


def test_a_second_training_in_a_workdir_is_refused(copied):
    with files.locked(copied.workdir, "the test is at work here"):
        command = [sys.executable, "-m", "trainers.main", f"--workdir={copied.workdir}"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith(f"Error: Another process is at work in {copied.workdir}.")
    assert result.stderr.count("\n") == 1


def test_the_lock_ends_with_its_process_and_leaves_no_folder_behind(tmp_path):
    with pytest.raises(UserError, match="busy"), files.locked(tmp_path, "first"), files.locked(tmp_path, "busy"):
        pass
    with contextlib.suppress(ZeroDivisionError), files.locked(tmp_path / "new", ""):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()
    code = "import sys, os\nfrom vae_cf_tf.files import locked\nwith locked(sys.argv[1], ''): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    with files.locked(tmp_path, "busy"):
        pass


def test_the_handler_of_ctrl_c_comes_back_after_an_error(copied):
    before = signal.getsignal(signal.SIGINT)
    diverging = dataclasses.replace(copied, workdir=copied.workdir + "2", learning_rate=1e30)
    with pytest.raises(UserError, match="diverged"):
        go(diverging)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_trained_model_stays_as_it_is(tmp_path):
    from serving_kit import FACTS, ITEM_IDS, TITLES, default_model

    model = default_model()
    histories = tf.ragged.constant([[1, 5], [], [7]], dtype=tf.int32, row_splits_dtype=tf.int32)
    before, terms = model(histories).numpy(), np.asarray(model.terms(histories))
    for weights in ("float32", "bfloat16"):
        savedmodel.export_model(model, ITEM_IDS, TITLES, FACTS, tmp_path, 5, weights)
    np.testing.assert_array_equal(model(histories), before)
    np.testing.assert_array_equal(np.asarray(model.terms(histories)), terms)


def test_a_wrong_export_is_not_published(tmp_path, monkeypatch):
    from serving_kit import FACTS, ITEM_IDS, TITLES, model

    from export import products

    honest = products._summed
    monkeypatch.setattr(products, "_summed", lambda kernel, bags: honest(kernel, bags)[:, ::-1])
    for weights in ("float32", "bfloat16"):
        with pytest.raises(UserError, match=r"answers otherwise than the model.*not published"):
            savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, tmp_path / "models", 5, weights)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["a[b]", "a*", "a?", "a\\b"])
def test_a_place_from_which_nothing_could_be_loaded_is_refused_at_the_start(name, finished, tmp_path):
    config, _ = finished
    with pytest.raises(UserError, match="which TensorFlow takes for a pattern"):
        savedmodel.export_run(Workdir(config.workdir), tmp_path / name)
    with pytest.raises(UserError, match="which TensorFlow takes for a pattern"):
        go(dataclasses.replace(config, workdir=str(tmp_path / name)))
    assert not (tmp_path / name / "best.npz").exists()


def test_only_folders_with_a_number_that_a_server_counts_are_versions(tmp_path):
    from serving_kit import FACTS, ITEM_IDS, TITLES, model

    (tmp_path / "9").write_text("a file")
    for name in ("3", str(2**63), "٤", "4a", ".unfinished-x"):
        (tmp_path / name).mkdir()
    assert [path.name for path in versions.of(tmp_path)] == ["3"]
    version = savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, tmp_path, 5)
    assert version.name == "4"
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(UserError, match="after which none can come"):
        savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, tmp_path, 5)


def _export(folder: str) -> str:
    sys.path.insert(0, str(ROOT / "tests"))
    from serving_kit import FACTS, ITEM_IDS, TITLES, model

    return savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, folder, 5).name


def test_exports_at_once_into_one_folder_all_succeed_and_write_equal_graphs(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(3, spawn, max_tasks_per_child=1) as pool:
        names = sorted(pool.map(_export, [str(tmp_path / "models")] * 3))
    assert names == ["1", "2", "3"]
    graphs = {(tmp_path / "models" / name / "saved_model.pb").read_bytes() for name in names}
    assert len(graphs) == 1
    assert str(tmp_path).encode() not in graphs.pop()


def test_the_card_holds_no_path_of_the_exporting_machine(finished):
    config, _ = finished
    text = json.dumps(card.read(exported(config)[0]))
    assert str(Path(config.data).parent) not in text
    assert config.workdir not in text


def test_one_model_is_built_in_a_run_and_one_matrix_of_ease_is_alive(copied, monkeypatch):
    from vae_cf_tf.linear import gram
    from vae_cf_tf.models import models

    built, matrices = [], []
    build, inverse = models.build, gram.inverse

    def counted(*args):
        built.append(args)
        return build(*args)

    def watched(x, l2):
        assert not [m for m in matrices if m() is not None], "the matrix before is still alive"
        matrix = inverse(x, l2)
        matrices.append(weakref.ref(matrix.base))
        return matrix

    monkeypatch.setattr(models, "build", counted)
    monkeypatch.setattr(gram, "inverse", watched)
    go(dataclasses.replace(copied, workdir=copied.workdir + "3", epochs=1, ease_l2="5,6,7"))
    assert len(built) == 1
    assert len(matrices) == 4  # EASE at three λ, and the item path


def test_fewer_users_than_pseudo_inputs_are_announced(copied):
    lines = go(dataclasses.replace(copied, workdir=copied.workdir + "4", epochs=1, pseudo_inputs=500))
    (line,) = [line for line in lines if line.startswith("Components of the prior")]
    assert line == "Components of the prior: all 128 training users, fewer than --pseudo_inputs=500."


def test_the_first_line_names_the_flagfile(copied):
    assert go(copied)[0].startswith("Settings: those of vamp.flags with --hidden_dim=16 --latent_dim=6 ")
    assert summary.settings(Config()) == "Settings: those of vamp.flags."
    evcf = Config(**EVCF | {"beta_cap": 0.2})
    assert summary.settings(evcf) == "Settings: those of evcf.flags with --beta_cap=0.2."
    odd = dataclasses.replace(evcf, layers=7, seed=3, kl="sample", optimizer="adam", hidden_dim=5, latent_dim=4,
                              pseudo_inputs=3, learning_rate=0.1, batch_size=9)  # fmt: skip
    assert summary.settings(odd) == "Settings: those of no shipped flagfile."


def test_patience_waits_for_no_warm_up_that_there_is_not(tmp_path):
    def warmup(**settings) -> float:
        config = Config(**EVCF | {"beta_warmup": 80.0} | settings)
        return CheckpointAndEarlyStop(Workdir(tmp_path), None, config, steps_per_epoch=4).warmup_epochs

    assert warmup() == 80
    assert warmup(beta_unit="step") == 20
    assert warmup(latent="none", prior="standard") == warmup(beta_cap=0.0) == 0


def test_an_interrupt_tells_where_the_same_command_goes_on(tmp_path):
    keep = CheckpointAndEarlyStop(Workdir(tmp_path), None, Config(), steps_per_epoch=4)

    def interrupted() -> None:
        with interruptible(keep) as callback:
            os.kill(os.getpid(), signal.SIGINT)
            callback.on_train_batch_end(0)

    for written, words in ((0, "No checkpoint was written yet"), (3, "The same command goes on after epoch 3.")):
        keep.written_epoch = written
        with pytest.raises(KeyboardInterrupt, match=words):
            interrupted()
