"""The sweep: its plans, its figures against plain arithmetic, and the command itself, killed and started again."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from typing import ClassVar

import numpy as np
import pytest
from absl import flags
from conftest import EVCF, ROOT

from trainers.sweep import plans, results, show, work
from trainers.sweep.worker import FINISHED, PER_USER
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import flagfiles
from vae_cf_tf.settings.config import Config, as_flags


def test_the_ablation_is_every_combination():
    points = plans.expand("evcf", Config(**EVCF), [], [], [])
    found = {(c.latent, c.prior, c.block, c.layers, c.likelihood) for c in (p.config for p in points)}
    assert len(points) == len(found) == 36
    assert {(latent, prior) for latent, prior, *_ in found} == {
        ("flat", "standard"),
        ("flat", "vamp"),
        ("hierarchical", "vamp"),
    }
    assert len({p.name for p in points}) == 36


def test_given_flags_override_the_plan():
    base = Config(**EVCF | {"likelihood": "gaussian", "learning_rate": 0.1})
    points = plans.expand("evcf", base, ["likelihood", "prior", "learning_rate"], ["layers=1,4"], [])
    assert {p.config.likelihood for p in points} == {"gaussian"}
    assert {(p.config.latent, p.config.prior) for p in points} == {("flat", "vamp"), ("hierarchical", "vamp")}
    assert {p.config.layers for p in points} == {1, 4}
    assert {p.config.learning_rate for p in points} == {0.1}
    assert len(points) == 2 * 2 * 2


def test_where_sets_what_suits_some_configurations():
    points = plans.expand(
        "grid", Config(**EVCF), [], ["layers=1,2", "beta_cap=.1,.2"], ["layers=2: batch_size=7,epochs=3"]
    )
    found = {(p.config.layers, p.config.beta_cap): (p.config.batch_size, p.config.epochs) for p in points}
    assert found == {(1, 0.1): (200, 400), (1, 0.2): (200, 400), (2, 0.1): (7, 3), (2, 0.2): (7, 3)}


def test_folders_of_close_values_differ():
    points = plans.expand("grid", Config(), [], ["learning_rate=0.00012345671,0.00012345672"], [])
    assert len({point.name for point in points}) == 2


def test_the_flags_of_the_best_make_its_settings_again():
    base = Config(**EVCF | {"heldout_users": 9, "learning_rate": 0.00012345671, "ease_l2": "7,8"})
    points = plans.expand("evcf", base, [], [], ["prior=standard,layers=2: beta_cap=0.25,batch_size=70"])
    for point in (points[0], next(p for p in points if p.config.batch_size == 70)):
        values = flags.FlagValues()
        for field in dataclasses.fields(Config):
            kind = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}[type(field.default)]
            kind(field.name, field.default, "", flag_values=values)
        values(flagfiles.expanded(["command", *as_flags(point.config)]))
        again = Config(**{field.name: values[field.name].value for field in dataclasses.fields(Config)})
        assert dataclasses.replace(again, workdir=point.config.workdir) == point.config


def test_the_reference_differs_in_the_named_settings_only():
    points = plans.expand("evcf", Config(**EVCF), [], [], [])
    wanted = plans.usual_reference("evcf", points)
    for point in points:
        reference = plans.reference_of(point, points, wanted).config
        assert reference == dataclasses.replace(
            point.config, latent="flat", prior="standard", block="tanh", layers=1
        )  # the likelihood stays
    gated = plans.expand("evcf", Config(**EVCF), ["block"], [], [])
    assert "block" not in plans.usual_reference("evcf", gated)  # which has no tanh


@pytest.mark.parametrize(
    ("vary", "where", "message"),
    [
        ([], [], "one configuration"),
        (["nothing=1,2"], [], "no setting 'nothing'"),
        (["beta_cap=a"], [], "--beta_cap takes a number. Received: 'a'"),
        (["layers=1.5,2"], [], "a whole number"),
        (["layers="], [], "names no values"),
        (["threshold=3,4"], [], "the same in all runs"),
        (["seed=1,2"], [], "the same in all runs"),
        (["prior=standard,gaussian"], [], "must be one of standard, vamp"),
        (["layers=1,2"], ["layers=1"], "has no settings"),
        (["layers=1,2"], ["layers:epochs=1"], "is no setting"),
    ],
)
def test_a_bad_plan_is_told(vary, where, message):
    with pytest.raises(UserError, match=message):
        plans.expand("grid", Config(), [], vary, where)


def test_what_is_left_is_estimated_from_the_same_configuration():
    points = plans.expand("grid", Config(), [], ["layers=1,2,3"], [])
    todo = work.tasks(points, [0, 1], ROOT)
    assert [(t.config.layers, t.config.seed) for t in todo] == [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1)]
    seconds = dict.fromkeys(todo, None)
    assert work.time_left(todo, seconds) is None
    seconds[todo[0]], seconds[todo[1]] = 10.0, 30.0
    assert work.time_left(todo[2:], seconds) == 20 + 10 + 30 + 20
    assert work.clock(3725) == "1:02:05"


def finish(task: work.Task, values: dict[str, np.ndarray]) -> None:
    """Writes what a worker leaves."""
    task.folder.mkdir(parents=True)
    np.savez(task.folder / PER_USER, **values)
    (task.folder / "metrics.json").write_text('{"best_epoch": 2, "epochs": 3}')
    done = {"settings": task.config.figures_depend_on(), "seconds": 1.0}
    (task.folder / FINISHED).write_text(json.dumps(done))


def made(tmp_path, rng, plan="grid", vary=("layers=1,2",), leave=0):
    points = plans.expand(plan, Config(**EVCF), [], vary, [])
    todo = work.tasks(points, [3, 4], tmp_path)
    values = {}
    for task in todo[: len(todo) - leave]:
        values[task.config.layers, task.config.seed] = found = {
            f"{part}/{m}": rng.random(50) + task.config.layers * 0.1 * (part == "validation")
            for part in ("test", "validation")
            for m in results.METRICS
        }
        finish(task, found)
    return todo, values


def test_means_errors_and_differences_are_plain_arithmetic(tmp_path, rng):
    todo, values = made(tmp_path, rng)
    found = results.collect(todo, ("test", "validation"), {"layers": 1}, tmp_path / "none.json", seed=8)
    one, two = found["configurations"]
    for layers, row in ((1, one), (2, two)):
        for part in ("test", "validation"):
            a, b = (float(np.mean(values[layers, seed][f"{part}/recall@20"])) for seed in (3, 4))
            assert row[part]["recall@20"]["mean"] == pytest.approx((a + b) / 2)
            assert row[part]["recall@20"]["stderr"] == pytest.approx(abs(a - b) / 2)  # of two: s/√2, s = |a−b|/√2
    assert one["difference"] is None
    gaps = [
        sum(values[2, s]["test/ndcg@100"][u] - values[1, s]["test/ndcg@100"][u] for s in (3, 4)) / 2 for u in range(50)
    ]
    difference = two["difference"]["test"]["ndcg@100"]
    assert difference["mean"] == pytest.approx(sum(gaps) / 50)
    plain = np.random.default_rng(11)
    low, high = np.quantile([plain.choice(gaps, 50).mean() for _ in range(4_000)], [0.025, 0.975])
    assert difference["low"] == pytest.approx(low, abs=0.15 * (high - low))
    assert difference["high"] == pytest.approx(high, abs=0.15 * (high - low))
    assert found["best_on_validation"] == "layers=2"


def test_a_search_never_looks_at_test_users(tmp_path, rng):
    todo, _ = made(tmp_path, rng)
    figures = {m: {"mean": 0.1, "stderr": 0.0} for m in results.METRICS}
    popularity = {"name": "popularity", "settings": {}, "label": "popularity", "test": figures, "validation": figures}
    (tmp_path / "baselines.json").write_text(json.dumps({"settings": {}, "baselines": [popularity]}))
    found = results.collect(todo, plans.PARTS["grid"], {}, tmp_path / "baselines.json")
    assert '"test"' not in json.dumps(found)
    text = show.markdown(found, {})
    assert "## Test" not in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert tables[2].startswith("| 2 | 2 | ")  # the best first, of two seeds
    assert found["configurations"][0]["reference"] == "layers=2"
    assert "The reference of a configuration is the best on validation, layers=2." in text


def test_what_is_not_finished_is_left_out(tmp_path, rng):
    todo, _ = made(tmp_path, rng, leave=1)
    found = results.collect(todo, ("test", "validation"), {"layers": 1}, tmp_path / "none.json")
    assert (found["runs"], found["finished"]) == (4, 3)
    assert [len(row["runs"]) for row in found["configurations"]] == [2, 1]
    assert found["configurations"][1]["test"]["ndcg@100"]["stderr"] is None
    show.write(found, tmp_path, {"runs/x": "it fell"})
    assert "- runs/x: it fell" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    other = dataclasses.replace(todo[0].config, epochs=7)
    assert work.Task(todo[0].point, other).seconds() is None  # of other settings


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data = synthetic_log(users=160, items=130, communities=4, mean_items=15)
    lines = [f"{data.user_ids[u]},{data.item_ids[i]}" for u, i in zip(data.users, data.items, strict=True)]
    (folder / "events.csv").write_text("user_id,item_id\n" + "\n".join(lines) + "\n")
    return folder / "events.csv"


def sweep(log, folder, *more: str) -> list[str]:
    tiny = ["--hidden_dim=16", "--latent_dim=6", "--pseudo_inputs=5", "--batch_size=32", "--ease_l2=50"]
    return [sys.executable, "-m", "trainers.sweep", "--plan=grid", "--flagfile=trainers/flags/evcf.flags",
            f"--data={log}", f"--sweep_dir={folder}",
            "--vary=latent=flat,hierarchical", "--seeds=1", "--epochs=4", *tiny, *more]  # fmt: skip


def run(command: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture(scope="module")
def killed(log, tmp_path_factory):
    """A sweep that was killed in its second run, with what was left."""
    folder = tmp_path_factory.mktemp("sweeps") / "killed"
    process = subprocess.Popen(sweep(log, folder), cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (runs(folder)[1] / "log.txt").exists():
        time.sleep(0.02)
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as f:
        workers = [int(pid) for pid in f.read().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    return folder, workers


def runs(folder):
    return [folder / "runs" / f"latent={latent}" / "seed=0" for latent in ("flat", "hierarchical")]


def test_killed_and_started_again_it_repeats_nothing_and_ends(killed, log):
    folder, workers = killed
    first, second = runs(folder)
    assert workers
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, workers))
    assert not (second / FINISHED).exists()
    before = (first / FINISHED).stat().st_mtime_ns
    log.rename(log.with_suffix(".away"))  # the data is not read again
    try:
        result = run(sweep(log, folder))
    finally:
        log.with_suffix(".away").rename(log)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "[1/2]" in result.stdout
    assert "[0/2]" not in result.stdout
    assert (first / FINISHED).stat().st_mtime_ns == before
    assert not (second / "checkpoint.npz").exists()
    assert not (second / "export").exists()
    assert (second / "best.npz").exists()
    found = json.loads((folder / "results.json").read_text())
    assert found["finished"] == found["runs"] == 2
    for row, workdir in zip(found["configurations"], (first, second), strict=True):
        main = json.loads((workdir / "metrics.json").read_text())
        for name in results.METRICS:
            assert row["validation"][name]["mean"] == pytest.approx(main["validation"][name]["mean"], abs=1e-12)
        assert [baseline["label"] for baseline in main["baselines"]] == ["popularity", "EASE, λ 50"]
    assert (first / "split.npz").read_bytes() == (second / "split.npz").read_bytes()


def test_a_run_that_fails_is_named_and_the_others_go_on(killed, log, tmp_path):
    shutil.copytree(killed[0], tmp_path / "sweep")
    first, second = runs(tmp_path / "sweep")
    for workdir in (first, second):  # so that two are to be made, whatever another test has done here
        (workdir / FINISHED).unlink(missing_ok=True)
    (first / "checkpoint.npz").write_bytes(b"nonsense")
    result = run(sweep(log, tmp_path / "sweep", "--jobs=2"))
    assert result.returncode == 2
    assert result.stderr.startswith(f"Error: 1 of 2 runs failed, the first in {first}: ")
    assert result.stderr.count("\n") == 1
    assert "checkpoint.npz is damaged" in result.stderr
    assert (second / FINISHED).exists()
    found = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert [row["settings"] for row in found["configurations"]] == [{"latent": "hierarchical"}]
    assert list(found["failed"]) == [str(first)]


class Imagined:
    """A run that takes three looks at it, and knows how many are under way beside it."""

    under_way: ClassVar[list] = []
    stopped: ClassVar[list] = []
    most = 0

    def __init__(self, task, *_):
        self.task, self.looks = task, 0
        self.process = types.SimpleNamespace(poll=self.poll, stdin=types.SimpleNamespace(close=lambda: None))
        self.under_way.append(self)
        Imagined.most = max(self.most, len(self.under_way))

    def poll(self):
        self.looks += 1
        return 0 if self.looks > 3 else None

    def ended(self):
        self.under_way.remove(self)
        self.task.folder.mkdir(parents=True)
        return ""

    def stop(self):
        self.stopped.append(self)

    def share(self, name):
        assert name == work.BASELINES


@pytest.fixture
def imagined(monkeypatch, tmp_path):
    Imagined.most = 0
    Imagined.under_way.clear()
    Imagined.stopped.clear()
    monkeypatch.setattr(work, "_Run", Imagined)
    monkeypatch.setattr(work.time, "sleep", lambda s: None)
    monkeypatch.setattr(work.Task, "seconds", lambda task: 2.0 if task.folder.exists() else None)
    points = plans.expand("grid", Config(), [], ["layers=1,2,3"], [])
    return work.tasks(points, range(2), tmp_path)


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_as_many_runs_as_jobs_are_under_way(imagined, tmp_path, jobs):
    said, after = [], []
    failed = work.carry_out(imagined, tmp_path, "weights", jobs, 0, said.append, lambda: after.append(1))
    assert failed == {}
    assert Imagined.most == jobs
    assert len(after) == len(said) == 6
    assert all(task.folder.exists() for task in imagined)


def test_an_interrupt_stops_all_runs_under_way(imagined, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.carry_out(imagined, tmp_path, "weights", 3, 0, lambda line: None, interrupt)
    assert Imagined.under_way == Imagined.stopped != []


def test_mistakes_are_one_line(killed, log, tmp_path):
    for folder, more, message in (
        ("x", ["--seeds=0"], "seeds"),
        ("x", ["--data=nowhere.csv"], "nowhere.csv"),
        ("x", ["--reference=layers=9"], "no configuration of the sweep"),
        ("x", ["--vary=kl=analytic,sample"], "Contradictory flags"),
        (killed[0], ["--beta_cap=.7"], "--beta_cap=0.3 there, --beta_cap=0.7 here"),
        (killed[0], ["--split_seed=7"], "--split_seed=98765 there, --split_seed=7 here"),
        ("x", ["--vary=lerning_rate=.1,.2"], "Did you mean learning_rate?"),
        ("x", ["--lerning_rate=.1"], "Did you mean --learning_rate?"),
    ):
        result = run(sweep(log, tmp_path / folder, *more))
        assert result.returncode == 2
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("Error: ") == 1
        assert "Traceback" not in result.stderr
        assert message in result.stderr
