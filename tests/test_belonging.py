"""Figures and models that belong together: weights, item–item model, metrics, card and exports of one run."""

import contextlib
import csv
import gc
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import weakref
from concurrent import futures
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import EVCF, PLAIN, ROOT, checkerboard, compiled, small, synthetic_events
from typed import Typed, here, mistake, process

from export import card, kernels, savedmodel, versions
from trainers import evaluate as evaluation
from trainers import job, summary
from trainers import train as training
from trainers.main import train_and_evaluate
from vae_cf_tf import files, machine
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import read_json
from vae_cf_tf.linear import gram
from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import Settings
from vae_cf_tf.training.callbacks import CheckpointAndEarlyStop, interruptible

TINY = PLAIN | {"hidden_dim": 16, "latent_dim": 6, "batch_size": 32, "ease_l2": "50", "epochs": 4,
                "average_weights": 0.998}  # fmt: skip


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of four epochs."""
    folder = tmp_path_factory.mktemp("belonging")
    settings = Settings.of(data=str(synthetic_events(folder)), workdir=str(folder / "w"), **TINY)
    return settings, go(settings)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that a test may continue."""
    settings, _ = finished
    shutil.copytree(settings.run.workdir, tmp_path / "w")
    return settings.replaced(workdir=str(tmp_path / "w"))


def go(settings: Settings) -> list[str]:
    """Runs the main job and returns the lines that it says."""
    lines: list[str] = []
    train_and_evaluate(settings, say=lines.append)
    return lines


def metrics(settings: Settings) -> dict:
    return read_json(Path(settings.run.workdir, "metrics.json"))


def exported(settings: Settings) -> list[Path]:
    return versions.of(Path(settings.run.export_dir or Path(settings.run.workdir, "export")))


def scores(version: Path) -> np.ndarray:
    ids = (version / "assets" / "item_ids.txt").read_text().split()
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    return served(history=tf.constant([ids[:3]]))["scores"].numpy()


