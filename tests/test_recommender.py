"""vae_cf_tf.Recommender: the main job and the served signatures, from Python."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import ROOT, SMALL
from typed import here

import vae_cf_tf
from trainers import memory_check
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import write_json
from vae_cf_tf.registries import SIGNATURES
from vae_cf_tf.runs.workdir import Workdir

SETTINGS = SMALL | {"epochs": 2, "ease_l2": "200"}
QUICK = {"preset": "multdae", "hidden_dim": 16, "latent_dim": 8, "epochs": 4, "batch_size": 50, "ease_l2": "200"}
"""A model that is trained in a moment."""


def needs(signature: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(signature not in SIGNATURES.names(), reason=f"no signature {signature} in this version")


def log_frame(users: int = 160, items: int = 130) -> pd.DataFrame:
    """A small log whose ids are integers; users from 1000, items from 10."""
    log = synthetic_log(users=users, items=items, communities=4, mean_items=15)
    return pd.DataFrame({"user_id": log.users + 1000, "item_id": log.items + 10})


TITLES = {item: f"Film {item}" for item in range(10, 135)}  # the last ones have none


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> vae_cf_tf.Recommender:
    folder = tmp_path_factory.mktemp("python") / "run"
    recommender = vae_cf_tf.Recommender("vamp", workdir=folder, item_titles=TITLES, **SETTINGS)
    assert recommender.fit(log_frame(), verbose=0) is recommender
    return recommender


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    return trained.export(tmp_path_factory.mktemp("models"), top_k=40)


@pytest.fixture(scope="module")
def scores(exported):
    """What `serving_default` says of one history, by item id."""
    served = tf.saved_model.load(str(exported))
    ids = (exported / "assets" / "item_ids.txt").read_text().split()

    def ask(history: list[str]) -> dict[str, float]:
        answer = served.signatures["serving_default"](history=tf.constant([history], tf.string, [1, len(history)]))
        return dict(zip(ids, answer["scores"].numpy()[0].tolist(), strict=True))

    return ask


def ordered(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda item: -scores[item])


def test_fit_does_what_the_command_does(trained, tmp_path):
    log_frame().to_csv(tmp_path / "log.csv", index=False)
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
    command = here(
        "trainers.main",
        f"--flagfile={ROOT}/vamp.flags",
        f"--data={tmp_path}/log.csv",
        f"--workdir={tmp_path}/w",
        *flags,
    )
    assert command.status == 0, command.stderr
    expected = json.loads((tmp_path / "w" / "metrics.json").read_text())
    for name in ("test", "validation", "baselines", "data_fingerprint", "best_epoch"):
        assert trained.metrics[name] == expected[name], name
    history = pd.read_csv(tmp_path / "w" / "history.csv")
    pd.testing.assert_frame_equal(
        trained.history.drop(columns="seconds"), history.drop(columns="seconds").astype(float)
    )
    assert not (trained._run().path / "export").exists()  # the export is apart


def test_metrics_of_each_user_have_the_mean_that_is_reported(trained):
    rows = pd.read_parquet(trained._run().users)
    split = trained._run().split()
    for part in ("test", "validation"):
        ours, held_out = rows[rows["part"] == part], getattr(split, part)
        assert ours["user"].tolist() == np.flatnonzero(held_out.target.getnnz(axis=1)).tolist()
        for name, figure in trained.metrics[part].items():
            assert ours[name].mean() == pytest.approx(figure["mean"])


def test_evaluate_tabulates_the_model_and_the_baselines(trained):
    table = trained.evaluate().set_index(["model", "part", "metric"])
    models = {name.partition(",")[0] for name in table.index.get_level_values("model")}
    assert models == {"this model", "popularity", "item-kNN", "EASE"}
    for name, figure in trained.metrics["test"].items():
        assert table.loc[("this model", "test", name)].to_dict() == figure
    baseline = trained.metrics["baselines"][0]
    assert table.loc[(baseline["label"], "validation", "ndcg@100")].to_dict() == baseline["validation"]["ndcg@100"]


def test_recommend_ranks_by_the_served_scores(trained, scores):
    histories = [["12", "40", "77"], ["15"], ["12", "unknown", "12"], []]
    answer = trained.recommend(histories, k=7)
    assert list(answer.columns) == ["row", "rank", "item_id", "title", "score"]
    assert answer["row"].tolist() == np.repeat(range(4), 7).tolist()
    assert answer["rank"].tolist() == list(range(1, 8)) * 4
    for row, history in enumerate(histories):
        of_all = scores(history)
        expected = [item for item in ordered(of_all) if item not in history][:7]
        ours = answer[answer["row"] == row]
        assert ours["item_id"].tolist() == expected
        assert ours["score"].tolist() == pytest.approx([of_all[item] for item in expected], rel=1e-6)
    for item, title in zip(answer["item_id"], answer["title"], strict=True):
        assert title == f"Film {item}" if int(item) < 135 else pd.isna(title)


def test_histories_of_every_form_are_the_same_histories(trained):
    lists = [["12", "40"], ["15"]]
    expected = trained.recommend(lists, k=4)
    frame = pd.DataFrame({"user": ["b", "a", "b"], "item": [12, 15, 40]})
    for given in (
        [[12, 40], [15.0]],
        ((np.int64(12), 40), {"15"}),
        [np.array([12, 40]), pd.Series([15])],
        pd.Series(lists),
        {"b": [12, 40], "a": ["15"]},
        frame,
        frame.set_index("user"),
    ):
        answer = trained.recommend(given, k=4)
        names = ["b", "a"] if isinstance(given, dict | pd.DataFrame) else [0, 1]
        assert answer["row"].tolist() == np.repeat(names, 4).tolist()
        pd.testing.assert_frame_equal(answer.drop(columns="row"), expected.drop(columns="row"))
    of_one = trained.recommend(np.array([12, 40]), k=4)
    pd.testing.assert_frame_equal(of_one, expected[expected["row"] == 0])
    assert trained.recommend({}, k=4).empty
    assert trained.recommend(frame.head(0)).empty
    assert list(trained.recommend({}).columns) == list(expected.columns)


def test_more_than_the_exported_length_and_more_than_is_left(trained, exported, scores):
    everything = trained.recommend(["12"], k=500)
    assert everything["item_id"].tolist() == [item for item in ordered(scores(["12"])) if item != "12"]
    with pytest.raises(UserError, match=r"recommends at most 40 items\. Received: k=41"):
        vae_cf_tf.Recommender.load(exported).recommend(["12"], k=41)


def test_a_damaged_version_answers_nothing(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "1")
    ids = tmp_path / "1" / "assets" / "item_ids.txt"
    ids.write_bytes(ids.read_bytes().replace(b"12\n", b"32\n", 1))
    with pytest.raises(UserError, match=r"item_ids\.txt is damaged"):
        vae_cf_tf.Recommender.load(tmp_path / "1").recommend(["12"])


def test_run_and_version_answer_alike(trained, exported, tmp_path):
    histories = [["12", "40", "77"], ["15"]]
    places = [trained._run().path, exported, exported.parent, trained.save(tmp_path / "saved")]
    expected, embedding = trained.recommend(histories), trained.embed(histories)
    for place in places:
        loaded = vae_cf_tf.Recommender.load(place)
        assert loaded.item_ids == trained.item_ids
        assert loaded.metrics["test"] == trained.metrics["test"]
        pd.testing.assert_frame_equal(loaded.recommend(histories), expected, check_exact=True)
        pd.testing.assert_frame_equal(loaded.embed(histories), embedding, check_exact=True)
        assert "latent_dim=8" in repr(loaded)
    assert set(vae_cf_tf.Recommender.load(exported).evaluate()["model"]) == {"this model"}
    for use in (lambda version: version.history, lambda version: version.export(tmp_path)):
        with pytest.raises(UserError, match="is an exported version; only a run has this"):
            use(vae_cf_tf.Recommender.load(exported))


def test_many_histories_are_asked_in_blocks(trained, monkeypatch):
    histories = [[str(10 + n % 120)] * (1 + n % 3) for n in range(50)]
    whole = trained.recommend(histories, k=3)
    monkeypatch.setattr("vae_cf_tf.recommender.requests.CELLS", 800)
    pd.testing.assert_frame_equal(trained.recommend(histories, k=3), whole)


@needs("recommend_filtered")
def test_rules_at_request_time(trained, exported, scores):
    histories, exclude, candidates = [["12", "40"], ["15"]], ["20", 21], [[12, "30", "31", "20"], ["15", "50"]]
    for model in (trained, vae_cf_tf.Recommender.load(exported)):
        excluded = model.recommend(histories, k=30, exclude=exclude)
        filtered = model.recommend(histories, exclude=exclude, candidates=candidates, include_history=True)
        for row, history in enumerate(histories):
            order = ordered(scores(history))
            wanted = [item for item in order if item not in [*history, "20", "21"]][:30]
            assert excluded[excluded["row"] == row]["item_id"].tolist() == wanted
            among = [item for item in order if item in map(str, candidates[row]) and item not in ("20", "21")]
            assert filtered[filtered["row"] == row]["item_id"].tolist() == among
    assert trained.recommend(histories, candidates=[]).empty
    of_one = trained.recommend(histories, candidates=[["30"], []])
    assert of_one[["row", "item_id"]].to_numpy().tolist() == [[0, "30"]]


@needs("similar_items")
def test_similar_items_are_those_of_the_signature(trained, exported):
    served = tf.saved_model.load(str(exported)).signatures["similar_items"]
    expected = served(item=tf.constant(["12", "15"]))["item_ids"].numpy()[:, :5].astype(str)
    answer = trained.similar_items([12, "unknown", "15"], k=5)
    assert answer["row"].tolist() == ["12"] * 5 + ["15"] * 5
    assert answer["item_id"].tolist() == expected.ravel().tolist()
    assert trained.similar_items(12, k=5)["item_id"].tolist() == expected[0].tolist()


@needs("explain")
def test_explain_is_the_score_without_each_item(trained, scores):
    history = ["12", "unknown", "40", "12", "77"]
    answer = trained.explain(history, 30)
    assert sorted(answer["item_id"]) == ["12", "40", "77"]
    assert answer["contribution"].is_monotonic_decreasing
    whole = scores(["12", "40", "77"])["30"]
    for item, contribution in zip(answer["item_id"], answer["contribution"], strict=True):
        without = scores([other for other in ("12", "40", "77") if other != item])["30"]
        assert contribution == pytest.approx(whole - without, abs=1e-4)
    both = trained.explain({"a": history, "b": ["15"]}, [30, 31])
    assert both["row"].tolist() == ["a", "a", "a", "b"]


def test_an_interrupted_fit_goes_on(tmp_path, monkeypatch):
    data, settings = log_frame(), QUICK | {"checkpoint_seconds": 0}
    whole = vae_cf_tf.Recommender(**settings).fit(data, verbose=0)
    write = Workdir.write_history

    def interrupted(self, rows):
        write(self, rows)
        if len(rows) == 2:
            monkeypatch.setattr(Workdir, "write_history", write)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Workdir, "write_history", interrupted)
    recommender = vae_cf_tf.Recommender(**settings)
    with pytest.raises(KeyboardInterrupt, match="fit on the same data goes on after epoch 2"):
        recommender.fit(data, verbose=0)
    with pytest.raises(UserError, match="is not finished"):
        _ = recommender.metrics
    recommender.fit(data, verbose=0)
    assert len(recommender.history) == 4
    assert recommender.metrics["test"] == whole.metrics["test"]
    assert recommender.metrics["model_id"] == whole.metrics["model_id"]


def test_without_a_workdir_nothing_stays(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    split = vae_cf_tf.split(vae_cf_tf.load(log_frame()))
    recommender = vae_cf_tf.Recommender(**QUICK | {"epochs": 1}).fit(split, verbose=0)
    assert recommender.item_ids == split.item_ids
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    other = log_frame(items=120)
    recommender.fit(other, verbose=0)  # on other data a new run begins
    assert set(recommender.item_ids) <= set(other["item_id"].astype(str))
    assert recommender.recommend(other.head(30))["row"].isin(other["user_id"].astype(str)).all()
    del recommender
    gc.collect()
    assert not list((tmp_path / "temporary").iterdir())
    assert not list((tmp_path / "here").iterdir())


def test_a_workdir_keeps_to_its_data(trained):
    again = vae_cf_tf.Recommender.load(trained._run().path)
    assert again.fit(log_frame(), verbose=0).metrics["model_id"] == trained.metrics["model_id"]
    with pytest.raises(UserError, match="was trained on other data"):
        again.fit(log_frame(items=120), verbose=0)
    with pytest.raises(UserError, match="was trained on other data"):
        vae_cf_tf.Recommender.load(trained._run().path).fit(verbose=0)  # the embedded data


def test_repr_shows_what_is_not_default():
    assert repr(vae_cf_tf.Recommender()) == "Recommender()"
    assert repr(vae_cf_tf.Recommender("vamp", epochs=100)) == "Recommender('vamp')"  # 100 is the preset's
    assert repr(vae_cf_tf.Recommender(preset="evcf", epochs=np.int64(7), beta_cap=1, workdir=Path("runs/x"))) == (
        "Recommender('evcf', epochs=7, beta_cap=1.0, workdir='runs/x')"
    )
    assert vae_cf_tf.Recommender(ROOT / "trainers" / "flags" / "evcf.flags").settings.flat() == (
        vae_cf_tf.Recommender("evcf").settings.flat()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "vmap"}, "There is no preset 'vmap'. Did you mean vamp?"),
        ({"preset": "none.flags"}, "The flagfile none.flags cannot be read"),
        ({"epoch": 3}, "There is no setting 'epoch'. Did you mean epochs?"),
        ({"epochs": 1.5}, "--epochs takes a whole number. Received: 1.5."),
        ({"epochs": "many"}, "--epochs takes a whole number. Received: 'many'."),
        ({"epochs": True}, "--epochs takes a whole number. Received: True."),
        ({"latent": 3}, "--latent takes text. Received: 3."),
        ({"prior": "vmap"}, "--prior must be one of"),
        ({"beta_cap": None}, "--beta_cap takes a number. Received: None."),
        ({"latent": "none", "encoder_passes": 2}, "Contradictory flags"),
        ({"also_time_split": 3}, "--also_time_split takes true or false. Received: 3."),
    ],
)
def test_wrong_settings_are_told_as_the_flags_are(arguments, message):
    with pytest.raises(UserError) as told:
        vae_cf_tf.Recommender(**arguments)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("settings", [{"also_time_split": True}, {"distribute": "multi_worker"}])
def test_what_only_the_command_trains_is_refused_by_fit_and_can_be_loaded(settings, tmp_path):
    run = vae_cf_tf.Recommender(**QUICK | {"epochs": 1}, workdir=tmp_path / "run").fit(log_frame(), verbose=0)
    path = tmp_path / "run" / "config.json"
    write_json(path, {n: v for n, v in json.loads(path.read_text()).items() if n != "checksum"} | settings)
    loaded = vae_cf_tf.Recommender.load(tmp_path / "run")
    assert loaded.recommend([10, 11], k=3).equals(run.recommend([10, 11], k=3))
    with pytest.raises(UserError, match=r"also_time_split and distribute='multi_worker' are for trainers.main") as told:
        loaded.fit(log_frame(), verbose=0)
    assert "\n" not in str(told.value)


def test_a_run_that_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr(memory_check, "machine_memory", lambda: 2**26)
    with pytest.raises(UserError, match=r"needs about .* of memory, and the machine has"):
        vae_cf_tf.Recommender(**QUICK).fit(log_frame(), verbose=0)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda r, path: vae_cf_tf.Recommender().fit([[1, 2]], verbose=0), r"The data is a DataFrame .*Received: list"),
        (lambda r, path: vae_cf_tf.Recommender().fit(path / "none.csv", verbose=0), "no file or folder .*none.csv"),
        (lambda r, path: vae_cf_tf.Recommender().recommend(["1"]), "not trained yet. Call fit first"),
        (lambda r, path: vae_cf_tf.Recommender().metrics, "not trained yet"),
        (lambda r, path: vae_cf_tf.Recommender.load(path), "neither the workdir of a run nor an exported model"),
        (lambda r, path: r.recommend("12"), "takes a list of item ids.*Received: str"),
        (lambda r, path: r.recommend(["12", ["13"]]), "holds lists beside single ids"),
        (lambda r, path: r.recommend(["12", None]), "An id is missing"),
        (lambda r, path: r.recommend(["12"], k=0), "k must be at least 1. Received: 0"),
        (
            lambda r, path: r.recommend([["12"], ["13"]], exclude=[["1"]] * 3),
            "each of the 2 histories. Received: 3 lists",
        ),
        (lambda r, path: r.explain([["12"], ["13"]], ["1", "2", "3"]), "each of the 2 histories. Received: 3"),
        (lambda r, path: r.save(r._run().path), "exists and is not empty"),
    ],
)
def test_wrong_use_is_told_in_one_line(trained, use, message, tmp_path):
    with pytest.raises(UserError, match=message) as told:
        use(trained, tmp_path)
    assert "\n" not in str(told.value)


def test_ids_of_another_space_are_told(trained):
    with pytest.warns(UserWarning, match=r"None of the ids is in the catalogue. They are such as 'a'"):
        trained.recommend([["a", "b"], []])


def test_python_alone_is_silent_and_leaves_no_files(tmp_path):
    """A process of its own, which has the start of TensorFlow: nothing but what the script prints."""
    script = (
        "import vae_cf_tf, numpy as np\n"
        "from vae_cf_tf.data.synthetic import synthetic_log\n"
        "import pandas as pd\n"
        "log = synthetic_log(users=160, items=130, communities=4, mean_items=15)\n"
        "data = pd.DataFrame({'user': log.users, 'item': log.items})\n"
        f"recommender = vae_cf_tf.Recommender(**{QUICK | {'epochs': 1}}).fit(data, verbose=0)\n"
        "print(len(recommender.recommend([[1, 2]], k=3)))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "3\n", "")
    assert not [path for path in tmp_path.iterdir() if path.name != "__pycache__"]  # TensorFlow's AutoGraph leaves that
