"""The benchmark's --time_to: the table, and what its clock counts."""

import time
from pathlib import Path

import pytest
from conftest import ROOT, small, synthetic_events
from typed import here, mistake

from trainers.benchmark import time_to
from trainers.benchmark.time_to import Course, Point
from trainers.train import train
from vae_cf_tf.data.load import load_split
from vae_cf_tf.evaluation import ranking
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import silent

FLAGS = ROOT / "trainers" / "flags"
TINY = {"hidden_dim": 16, "latent_dim": 6, "pseudo_inputs": 5, "batch_size": 32, "epochs": 4, "ease_l2": "50"}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return synthetic_events(tmp_path_factory.mktemp("data"))


def test_the_table_has_the_least_time_to_each_target():
    rising = Course("a", [Point(2.0, 0.1), Point(5.25, 0.3), Point(9.0, 0.2), Point(12.0, 0.31), Point(11.5, 0.29)])
    assert [rising.seconds_to(target) for target in (0.1, 0.25, 0.3, 0.305, 0.4)] == [2.0, 5.25, 5.25, 12.0, None]
    assert time_to.table([rising, Course("b", [Point(1.0, 0.25)])], [0.2, 0.305]).splitlines() == [
        "| model | s to 0.2 | s to 0.305 | best | after s |",
        "| --- | --- | --- | --- | --- |",
        "| a | 5.2 | 12.0 | 0.3100 | 12.0 |",
        "| b | 1.0 | – | 0.2500 | 1.0 |",
    ]


@pytest.mark.slow
def test_the_points_are_those_of_the_model_that_the_run_would_export(log, tmp_path, monkeypatch):
    settings = small(ROOT / "vamp.flags", **TINY, data=str(log))
    split = load_split(settings, silent)
    ndcg = time_to._ndcg

    def slowly(rank, split, part, settings):
        time.sleep(1.0 if part == "test" else 0.0)
        return ndcg(rank, split, part, settings)

    monkeypatch.setattr(time_to, "_ndcg", slowly)
    started = time.perf_counter()
    course = time_to._of_model("x", settings, split, 1.0, silent)
    took = time.perf_counter() - started
    assert course.name == "x: H+Vamp over users (Gated)"
    seconds = [point.seconds for point in course.points]
    assert min(seconds) > 0
    assert seconds[-1] < took - 1.0 * len(course.points)  # judging test users does not count

    workdir = Workdir(tmp_path)
    (model, log_of_training) = train(settings, workdir, split, silent, verbose=0)
    values = [row["val_ndcg@100"] for row in log_of_training.rows]
    assert len(course.points) == sum(v > max([-1.0, *values[:i]]) for i, v in enumerate(values))
    hybrid, _ = time_to.evaluate.with_item_item(model, settings, workdir, split, silent)
    expected = ranking.evaluate(ranking.model_ranker(hybrid), split.test, 500)["ndcg@100"].mean()
    assert course.points[-1].ndcg == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.slow
def test_the_command_prints_baselines_and_models(log, tmp_path):
    sizes = [f"--{name}={value}" for name, value in TINY.items()]
    also = tmp_path / "dae.flags"
    also.write_text(f"--flagfile={FLAGS / 'multdae.flags'}\n--epochs=1\n")
    flags = [f"--data={log}", *sizes, "--epochs=1", "--time_to=.01,.99", f"--also={also}"]
    typed = here("trainers.benchmark", *flags, "--compare=turns=epoch")
    assert typed.status == 0, typed.stderr
    header, _, *rows = [line[2:-2].split(" | ") for line in typed.stdout.splitlines()]
    assert header == ["model", "s to 0.01", "s to 0.99", "best", "after s"]
    names = [row[0] for row in rows]
    assert "EASE, λ 50" in names
    assert all("|" not in name.replace(r"\|", "") for name in names)
    assert next(name for name in names if ": " in name) == "as given: H+Vamp over users (Gated)"
    assert names[-1] == "dae: Multi-DAE"
    assert all(float(row[1]) >= 0 and row[2] == "–" for row in rows)


def test_mistakes_are_one_line(log):
    for value in ("x", "0.4,2", ","):
        mistake(
            here("trainers.benchmark", f"--data={log}", f"--time_to={value}"), "--time_to takes values", repr(value)
        )
    mistake(here("trainers.benchmark", f"--data={log}", "--time_to=.4", "--also=none.flags"), "none.flags")