def kill_at(name: str, owner: object, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Runs the main job, which is killed where it calls `owner.name`."""

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            go(settings)


def test_everything_of_a_run_carries_one_identity(finished):
    settings, _ = finished
    (version,) = exported(settings)
    assert card.read(version)["model_id"] == metrics(settings)["model_id"]
    assert card.read(version)["metrics"]["test"] == metrics(settings)["test"]
    assert card.read(version)["best_epoch"] == metrics(settings)["best_epoch"]
    meta = checkpoints.read_meta(Path(settings.run.workdir, "item_path.npz"))
    assert meta["weights"] == checkpoints.digest(Path(settings.run.workdir, "best.npz"))


def test_killed_between_training_and_export_the_new_weights_are_exported(copied, monkeypatch):
    longer = copied.replaced(epochs=12)
    before = metrics(copied)["best_epoch"]
    kill_at("export_model", job, monkeypatch, longer)
    assert len(exported(copied)) == 1
    lines = go(longer)
    assert metrics(longer)["best_epoch"] > before
    newest, first = exported(copied)
    assert f"SavedModel: {newest}" in lines[-1]
    assert card.read(newest)["best_epoch"] == metrics(longer)["best_epoch"]
    assert not np.array_equal(scores(newest), scores(first))
    left = newest.parent / ".unfinished-of-a-kill"
    left.mkdir()
    assert go(longer)[-1] == lines[-1]
    assert len(exported(copied)) == 2  # a finished run is exported once
    assert not left.exists()


def test_moments_and_averages_are_gone_when_the_item_item_model_is_fitted(copied, monkeypatch):
    """They are three times the weights, and its fit needs gigabytes of its own."""

    def large() -> list:
        return [o for o in gc.get_objects() if isinstance(o, Autoencoder | keras.optimizers.Optimizer)]

    def looked(*arguments):
        alive.extend(o for o in large() if not any(o is other for other in before))
        return with_item_item(*arguments)

    with_item_item, before, alive = evaluation.with_item_item, large(), []
    monkeypatch.setattr(evaluation, "with_item_item", looked)
    go(copied.replaced(epochs=12))
    assert len(alive) == 1, "more than the network that is judged"


def test_another_runs_versions_are_not_taken_for_this_ones(copied, tmp_path):
    models = tmp_path / "models"
    other = copied.replaced(workdir=str(tmp_path / "other"), seed=7, epochs=1, export_dir=str(models))
    go(other)
    elsewhere = copied.replaced(export_dir=str(models))
    lines = go(elsewhere)
    assert f"SavedModel: {models / '2'}" in lines[-1]
    assert card.read(models / "2")["model_id"] == metrics(copied)["model_id"]


def test_an_interrupted_continuation_is_not_exported_with_old_figures(copied, monkeypatch, tmp_path):
    longer = copied.replaced(epochs=12)
    kill_at("with_item_item", evaluation, monkeypatch, longer)
    with pytest.raises(UserError, match=r"item_path\.npz was made for other weights.*best epoch is now"):
        savedmodel.export_run(Workdir(longer.run.workdir), tmp_path / "models")
    assert not (tmp_path / "models").exists()
    kill_at("export_model", job, monkeypatch, longer)  # judged, but metrics.json is put back to the earlier ones
    old = metrics(copied) | {"model_id": "0" * 16}
    Path(longer.run.workdir, "metrics.json").write_text(json.dumps(old))
    version = savedmodel.export_run(Workdir(longer.run.workdir), tmp_path / "models")
    assert card.read(version)["metrics"] is None
    assert card.read(version)["best_epoch"] == checkpoints.read_meta(Path(longer.run.workdir, "best.npz"))["epoch"]


def test_other_settings_of_the_item_item_model_make_it_again_and_need_no_training(copied):
    before, weights = metrics(copied), Path(copied.run.workdir, "best.npz").read_bytes()
    other = copied.replaced(item_path="linear", item_path_l2=300.0)  # whichever was chosen
    lines = go(other)
    assert "Trained already: 4 epochs." in lines
    assert any(re.match(r"Item–item model: \w+, weight", line) for line in lines)
    assert Path(copied.run.workdir, "best.npz").read_bytes() == weights
    assert metrics(other)["test"] != before["test"]
    assert card.read(exported(other)[0])["model_id"] == metrics(other)["model_id"] != before["model_id"]
    without = copied.replaced(item_path="none", item_path_discount="none")
    go(without)
    assert metrics(without)["chosen_on_validation"] == ["best_epoch"]
    assert len(exported(copied)) == 3


def test_a_singular_item_item_model_can_be_mended_without_training_again(copied, monkeypatch):
    def singular(x, l2):
        raise gram.Singular

    other = copied.replaced(item_path_l2=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(gram, "inverse_by_rows", singular)
        with pytest.raises(UserError, match="singular at --item_path_l2=1"):
            go(other)
    assert "Trained already: 4 epochs." in go(copied.replaced(item_path_l2=2.0))


def test_other_settings_of_ease_are_heard(copied):
    before = metrics(copied)
    go(copied.replaced(ease_l2="7,80"))
    after = metrics(copied)
    assert [b["label"] for b in before["baselines"] if b["name"] != "item_knn"] == ["popularity", "EASE, λ 50"]
    assert after["baselines"][2]["settings"]["l2"] in (7.0, 80.0)
    go(copied.replaced(ease_max_items=5))
    assert [b["label"] for b in metrics(copied)["baselines"] if b["name"] != "item_knn"] == ["popularity"]


def test_a_second_start_of_a_finished_run_keeps_the_figures_of_the_process_that_trained(copied, monkeypatch):
    path = Path(copied.run.workdir, "metrics.json")
    trained = metrics(copied) | {"finished": "2001-02-03T04:05:06+00:00", "versions": {"vae_cf_tf": "0.0.1"}}
    trained["config"] = copied.flat()
    path.write_text(json.dumps(trained))
    monkeypatch.setattr(machine, "peak_rss", lambda: 1e6)  # of the process that starts it again
    go(copied)
    assert metrics(copied) == trained
    path.unlink()  # what it alone has is new then; the rest is in the checkpoints
    go(copied)
    assert metrics(copied) == trained | {name: metrics(copied)[name] for name in ("finished", "versions")}
    assert metrics(copied)["finished"] > trained["finished"]


def test_peak_memory_is_that_of_training_or_of_the_item_item_model(copied, monkeypatch):
    def peak(settings: Settings, of_process: float) -> float:
        monkeypatch.setattr(machine, "peak_rss", lambda: of_process)
        go(settings)
        return metrics(settings)["peak_rss_mb"]

    of_training = checkpoints.read_meta(Path(copied.run.workdir, "checkpoint.npz"))["peak_rss_mb"]
    assert of_training > 100
    monkeypatch.setattr(job, "export_model", lambda *_: None)  # takes longer than the rest
    assert peak(copied.replaced(item_path_l2=300.0), 1e6) == 1e6
    assert peak(copied.replaced(item_path_l2=30.0), 1.0) == of_training


def test_what_was_chosen_on_validation_is_said(finished):
    settings, _ = finished
    values = metrics(settings)
    assert values["chosen_on_validation"] == ["best_epoch", "item_path_weight", "item_path_discount"]
    assert "judge by test" in values["note"]
    assert "judge by test" in card.text(card.read(exported(settings)[0]))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"test": 3}', '{"test": {}, "validation": {}}'])
def test_damaged_figures_are_a_line_or_made_anew(copied, content):
    for name in ("metrics.json", "baselines.json"):
        Path(copied.run.workdir, name).write_text(content)
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        savedmodel.export_run(Workdir(copied.run.workdir), Path(copied.run.workdir, "models"))
    go(copied)
    assert [b["label"] for b in metrics(copied)["baselines"] if b["name"] != "item_knn"] == ["popularity", "EASE, λ 50"]


def typed(module: str, settings: Settings) -> Typed:
    """`python -m module …` on the run of these settings, in this process."""
    arguments = [f"--workdir={settings.run.workdir}"]
    if module == "trainers.main":
        arguments += [f"--data={settings.data.data}", *(f"--{name}={value}" for name, value in TINY.items())]
    if module == "export.main":
        arguments.append(f"--export_dir={settings.run.workdir}/models")
    return here(module, *arguments)


def without(path: Path, *keys) -> None:
    """Takes what the keys lead to out of a JSON file, a checkpoint's meta, or a table with a header."""
    if path.suffix == ".csv":
        with open(path, newline="") as f:
            rows = list(csv.DictReader(f))
        with open(path, "w", newline="") as f:
            writer = csv.DictWriter(f, [name for name in rows[0] if name != keys[0]], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return
    arrays = {}
    if path.suffix == ".npz":
        with np.load(path) as archive:
            arrays = dict(archive)
    values = json.loads(str(arrays["meta"])) if arrays else read_json(path)
    place = values
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    if arrays:
        np.savez(path, **arrays | {"meta": json.dumps(values)})
    else:
        path.write_text(json.dumps(values))


def test_files_of_another_schema_are_made_again(copied):
    workdir = Path(copied.run.workdir)
    before, history = metrics(copied), (workdir / "history.csv").read_text()
    without(workdir / "baselines.json", "baselines", 1, "validation", "recall@20")
    without(workdir / "metrics.json", "baselines", 0, "label")
    without(workdir / "history.csv", "kl")
    without(workdir / "item_path.npz", "peak_rss_mb")
    without(exported(copied)[0] / "assets.extra" / "model_card.json", "weights")
    result = typed("trainers.main", copied)
    assert result.status == 0, result.stderr
    for words in ("Baselines: EASE, λ 50 …", "Item–item model: linear …", "Trained already: 4 epochs."):
        assert words in result.stdout
    after = metrics(copied)
    for name in ("test", "validation", "baselines", "best_epoch", "seconds_per_epoch"):
        assert after[name] == before[name]
    assert (workdir / "history.csv").read_text() == history
    assert card.read(exported(copied)[0])["weights"] == "float32"
    assert [path.name for path in exported(copied)] == ["2", "1"]


MAIN, EXPORT, REPORT = "trainers.main", "export.main", "trainers.report"


@pytest.mark.parametrize(
    ("module", "file", "keys", "words"),
    [
        (MAIN, "source.json", ["content"], ["source.json is damaged"]),
        (MAIN, "checkpoint.npz", ["waited"], ["checkpoint.npz has no waited"]),
        (MAIN, "best.npz", ["epoch"], ["best.npz has no epoch"]),
        (EXPORT, "best.npz", ["epoch"], ["best.npz has no epoch"]),
        (EXPORT, "item_path.npz", ["weights"], ["item_path.npz was made for other weights"]),
        (EXPORT, "metrics.json", ["model_id"], ["metrics.json is damaged"]),
        (EXPORT, "metrics.json", ["baselines", 0, "settings"], ["metrics.json is damaged"]),
        (REPORT, "metrics.json", ["test", "recall@20"], ["metrics.json is damaged"]),
        (REPORT, "history.csv", ["kl"], ["history.csv cannot be read", "'kl'"]),
        (REPORT, "best.npz", ["epoch"], ["best.npz has no epoch"]),
    ],
)
def test_a_file_of_another_schema_is_one_line(module, file, keys, words, copied):
    without(Path(copied.run.workdir, file), *keys)
    mistake(typed(module, copied), *words)


@pytest.mark.parametrize(("module", "name"), [(REPORT, "history.csv"), ("trainers.compare", "users.parquet")])
def test_a_changed_figure_is_noticed(module, name, copied):
    """In files that carry no checksum of their own."""
    path = Path(copied.run.workdir, name)
    content = bytearray(path.read_bytes())
    at = content.rindex(b".") + 1 if name == "history.csv" else len(content) // 3
    content[at] ^= 1
    path.write_bytes(content)
    command = [copied.run.workdir] * 2 if module == "trainers.compare" else [f"--workdir={copied.run.workdir}"]
    mistake(here(module, *command), f"{name} cannot be read", "written anew")
    go(copied)
    assert here(module, *command).status == 0


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001", "assets/item_ids.txt"])
def test_a_damaged_version_is_exported_again(name, copied):
    (version,) = exported(copied)
    content = bytearray((version / name).read_bytes())
    content[len(content) // 2] ^= 1
    (version / name).write_bytes(content)
    lines = go(copied)
    newest, first = exported(copied)
    assert (first, lines[-1].split()[-1]) == (version, str(newest))
    assert card.verify(newest)
    go(copied)
    assert len(exported(copied)) == 2


def test_every_name_that_metrics_json_lacks_is_noticed(copied):
    workdir = Workdir(copied.run.workdir)
    whole = metrics(copied)
    optional = {"similar_items", "elbo", "latent"}  # which a run of version 0.1 lacks
    read_by_nobody = optional | {"chosen_on_validation", "item_path_weight", "item_path_discount"}
    for name in whole.keys() - read_by_nobody:
        workdir.metrics.write_text(json.dumps({n: value for n, value in whole.items() if n != name}))
        with pytest.raises(UserError, match=r"metrics\.json is damaged"):
            workdir.read_metrics()
    workdir.metrics.write_text(json.dumps({n: value for n, value in whole.items() if n not in read_by_nobody}))
    assert workdir.read_metrics()["epochs"] == 4


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"version": 2, "epochs": "4"}', '{"version": 2, "depth": 3}'])
def test_damaged_settings_are_one_line(content, copied):
    Path(copied.run.workdir, "config.json").write_text(content)
    for module in (MAIN, EXPORT, REPORT):
        mistake(typed(module, copied), "Give another --workdir")


def test_a_version_without_all_signatures_of_today_is_exported_again(copied):
    (version,) = exported(copied)
    without(version / "assets.extra" / "model_card.json", "signatures", "explain")
    go(copied)
    assert len(exported(copied)) == 2
    go(copied)
    assert len(exported(copied)) == 2


@pytest.mark.parametrize(
    "keys", [["weights"], ["signatures", "embed", "inputs"], ["metrics", "test", "ndcg@10", "mean"]]
)
def test_a_damaged_card_is_one_line(keys, finished, tmp_path):
    shutil.copytree(exported(finished[0])[0], tmp_path / "1")
    without(tmp_path / "1" / "assets.extra" / "model_card.json", *keys)
    mistake(here("export.inspect", tmp_path), "has no readable model card")


def test_other_data_under_the_same_path_is_refused(finished, tmp_path):
    settings, _ = finished
    shutil.copytree(settings.run.workdir, tmp_path / "w")
    data = Path(shutil.copy(settings.data.data, tmp_path / "events.csv"))
    moved = settings.replaced(workdir=str(tmp_path / "w"), data=str(data))
    assert "Trained already: 4 epochs." in go(moved)  # the same content, elsewhere and with another time
    text = data.read_text()
    data.write_text(text + "u1,i1\n")
    with pytest.raises(
        UserError, match=r"trained on other data: .*bytes.*Give another --workdir for the data of today"
    ):
        go(moved)
    data.write_text(text[:-2] + ("1" if text[-2] != "1" else "2") + "\n")
    with pytest.raises(UserError, match="has changed"):
        go(moved)
    data.unlink()
    assert "Trained already: 4 epochs." in go(moved.replaced(data=settings.data.data))  # it is no longer needed
    with pytest.raises(UserError, match="no file or folder"):
        go(moved)
    with pytest.raises(UserError, match="trained on other data"):
        go(moved.replaced(data=""))  # the embedded data set


def test_a_second_training_in_a_workdir_is_refused(copied):
    with files.locked(copied.run.workdir, "the test is at work here"):
        result = process("trainers.main", f"--workdir={copied.run.workdir}")
    mistake(result, f"Another process is at work in {copied.run.workdir}.")


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
    diverging = copied.replaced(workdir=copied.run.workdir + "2", learning_rate=1e30)
    with pytest.raises(UserError, match="diverged"):
        go(diverging)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_trained_model_stays_as_it_is(tmp_path):
    from serving_kit import FACTS, ITEM_IDS, TITLES, default_model

    model = default_model()
    histories = tf.ragged.constant([[1, 5], [], [7]], dtype=tf.int32, row_splits_dtype=tf.int32)
    before, terms = model(histories).numpy(), np.asarray(model.network.terms(histories))
    for weights in ("float32", "bfloat16"):
        savedmodel.export_model(model, ITEM_IDS, TITLES, FACTS, tmp_path, 5, weights)
    np.testing.assert_array_equal(model(histories), before)
    np.testing.assert_array_equal(np.asarray(model.network.terms(histories)), terms)


def test_a_wrong_export_is_not_published(tmp_path, monkeypatch):
    from serving_kit import FACTS, ITEM_IDS, TITLES, model

    honest = kernels._summed
    monkeypatch.setattr(kernels, "_summed", lambda kernel, bags: honest(kernel, bags)[:, ::-1])
    for weights in ("float32", "bfloat16"):
        with pytest.raises(UserError, match=r"answers otherwise than the model.*not published"):
            savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, tmp_path / "models", 5, weights)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["a[b]", "a*", "a?", "a\\b"])
