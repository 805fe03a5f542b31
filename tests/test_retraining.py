"""Retraining as a user types it: judged beside the newest version, published or held back, kept, and rolled back."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import PLAIN, ROOT, synthetic_events
from typed import Typed, here, mistake

from export import judging, versions
from trainers.main import train_and_evaluate
from vae_cf_tf.data.split import HeldOut
from vae_cf_tf.files import read_json
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import Settings

TINY = PLAIN | {"hidden_dim": 16, "latent_dim": 6, "batch_size": 32, "ease_l2": "50", "item_path": "none",
                "item_path_discount": "none", "learning_rate": 0.01}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Two runs on the same users: one has learned, and one has not."""
    folder = tmp_path_factory.mktemp("runs")
    data = str(synthetic_events(folder, users=400))
    for name, settings in {"good": {"epochs": 6}, "bad": {"epochs": 1, "learning_rate": 0.0}}.items():
        values = TINY | {"data": data, "workdir": str(folder / name), "user_draws": "hashed"} | settings
        train_and_evaluate(Settings.of(**values), say=lambda line: None)
    return {name: folder / name for name in ("good", "bad")}


def export(run: Path, models: Path, *flags: str) -> Typed:
    return here("export.main", f"--workdir={run}", f"--export_dir={models}", *flags)


def numbers(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir() if path.name != ".lock")


def difference(good: Path, bad: Path) -> float:
    """Of the two runs' test figures, as metrics.json has them."""
    means = [json.loads((run / "metrics.json").read_text())["test"]["ndcg@100"]["mean"] for run in (good, bad)]
    return means[0] - means[1]


def test_a_worse_model_is_held_back_and_a_better_one_published(runs, tmp_path):
    models, judged = tmp_path / "models", ("--if_better", "--keep_versions=2")
    first = export(runs["bad"], models, *judged)
    assert (first.status, first.stderr) == (0, "")
    assert first.stdout.startswith(f"{models} has no version to compare with.\n{models / '1'}\n")

    better = export(runs["good"], models, *judged)
    assert better.status == 0
    assert "Not worse than the newest version: NDCG@100 on" in better.stdout
    assert "may have learned" not in better.stdout
    assert f"difference {difference(runs['good'], runs['bad']):+.4f}, 95 % interval +" in better.stdout

    held_back = export(runs["bad"], models, *judged)
    assert (held_back.status, held_back.stderr, held_back.stdout.count("\n")) == (3, "", 1)
    assert held_back.stdout.startswith("Held back, worse than the newest version: NDCG@100 on")
    assert "that of version 2 " in held_back.stdout
    assert numbers(models) == ["1", "2"]

    left = models / ".unfinished-of-a-kill"
    left.mkdir()
    again = export(runs["good"], models, *judged)
    assert (again.status, again.stdout) == (0, f"{models / '2'} is this model already: nothing to do.\n")
    assert not left.exists()
    assert export(runs["good"], models, *judged, "--weights=bfloat16").status == 0  # the same weights, another version
    assert numbers(models) == ["2", "3"]

    path = models / "3" / "assets.extra" / "model_card.json"
    path.write_text(json.dumps(read_json(path)).replace('"hashed"', '"permuted"'))
    assert "may have learned from these users" in export(runs["bad"], models, *judged).stdout
    (models / "3" / "saved_model.pb").write_bytes(b"damaged")
    told = (f"{models / '3'} cannot be judged", "saved_model.pb is damaged", "leave --if_better out")
    mistake(export(runs["bad"], models, *judged), *told)
    # The same model is not "this model already" when a byte of it is another one.
    mistake(export(runs["good"], models, *judged, "--weights=bfloat16"), *told)
    path.unlink()  # without a card there are no checksums
    mistake(export(runs["bad"], models, *judged), f"{models / '3'} cannot be judged", "leave --if_better out")
    assert numbers(models) == ["2", "3"]


