"""Turns step by step, and the average of the weights: against plain NumPy, and through killed and resumed runs."""

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, checkerboard, compiled, small

from trainers import train as training
from vae_cf_tf.data.split import Split, split
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.models import batches, tree
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import silent
from vae_cf_tf.settings import Settings, SplitSettings
from vae_cf_tf.training.averaging import EVERY, AverageWeights
from vae_cf_tf.training.callbacks import StopOnNaN

EVCF = ROOT / "trainers" / "flags" / "evcf.flags"


def weights_of(model) -> dict[str, np.ndarray]:
    return {name: v.numpy().copy() for name, v in tree.variables(model).items() if v.trainable}


def test_the_turn_of_the_decoder_comes_after_every_so_many_steps():
    train, _ = checkerboard()
    model = compiled(small(EVCF, encoder_passes=2, turns="step"), train)
    stream, is_decoders = iter(batches.shuffled(train, 10, seed=0)), []
    for _ in range(7):
        before = weights_of(model)
        model.train_step(next(stream))
        changed = {name for name, value in weights_of(model).items() if np.any(value != before[name])}
        is_decoders.append({name.startswith("decoder/") for name in changed})
    assert is_decoders == [{False}, {False}, {True}, {False}, {False}, {True}, {False}]


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_is_that_of_the_weights_after_every_fifth_step(decay):
    train, _ = checkerboard()
    model = compiled(small(EVCF), train)
    averages = AverageWeights(model, decay)
    stream, expected = iter(batches.shuffled(train, 10, seed=0)), {}
    for step in range(1, 3 * EVERY + 2):
        model.train_step(next(stream))
        averages.on_train_batch_end(step)
        if step % EVERY == 0:
            n = step // EVERY - 1
            d = min(decay**EVERY, n / (n + 9))
            now = weights_of(model)
            expected = {name: d * expected[name] + (1 - d) * value if n else value for name, value in now.items()}
    raw = weights_of(model)
    with averages.in_place():
        for name, value in weights_of(model).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7)
            assert np.any(value != raw[name]), name
    for name, value in weights_of(model).items():
        np.testing.assert_array_equal(value, raw[name])
    assert set(averages.variables) == {f"average/{name}" for name in raw}


class Killed(BaseException):
    pass


def trained(settings: Settings, folder: Path, data: Split, monkeypatch, steps: int = 0) -> list[dict]:
    """Trains in the folder, up to so many steps of this process, and returns history.csv without times."""

    class Kill(StopOnNaN):
        left = steps

        def on_train_batch_end(self, batch, logs=None):
            self.left -= 1
            if not self.left:
                raise Killed

    monkeypatch.setattr(training, "StopOnNaN", Kill)
    training.train(settings, Workdir(folder), data, silent, verbose=0)
    with open(folder / "history.csv") as f:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(f)]


@pytest.mark.slow
def test_a_killed_run_with_averages_ends_as_if_never_stopped(tmp_path, monkeypatch):
    log = synthetic_log(users=160, items=130, communities=4, mean_items=15)
    data = split(log, SplitSettings(heldout_users=16), silent)
    base = small(ROOT / "vamp.flags", batch_size=32, turns="step", epochs=4, checkpoint_seconds=0)
    assert batches.steps_per_pass(data.train, 32) == 4  # 16 steps an epoch
    folders = {name: tmp_path / name for name in ("alone", "killed", "raw")}
    for folder in folders.values():
        folder.mkdir()
    settings = base.replaced(average_weights=0.9)
    alone = trained(settings, folders["alone"], data, monkeypatch)
    for steps in (16 + 3, 7):  # in the second epoch, and in the second epoch again
        with pytest.raises(Killed):
            trained(settings, folders["killed"], data, monkeypatch, steps)
    assert trained(settings, folders["killed"], data, monkeypatch) == alone
    digests = {checkpoints.digest(folders[name] / "best.npz") for name in ("alone", "killed")}
    assert len(digests) == 1
    raw = trained(base.replaced(average_weights=0.0), folders["raw"], data, monkeypatch)
    losses = [[row["loss"] for row in rows] for rows in (alone, raw)]
    assert losses[0] == losses[1]  # the average has no part in training
    assert [row["val_nll"] for row in alone] != [row["val_nll"] for row in raw]