def test_a_place_from_which_nothing_could_be_loaded_is_refused_at_the_start(name, finished, tmp_path):
    settings, _ = finished
    with pytest.raises(UserError, match="which TensorFlow takes for a pattern"):
        savedmodel.export_run(Workdir(settings.run.workdir), tmp_path / name)
    with pytest.raises(UserError, match="which TensorFlow takes for a pattern"):
        go(settings.replaced(workdir=str(tmp_path / name)))
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
    with futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        names = sorted(pool.map(_export, [str(tmp_path / "models")] * 2))
    assert names == ["1", "2"]
    graphs = {(tmp_path / "models" / name / "saved_model.pb").read_bytes() for name in names}
    assert len(graphs) == 1
    assert str(tmp_path).encode() not in graphs.pop()


def test_the_card_holds_no_path_of_the_exporting_machine(finished):
    settings, _ = finished
    text = json.dumps(card.read(exported(settings)[0]))
    assert str(Path(settings.data.data).parent) not in text
    assert settings.run.workdir not in text


def test_one_model_and_one_matrix_of_ease_are_alive_in_a_run(copied, monkeypatch):
    built, matrices = [], []
    initialise, inverse = Autoencoder.__init__, gram.inverse

    def counted(model, *args, **kwargs):
        gc.collect()
        assert not [m for m in built if m() is not None], "the model before is still alive"
        built.append(weakref.ref(model))
        initialise(model, *args, **kwargs)

    def watched(x, l2):
        assert not [m for m in matrices if m() is not None], "the matrix before is still alive"
        matrix = inverse(x, l2)
        matrices.append(weakref.ref(matrix.base))
        return matrix

    monkeypatch.setattr(Autoencoder, "__init__", counted)
    monkeypatch.setattr(gram, "inverse", watched)
    go(copied.replaced(workdir=copied.run.workdir + "3", epochs=1, ease_l2="5,6,7"))
    assert len(built) == 2  # the one that learns, and the one with the best weights
    assert len(matrices) == 3  # EASE at three λ


