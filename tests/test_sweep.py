"""The sweep: its plans, its figures against plain arithmetic, and the command itself, killed and started again."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from conftest import EVCF, ROOT, synthetic_events
from typed import Started, here, mistake, process

from trainers.sweep import output, plans, results, scheduling
from trainers.sweep.runs import FINISHED, SHARED, SweepRun, all_runs, of_results
from vae_cf_tf import files
from vae_cf_tf.data.split import PARTS
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation.metrics import METRICS
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import Settings, flagfiles
from vae_cf_tf.settings.settings import field_of, names


def of(points, *settings):
    """These settings of each configuration."""
    return {tuple(point.settings[name] for name in settings) for point in points}


def test_the_ablation_is_every_combination():
    points = plans.expand("evcf", Settings.of(**EVCF), [], [], [])
    assert len(points) == len(of(points, "latent", "prior", "block", "layers", "likelihood")) == 36
    assert of(points, "latent", "prior") == {("flat", "standard"), ("flat", "vamp"), ("hierarchical", "vamp")}
    assert len({p.name for p in points}) == 36


def test_given_flags_override_the_plan():
    base = Settings.of(**EVCF | {"likelihood": "gaussian", "learning_rate": 0.1})
    points = plans.expand("evcf", base, ["likelihood", "prior", "learning_rate"], ["layers=1,4"], [])
    assert of(points, "likelihood", "learning_rate") == {("gaussian", 0.1)}
    assert of(points, "latent", "prior") == {("flat", "vamp"), ("hierarchical", "vamp")}
    assert of(points, "layers") == {(1,), (4,)}
    assert len(points) == 2 * 2 * 2


def test_where_sets_what_suits_some_configurations():
    points = plans.expand(
        "grid", Settings.of(**EVCF), [], ["layers=1,2", "beta_cap=.1,.2"], ["layers=2: batch_size=7,epochs=3"]
    )
    expected = {(1, 0.1, 200, 400), (1, 0.2, 200, 400), (2, 0.1, 7, 3), (2, 0.2, 7, 3)}
    assert of(points, "layers", "beta_cap", "batch_size", "epochs") == expected


def test_folders_of_close_values_differ():
    points = plans.expand("grid", Settings(), [], ["learning_rate=0.00012345671,0.00012345672"], [])
    assert len({point.name for point in points}) == 2


def test_the_flags_of_the_best_make_its_settings_again():
    base = Settings.of(**EVCF | {"heldout_users": 9, "learning_rate": 0.00012345671, "ease_l2": "7,8"})
    points = plans.expand("evcf", base, [], [], ["prior=standard,layers=2: beta_cap=0.25,batch_size=70"])
    for point in (points[0], next(p for p in points if p.settings["batch_size"] == 70)):
        values = flags.FlagValues()
        for field in map(field_of, names()):
            kind = {
                bool: flags.DEFINE_bool,
                str: flags.DEFINE_string,
                int: flags.DEFINE_integer,
                float: flags.DEFINE_float,
            }[type(field.default)]
            kind(field.name, field.default, "", flag_values=values)
        values(flagfiles.expanded(["command", *flagfiles.as_flags(point.settings)]))
        again = Settings.of(**{name: values[name].value for name in names()})
        assert again.replaced(workdir=point.settings["workdir"]) == point.settings


def test_the_reference_differs_in_the_named_settings_only():
    points = plans.expand("evcf", Settings.of(**EVCF), [], [], [])
    wanted = plans.usual_reference("evcf", points)
    for point in points:
        reference = plans.reference_of(point, points, wanted).settings
        expected = point.settings.replaced(latent="flat", prior="standard", block="tanh", layers=1)
        assert reference == expected  # the likelihood stays
    gated = plans.expand("evcf", Settings.of(**EVCF), ["block"], [], [])
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
        (["ease_l2=7,8"], [], "the same in all runs"),
        (["layers=1,2"], ["layers=1"], "has no settings"),
        (["layers=1,2"], ["layers:epochs=1"], "is no setting"),
    ],
)
def test_a_bad_plan_is_told(vary, where, message):
    with pytest.raises(UserError, match=message):
        plans.expand("grid", Settings(), [], vary, where)


def test_each_configuration_is_run_with_the_first_seed_before_any_with_the_next():
    points = plans.expand("grid", Settings(), [], ["layers=1,2,3"], [])
    runs = all_runs(points, [0, 1], ROOT)
    order = [(run.settings["layers"], run.settings["seed"]) for run in runs]
    assert order == [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1)]
    assert len({run.folder for run in runs}) == 6


def metrics_json(**more) -> dict:
    """What metrics.json of a run holds, but for the checksums."""
    values = {part: {name: {"mean": 0.1, "stderr": 0.0} for name in METRICS} for part in PARTS}
    values |= {"best_epoch": 2, "epochs": 3, "finished": "2026-01-01T00:00:00+00:00", "baselines": []}
    values |= dict.fromkeys(("seconds_per_epoch", "users_per_second", "peak_rss_mb"), 1.0)
    values |= {name: {} for name in ("config", "versions", "split")}
    return values | dict.fromkeys(("note", "data_fingerprint", "model_id"), "x") | more


def finish(run: SweepRun, values: dict[str, np.ndarray]) -> None:
    """Writes what a finished run leaves."""
    run.folder.mkdir(parents=True)
    per_user: dict[str, dict[str, np.ndarray]] = {}
    for name, of_users in values.items():
        part, metric = name.split("/")
        per_user.setdefault(part, {})[metric] = of_users
    Workdir(run.folder).write_users(per_user, dict.fromkeys(per_user, np.arange(50)))
    Workdir(run.folder).write_metrics(metrics_json())
    done = {"settings": of_results(run.settings), "seconds": 1.0}
    (run.folder / FINISHED).write_text(json.dumps(done))


def made(tmp_path, rng, plan="grid", vary=("layers=1,2",), leave=0):
    points = plans.expand(plan, Settings.of(**EVCF), [], vary, [])
    runs = all_runs(points, [3, 4], tmp_path)
    values = {}
    for run in runs[: len(runs) - leave]:
        layers = run.settings["layers"]
        values[layers, run.settings["seed"]] = found = {
            f"{part}/{m}": rng.random(50) + layers * 0.1 * (part == "validation")
            for part in ("test", "validation")
            for m in results.METRICS
        }
        finish(run, found)
    return runs, values


def test_means_errors_and_differences_are_plain_arithmetic(tmp_path, rng):
    runs, values = made(tmp_path, rng)
    found = results.collect(runs, ("test", "validation"), {"layers": 1}, tmp_path / "none.json", seed=8)
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
    runs, _ = made(tmp_path, rng)
    figures = {m: {"mean": 0.1, "stderr": 0.0} for m in results.METRICS}
    popularity = {"name": "popularity", "settings": {}, "label": "popularity", "test": figures, "validation": figures}
    (tmp_path / "baselines.json").write_text(json.dumps({"settings": {}, "baselines": [popularity]}))
    found = results.collect(runs, plans.PARTS["grid"], {}, tmp_path / "baselines.json")
    assert '"test"' not in json.dumps(found)
    text = output.markdown(found, {})
    assert "## Test" not in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert tables[2].startswith("| 2 | 2 | ")  # the best first, of two seeds
    assert found["configurations"][0]["reference"] == "layers=2"
    assert "The reference of a configuration is the best on validation, layers=2." in text


@pytest.mark.parametrize("name", ["users.parquet", "metrics.json"])
def test_a_damaged_file_of_a_run_is_one_line(name, tmp_path, rng):
    runs, _ = made(tmp_path, rng)
    path = runs[1].folder / name
    content = path.read_bytes()
    at = content.index(b"0.1" if name == "metrics.json" else b"\x3f") + 1  # a figure
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(UserError, match=rf"{path.parent.name}/{name} (is damaged|cannot be read)"):
        results.collect(runs, ("test", "validation"), {"layers": 1}, tmp_path / "none.json")


def test_what_is_not_finished_is_left_out(tmp_path, rng):
    runs, _ = made(tmp_path, rng, leave=1)
    found = results.collect(runs, ("test", "validation"), {"layers": 1}, tmp_path / "none.json")
    assert (found["runs"], found["finished"]) == (4, 3)
    assert [len(row["runs"]) for row in found["configurations"]] == [2, 1]
    assert found["configurations"][1]["test"]["ndcg@100"]["stderr"] is None
    output.write(found, tmp_path, {"runs/x": "it fell"})
    assert "- runs/x: it fell" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changed", "finished"),
    [
        ({"epochs": 7}, False),
        ({"item_path_discount": "validation"}, False),
        ({"ease_l2": "7"}, True),
        ({"data": "x"}, True),
    ],
)
def test_a_run_is_finished_for_settings_of_the_same_figures(tmp_path, rng, changed, finished):
    run = made(tmp_path, rng)[0][0]
    assert run.seconds() == 1.0
    other = SweepRun(run.point, run.settings.replaced(**changed))
    assert other.seconds() == (1.0 if finished else None)  # the sweep itself compares data and baselines


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return synthetic_events(tmp_path_factory.mktemp("data"))


def sweep(log, folder, *more: str) -> list[str]:
    """The arguments of `python -m trainers.sweep`: two configurations with one seed."""
    tiny = ["--hidden_dim=16", "--latent_dim=6", "--pseudo_inputs=5", "--batch_size=32", "--ease_l2=50"]
    flagfile = ROOT / "trainers" / "flags" / "baseline.flags"
    return ["--plan=grid", f"--flagfile={flagfile}", f"--data={log}", f"--sweep_dir={folder}",
            "--vary=latent=flat,hierarchical", "--seeds=1", "--epochs=4", *tiny, *more]  # fmt: skip


def folders(sweep_dir):
    """Those of its runs."""
    return [sweep_dir / "runs" / f"latent={latent}" / "seed=0" for latent in ("flat", "hierarchical")]


def labels(baselines):
    """Of all but item-kNN, whose best settings depend on the data."""
    return [baseline["label"] for baseline in baselines if baseline["name"] != "item_knn"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture(scope="module")
def killed(log, tmp_path_factory):
    """A sweep that was killed in its second run, and the processes of its runs."""
    folder = tmp_path_factory.mktemp("sweeps") / "killed"
    command = Started("trainers.sweep", *sweep(log, folder))
    while command.is_running() and not (folders(folder)[1] / "log.txt").exists():
        time.sleep(0.02)
    workers: list[int] = []
    while command.is_running() and not workers:  # the log is there before the process is
        children = (thread / "children" for thread in Path(f"/proc/{command.pid}/task").iterdir())
        workers = [int(pid) for file in children for pid in file.read_text().split()]
    command.send_signal(signal.SIGKILL)
    command.ended()
    return folder, workers


def test_killed_and_started_again_it_repeats_nothing_and_ends(killed, log):
    folder, workers = killed
    first, second = folders(folder)
    assert workers
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, workers))
    assert not (second / FINISHED).exists()
    before = (first / FINISHED).stat().st_mtime_ns
    log.rename(log.with_suffix(".away"))  # the data is not read again
    try:
        result = process("trainers.sweep", *sweep(log, folder))
    finally:
        log.with_suffix(".away").rename(log)
    assert (result.status, result.stderr) == (0, "")
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
        assert labels(main["baselines"]) == ["popularity", "EASE, λ 50"]
        for name in SHARED:
            assert os.path.samefile(workdir / name, folder / name)


def test_a_run_that_fails_is_named_and_the_others_go_on_with_the_baselines_of_today(killed, log, tmp_path):
    shutil.copytree(killed[0], tmp_path / "sweep")
    first, second = folders(tmp_path / "sweep")
    for workdir in (first, second):  # so that two are to be made, whatever another test has done here
        (workdir / FINISHED).unlink(missing_ok=True)
    (first / "checkpoint.npz").write_bytes(b"nonsense")
    result = process("trainers.sweep", *sweep(log, tmp_path / "sweep", "--jobs=2", "--ease_l2=90"))
    message = mistake(result, f"1 of 2 runs failed, the first in {first}: ", "checkpoint.npz is damaged")
    assert message.endswith("The same command tries them again.\n")
    assert (second / FINISHED).exists()
    found = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert [row["settings"] for row in found["configurations"]] == [{"latent": "hierarchical"}]
    assert list(found["failed"]) == [str(first)]
    # The first start had --ease_l2=50.
    assert [name for name in found["baselines"] if not name.startswith("item-kNN")] == ["popularity", "EASE, λ 90"]
    assert labels(json.loads((second / "metrics.json").read_text())["baselines"]) == ["popularity", "EASE, λ 90"]
    now = Settings.of(ease_l2="90").evaluation
    assert labels(Workdir(tmp_path / "sweep").read_baselines(now)) == ["popularity", "EASE, λ 90"]
    assert Workdir(tmp_path / "sweep").read_baselines(Settings.of(ease_l2="90", ease_max_items=1).evaluation) is None


class FakeWorker:
    """Stands for the process of a run: it ends when as many as the test expects have been under way, or when stopped.

    The first one ends at once where `first_ends` is set.
    """

    lock = threading.Condition()
    under_way: list["FakeWorker"]
    begun: list["FakeWorker"]
    stopped: list["FakeWorker"]
    jobs: int
    most: int
    first_ends: bool

    def __init__(self, task, settings, *_):
        self.folder = Path(settings.run.workdir)
        self.is_running = False

    def complete(self):
        with self.lock:
            self.under_way.append(self)
            self.begun.append(self)
            FakeWorker.most = max(self.most, len(self.under_way))
            self.lock.notify_all()
            if not (self.first_ends and self.begun[0] is self):
                is_over = self.lock.wait_for(
                    lambda: self in self.stopped or (self.most >= self.jobs and not self.first_ends), timeout=20
                )
                assert is_over
        time.sleep(0.02)  # one too many would come now
        with self.lock:
            self.under_way.remove(self)
            if self not in self.stopped:
                (self.folder / "done").write_text("")
        return ""

    def stop(self):
        with self.lock:
            self.stopped.append(self)
            self.lock.notify_all()


@pytest.fixture
def imagined(monkeypatch, tmp_path):
    """Six runs whose processes are fake."""
    FakeWorker.under_way, FakeWorker.begun, FakeWorker.stopped = [], [], []
    FakeWorker.most, FakeWorker.jobs, FakeWorker.first_ends = 0, 1, False
    monkeypatch.setattr(scheduling, "Worker", FakeWorker)
    monkeypatch.setattr(SweepRun, "seconds", lambda run: 2.0 if (run.folder / "done").exists() else None)
    for name in SHARED:
        (tmp_path / name).write_text("of all runs")
    points = plans.expand("grid", Settings(), [], ["layers=1,2,3"], [])
    return all_runs(points, range(2), tmp_path)


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_as_many_runs_as_jobs_are_under_way(imagined, tmp_path, jobs):
    FakeWorker.jobs = jobs
    lines, after = [], []
    failed = scheduling.carry_out(imagined, tmp_path, "weights", jobs, 0, lines.append, lambda: after.append(1))
    assert failed == {}
    assert FakeWorker.most == jobs
    assert len(after) == len(lines) == 6
    assert [run.seconds() for run in imagined] == [2.0] * 6
    assert scheduling.carry_out(imagined, tmp_path, "weights", jobs, 0, lines.append, lambda: after.append(1)) == {}
    assert len(FakeWorker.begun) == 6  # what is finished is not run again


def test_an_interrupt_stops_all_runs_under_way_and_starts_no_other(imagined, tmp_path):
    FakeWorker.first_ends = True

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scheduling.carry_out(imagined, tmp_path, "weights", 3, 0, lambda line: None, interrupt)
    assert FakeWorker.under_way == []
    assert len(FakeWorker.begun) <= 4
    assert set(FakeWorker.begun[1:]) <= set(FakeWorker.stopped)
    assert [run.seconds() for run in imagined].count(2.0) == 1


def test_a_process_that_is_stopped_before_it_starts_ends_at_once(tmp_path):
    with files.locked(tmp_path / "sweep", "") as lock:
        worker = scheduling.Worker("run", Settings.of(workdir=str(tmp_path)), "all", lock)
        worker.stop()
        assert worker.complete() == "it ended with status 3"
    assert not worker.is_running
    assert not (tmp_path / "split.npz").exists()


def test_mistakes_are_one_line(killed, log, tmp_path):
    old = folders(tmp_path / "old")[1]
    old.mkdir(parents=True)
    (old / "config.json").write_text('{"latent": "hierarchical"}')  # without a version, as version 0.1 wrote it
    for folder, more, message in (
        ("x", ["--seeds=0"], "seeds"),
        ("x", ["--data=nowhere.csv"], "nowhere.csv"),
        ("x", ["--reference=layers=9"], "no configuration of the sweep"),
        ("x", ["--vary=kl=analytic,sample"], "Contradictory flags"),
        (killed[0], ["--beta_cap=.7"], "--beta_cap=0.2 there, --beta_cap=0.7 here"),
        (killed[0], ["--split_seed=7"], "--split_seed=98765 there, --split_seed=7 here"),
        ("old", [], f"The run in {old} was trained by vae_cf_tf 0.1"),
        ("x", ["--vary=lerning_rate=.1,.2"], "Did you mean learning_rate?"),
        ("x", ["--lerning_rate=.1"], "Did you mean --learning_rate?"),
    ):
        mistake(here("trainers.sweep", *sweep(log, tmp_path / folder, *more)), message)
    assert not (tmp_path / "x").exists()