def test_each_version_is_judged_by_what_it_knows(runs, tmp_path):
    """NDCG@100 by its definition, user by user in raw ids. The other catalogue has items of its own, and lacks some."""
    assert export(runs["good"], tmp_path).status == 0
    version, data = tmp_path / "1", Workdir(runs["good"]).split()
    lines = version / "assets" / "item_ids.txt"
    assert lines.read_text().split() == data.item_ids
    item_ids = [f"other {n}" if n % 7 == 3 else item for n, item in enumerate(data.item_ids)][::-1] + ["more"]
    rng, size = np.random.default_rng(0), len(item_ids)
    matrices = [(rng.random((9, size)) < share).astype(np.float32) for share in (0.1, 0.05)]
    matrices[1][0] = 0  # no target: not judged
    matrices[0][1] = 0
    held_out = HeldOut(*(type(data.train)(m) for m in matrices))

    served = tf.saved_model.load(str(version))
    expected = []
    for fold_in, target in zip(*matrices, strict=True):
        history, wanted = ([item_ids[i] for i in np.flatnonzero(row)] for row in (fold_in, target))
        if not wanted:
            continue
        known = [item for item in history if item in data.item_ids]
        answer = served.signatures["serving_default"](history=tf.constant([known], tf.string, [1, len(known)]))
        order = np.argsort(-answer["scores"].numpy()[0], kind="stable")
        ranked = [data.item_ids[i] for i in order if data.item_ids[i] not in known][:100]
        dcg = sum(1 / math.log2(rank + 2) for rank, item in enumerate(ranked) if item in wanted)
        expected.append(dcg / sum(1 / math.log2(rank + 2) for rank in range(min(100, len(wanted)))))
    found = judging.ndcg(version, held_out, item_ids)
    assert len(found) == 8
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_only_versions_are_removed_and_never_the_newest(tmp_path):
    for name in ("1", "2", "10", "notes", ".unfinished-x"):
        (tmp_path / name / "variables").mkdir(parents=True)
    assert [path.name for path in versions.keep_newest(tmp_path, 2)] == ["1"]
    assert [path.name for path in versions.keep_newest(tmp_path, 0)] == ["2"]
    assert numbers(tmp_path) == [".unfinished-x", "10", "notes"]


def test_a_version_is_removed_in_one_piece(tmp_path, monkeypatch):
    """A process that is killed while it removes leaves no half of a version, and the next export removes the rest."""
    for name in ("1", "2"):
        (tmp_path / name / "variables").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(versions.shutil, "rmtree", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            versions.keep_newest(tmp_path, 1)
    assert [path.name for path in versions.of(tmp_path)] == ["2"]
    assert len(numbers(tmp_path)) == 2
    with versions.made_aside(tmp_path):
        pass
    assert numbers(tmp_path) == ["2"]


def nightly(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(ROOT / "examples" / "nightly.sh"), *map(str, arguments)]
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_nightly_script_retrains_publishes_and_rolls_back(tmp_path):
    log = synthetic_events(tmp_path, users=240)
    whole = log.read_text().splitlines(keepends=True)
    log.write_text("".join(whole[: len(whole) * 3 // 4]))
    flags = [f"--{name}={value}" for name, value in (TINY | {"epochs": 3, "ease_max_items": 0}).items()]
    arguments = (log, tmp_path / "runs", tmp_path / "models", *flags)
    first = nightly(*arguments, NIGHT="monday")
    assert (first.returncode, first.stderr) == (0, "")
    log.write_text("".join(whole))
    second = nightly(*arguments, NIGHT="tuesday")
    assert (second.returncode, second.stderr) == (0, "")
    monday, tuesday = (tmp_path / "runs" / night for night in ("monday", "tuesday"))
    assert f"Warm start from {monday}: " in second.stdout
    assert "Not worse than the newest version: " in second.stdout
    assert numbers(tmp_path / "models") == ["1", "2"]
    assert (tmp_path / "runs" / "published").read_text() == f"{monday}\n{tuesday}\n"
    assert nightly(*arguments, NIGHT="tuesday").stdout == f"{tuesday} is published already.\n"

    back = nightly("--rollback", tmp_path / "runs", tmp_path / "models")
    assert back.stdout == f"Took back {tmp_path / 'models' / '2'}. The next night starts from: {monday}\n", back.stderr
    assert numbers(tmp_path / "models") == ["1"]
    assert (tmp_path / "runs" / "published").read_text() == f"{monday}\n"
    mistake(nightly("--rollback", tmp_path / "runs", tmp_path / "runs"), "runs has no version")
    mistake(nightly(log), "usage: ")