def test_fewer_users_than_pseudo_inputs_are_announced(copied):
    settings = copied.replaced(workdir=copied.run.workdir + "4", epochs=1, prior="user_vamp", pseudo_inputs=500)
    lines = go(settings)
    (line,) = [line for line in lines if line.startswith("Components of the prior")]
    assert line == "Components of the prior: all 128 training users, fewer than --pseudo_inputs=500."


def test_the_first_line_names_the_flagfile(copied):
    default = Settings.of(hidden_dim=16, latent_dim=6)
    assert summary.settings_line(default) == "Settings: those of vamp.flags with --hidden_dim=16 --latent_dim=6."
    assert go(copied)[0] == "Settings: those of no shipped flagfile."
    assert summary.settings_line(Settings()) == "Settings: those of vamp.flags."
    evcf = Settings.of(**EVCF | {"beta_cap": 0.2})
    assert summary.settings_line(evcf) == "Settings: those of evcf.flags with --beta_cap=0.2."
    odd = evcf.replaced(
        layers=7, seed=3, kl="sample", optimizer="adam", hidden_dim=5, latent_dim=4, pseudo_inputs=3,
        learning_rate=0.1, batch_size=9,
    )  # fmt: skip
    assert summary.settings_line(odd) == "Settings: those of no shipped flagfile."


