"""trainers.compare: paired differences of finished runs on the same users."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, synthetic_events
from PIL import Image
from typed import here, mistake

from trainers import compare
from vae_cf_tf.evaluation.metrics import METRICS
from vae_cf_tf.runs.workdir import Workdir

MULTDAE = f"--flagfile={ROOT}/trainers/flags/multdae.flags"
SETTINGS = {"hidden_dim": 16, "latent_dim": 8, "batch_size": 50, "epochs": 2, "ease_l2": 200}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two runs on the same split, and one on another."""
    folder = tmp_path_factory.mktemp("runs")
    events = synthetic_events(folder)
    for name, different in (("a", {}), ("b", {"seed": 1}), ("other", {"split_seed": 1})):
        flags = [f"--{key}={value}" for key, value in (SETTINGS | different).items()]
        trained = here("trainers.main", MULTDAE, *flags, f"--data={events}", f"--workdir={folder / name}")
        assert trained.status == 0, trained.stderr
    return [folder / "a", folder / "b", folder / "other"]


def bootstrapped(gaps: np.ndarray) -> list[float]:
    """Percentile interval of the mean, by drawing users."""
    rng = np.random.default_rng(5)
    return np.quantile(
        [gaps[rng.integers(0, len(gaps), len(gaps))].mean() for _ in range(4000)], [0.025, 0.975]
    ).tolist()


def test_differences_are_those_of_the_same_users(runs, tmp_path):
    a, b, _ = runs
    typed = here("trainers.compare", a, b, a, f"--output={tmp_path / 'c.png'}", "--part=validation")
    assert (typed.status, typed.stderr) == (0, "")
    found = json.loads((tmp_path / "c.json").read_text())
    values = [Workdir(run).read_users()["validation"] for run in (a, b)]
    assert (found["part"], found["users"]) == ("validation", len(values[0]["ndcg@100"]))
    assert [Path(run["workdir"]) for run in found["runs"]] == [a, b, a]
    assert found["runs"][0]["difference"] is None
    for name in ("ndcg@100", "recall@20", "recall@50"):
        gaps = values[1][name] - values[0][name]
        reported = [json.loads((run / "metrics.json").read_text())["validation"][name]["mean"] for run in (a, b)]
        assert [run["metrics"][name] for run in found["runs"][:2]] == pytest.approx(reported)
        difference = found["runs"][1]["difference"][name]
        assert difference["mean"] == pytest.approx(reported[1] - reported[0])
        width = difference["high"] - difference["low"]
        assert [difference["low"], difference["high"]] == pytest.approx(bootstrapped(gaps), abs=0.1 * width + 1e-9)
        assert set(found["runs"][2]["difference"][name].values()) == {0.0}  # a run from itself
        assert f"{difference['mean']:+.4f}".replace("-", "−") in typed.stdout
    lines = typed.stdout.splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["a", "b", "a"]
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 1000


def test_mistakes_are_one_line(runs, tmp_path):
    a, b, other = runs
    mistake(here("trainers.compare", a), "Two or more runs are compared. Received: 1.")
    mistake(here("trainers.compare", a, b, other), "judged on other data or another split", str(other))
    mistake(here("trainers.compare", a, tmp_path), "is not finished")
    mistake(here("trainers.compare", a, b, "--output=x.jpg"), "--output takes a .png file", "x.jpg")
    mistake(here("trainers.compare", a, b, f"--output={tmp_path}/none/x.png"), "in a folder that exists")
    assert not list(tmp_path.iterdir())


def test_metrics_of_other_weights_are_refused(runs, tmp_path):
    a, b, _ = runs
    users = Workdir(b).users
    whole = users.read_bytes()
    try:
        Workdir(b).write_users({"test": {m: np.ones(3) for m in METRICS}}, {"test": np.arange(3)})
        mistake(here("trainers.compare", a, b), "users.parquet cannot be read", "not of the figures", "written anew")
        users.write_bytes(whole[: len(whole) // 2])
        mistake(here("trainers.compare", a, b), "users.parquet cannot be read")
        users.unlink()
        mistake(here("trainers.compare", a, b), "users.parquet cannot be read")
    finally:
        users.write_bytes(whole)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (["x/r/a", "x/r/b"], ["a", "b"]),
        (["/s/layers=1/0", "/s/layers=2/0"], ["layers=1/0", "layers=2/0"]),
        (["a", "a"], ["a", "a"]),
        (["x/a", "x/a/b"], ["a", "a/b"]),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(runs, expected):
    assert compare._names({"runs": [{"workdir": run} for run in runs]}) == expected