def test_patience_waits_for_no_warm_up_that_there_is_not(finished, tmp_path, monkeypatch):
    split = Workdir(finished[0].run.workdir).split()

    def warmup(**settings) -> float:
        received = []

        def made(workdir, validate, patience, warmup_epochs, *others):
            received.append(warmup_epochs)
            raise Killed

        monkeypatch.setattr(training, "CheckpointAndEarlyStop", made)
        options = {"hidden_dim": 8, "latent_dim": 4, "pseudo_inputs": 3, "batch_size": 32, "beta_warmup": 80.0}
        with pytest.raises(Killed):
            training.train(Settings.of(**EVCF | options | settings), Workdir(tmp_path), split, print)
        return received[0]

    assert warmup() == 80
    assert warmup(beta_unit="step") == 20  # 128 users, four steps an epoch
    assert warmup(beta_unit="step", encoder_passes=3) == 5
    assert warmup(latent="none", prior="standard") == warmup(beta_cap=0.0) == 0


@pytest.mark.parametrize(("warmup_epochs", "last"), [(0, 5), (5, 7)])
def test_training_stops_after_more_than_patience_epochs_that_are_no_better(warmup_epochs, last, tmp_path, monkeypatch):
    train, _ = checkerboard()
    validate = type("Validate", (), {"figures": {"seconds": 1.0}})()
    callback = CheckpointAndEarlyStop(Workdir(tmp_path), validate, 2, warmup_epochs, seconds=0)
    callback.set_model(compiled(small(ROOT / "trainers" / "flags" / "baseline.flags"), train))
    for epoch, ndcg in enumerate([0.1, 0.2, 0.1, 0.2, 0.15, 0.1, 0.1, 0.1]):
        monkeypatch.setattr(machine, "peak_rss", lambda epoch=epoch: 700.0 - epoch)
        validate.figures["val_ndcg@100"] = ndcg
        callback.on_epoch_end(epoch, {"beta": 0.1, "loss": 1.0, "nll": 1.0, "kl": 1.0})
        if callback.model.stop_training:
            break
    assert callback.epochs_done == last
    assert (callback.best, callback.best_epoch) == (0.2, 2)
    assert checkpoints.read_meta(tmp_path / "best.npz") == {"epoch": 2}
    checkpoint = checkpoints.read_meta(tmp_path / "checkpoint.npz")
    assert (checkpoint["stopped"], checkpoint["peak_rss_mb"]) == (True, 700.0)  # the largest of all epochs


def test_an_interrupt_tells_where_the_same_command_goes_on(tmp_path):
    checkpoint = CheckpointAndEarlyStop(Workdir(tmp_path), None, patience=5, warmup_epochs=0, seconds=15)

    def interrupted() -> None:
        with interruptible(checkpoint.where_it_resumes) as callback:
            os.kill(os.getpid(), signal.SIGINT)
            callback.on_train_batch_end(0)

    for written, words in (("", "No checkpoint was written yet"), ("after epoch 3", "goes on after epoch 3.")):
        checkpoint.place = written
        with pytest.raises(KeyboardInterrupt, match=words):
            interrupted()
