"""Training from the shards of a prepared data set: order, equality with memory, and what is left out."""

import contextlib
import csv
import json
import math
import shutil

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import PLAIN_FLAGS, ROOT, small
from typed import here, mistake

from trainers import train as training
from vae_cf_tf.data import prepared
from vae_cf_tf.data.prepared import Prepared, finish, write_split
from vae_cf_tf.data.shards import BUFFER, ShardedSplit, Shards
from vae_cf_tf.data.split import split
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import read_json, sha256
from vae_cf_tf.models import batches
from vae_cf_tf.models.build import random_users
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import SplitSettings
from vae_cf_tf.training import callbacks
from vae_cf_tf.training.compiling import log_inclusion

SHARD_USERS = 17


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared data set of 260 training users in shards of 17."""
    made = split(synthetic_log(users=320, items=130, communities=4, mean_items=20), SplitSettings(heldout_users=30))
    path = tmp_path_factory.mktemp("prepared")
    write_split(made, path, SHARD_USERS)
    finish(path, {}, made.about, SHARD_USERS, "a test")
    return path


def dense(matrices):
    return np.vstack([matrix.toarray() for matrix in matrices])


@pytest.mark.parametrize("batch_size", [1, 10, 17, 100, 1000])
def test_a_pass_has_every_user_once_in_batches_of_one_size(folder, batch_size):
    shards, memory = Shards(Prepared(folder)), Prepared(folder).split().train
    made = list(shards.batches(batch_size, seed=3, number=0))
    sizes = [batch.shape[0] for batch in made]
    assert len(sizes) == batches.steps_per_pass(shards, batch_size) == batches.steps_per_pass(memory, batch_size)
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert sorted(map(bytes, dense(made))) == sorted(map(bytes, memory.toarray()))


def test_the_order_is_a_function_of_seed_and_pass(folder):
    shards = Shards(Prepared(folder))
    orders = {key: dense(shards.batches(10, *key)) for key in [(3, 0), (3, 1), (4, 0)]}
    np.testing.assert_array_equal(dense(Shards(Prepared(folder)).batches(10, 3, 1)), orders[3, 1])
    assert (orders[3, 0] != orders[3, 1]).any()
    assert (orders[3, 0] != orders[4, 0]).any()
    # A resumed run begins with a later pass, and sees what the whole run saw there.
    stream = iter(batches.shuffled(shards, 10, 3, first_pass=1))
    first = dense(shards.batches(10, 3, 1))[:10]
    assert next(stream).to_list() == [np.flatnonzero(row).tolist() for row in first]
    # So does one that begins within a pass, and the next pass is whole.
    stream = iter(batches.shuffled(shards, 10, 3, first_pass=0, first_step=24))
    for expected in [*list(shards.batches(10, 3, 0))[24:], *shards.batches(10, 3, 1)]:
        assert next(stream).to_list() == batches.ragged(expected).to_list()


def test_no_more_than_a_buffer_of_shards_is_in_memory(folder, monkeypatch):
    read, matrix = [], Prepared.matrix
    monkeypatch.setattr(
        Prepared, "matrix", lambda self, shards, *a: read.append(len(shards)) or matrix(self, shards, *a)
    )
    shards = Shards(Prepared(folder))
    assert read == []
    for _ in shards.batches(10, 0, 0):
        pass
    assert max(read) == BUFFER
    assert sum(read) == -(-260 // SHARD_USERS)


def test_a_shard_is_compared_with_its_checksum_once_and_damage_is_named(folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "p")
    shards = Shards(Prepared(copy))
    victim = copy / "train" / "part-00003.parquet"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    victim.write_bytes(content)
    with pytest.raises(UserError, match=r"part-00003\.parquet is damaged"):
        list(shards.batches(50, 1, 0))
    with pytest.raises(UserError, match=r"part-00003\.parquet is damaged"):
        _ = shards[np.arange(3 * SHARD_USERS, 3 * SHARD_USERS + 2)]
    hashed = []
    monkeypatch.setattr(prepared, "sha256", lambda path: hashed.append(path) or sha256(path))
    whole = Shards(Prepared(folder))
    for number in (0, 1):
        list(whole.batches(50, 1, number))
    assert len(hashed) == len(set(hashed)) == -(-260 // SHARD_USERS)
    (copy / "test" / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"test/part-00000\.parquet is damaged"):
        ShardedSplit.of(Prepared(copy))


def test_the_manifest_and_the_reference_to_it_notice_a_changed_byte(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "p")
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace('"shard_users": 17', '"shard_users": 13'))
    with pytest.raises(UserError, match=r"manifest\.json is damaged .*checksum"):
        Prepared(copy)
    ShardedSplit.of(Prepared(folder)).save(tmp_path)
    reference = (tmp_path / "prepared.json").read_text()
    (tmp_path / "prepared.json").write_text(reference.replace('fingerprint": "', 'fingerprint": "0'))
    with pytest.raises(UserError, match=r"prepared\.json is damaged .*checksum"):
        Workdir(tmp_path).split()


def test_what_training_asks_of_users_equals_that_of_the_matrix(folder):
    sharded, memory = ShardedSplit.of(Prepared(folder)), Prepared(folder).split()
    assert sharded.fingerprint() == memory.fingerprint()
    assert (sharded.train.shape, sharded.train.nnz) == (memory.train.shape, memory.train.nnz)
    ours, theirs = (random_users(data.train, 40, seed=5) for data in (sharded, memory))
    assert sp.issparse(ours)
    np.testing.assert_array_equal(ours.toarray(), theirs.toarray())
    np.testing.assert_array_equal(*(log_inclusion(data.train, 10, 7) for data in (sharded, memory)))


TINY = (
    *PLAIN_FLAGS,
    "--hidden_dim=16",
    "--latent_dim=6",
    "--batch_size=32",
    "--epochs=3",
    "--learning_rate=0.01",
)


@pytest.mark.slow
def test_training_from_shards(folder, tmp_path):
    command = [f"--data={folder}", *TINY, "--train_from=shards", "--item_path=none"]
    mistake(
        here("trainers.main", *command[:-1], f"--workdir={tmp_path / 'w'}", "--item_path=linear"), "--item_path=none"
    )
    results = {}
    for name, more in {"shards": (), "memory": ("--train_from=memory",)}.items():
        result = here("trainers.main", *command, *more, f"--workdir={tmp_path / name}")
        assert result.status == 0, result.stderr
        results[name] = result.stdout, json.loads((tmp_path / name / "metrics.json").read_text())
    told, metrics = results["shards"]
    assert "ease is left out: it needs all training users in memory" in told
    assert not (tmp_path / "shards" / "split.npz").exists()
    assert [baseline["name"] for baseline in metrics["baselines"]] == ["popularity"]
    assert metrics["baselines"][0]["test"] == results["memory"][1]["baselines"][0]["test"]
    assert metrics["data_fingerprint"] == results["memory"][1]["data_fingerprint"]
    assert metrics["test"]["ndcg@100"]["mean"] > 0.1
    assert (tmp_path / "shards" / "export" / "1" / "saved_model.pb").exists()
    # The same command finds the finished run, and the run its data.
    again = here("trainers.main", *command, f"--workdir={tmp_path / 'shards'}")
    assert again.status == 0, again.stderr
    assert "Trained already: 3 epochs." in again.stdout
    assert Workdir(tmp_path / "shards").split().fingerprint() == metrics["data_fingerprint"]
    mistake(here("trainers.report", f"--workdir={tmp_path / 'shards'}"), "--train_from=shards")
    mistake(
        here("trainers.main", "--train_from=shards", f"--workdir={tmp_path / 'x'}"),
        "needs a data set of trainers.prepare",
    )


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


@pytest.mark.parametrize("source", ["shards", pytest.param("memory", marks=pytest.mark.slow)])
def test_a_run_killed_within_an_epoch_ends_as_if_never_stopped(source, folder, tmp_path, monkeypatch):
    """With all that an epoch's start sets: users of the prior, the encoder of the epoch before, means of the epoch."""
    data = ShardedSplit.of(Prepared(folder)) if source == "shards" else Prepared(folder).split()
    parts = {"average_weights": 0.9, "initial_items": "random"}
    if source == "shards":  # the quick one
        parts |= {"latent": "flat", "block": "tanh"}
    settings = small(ROOT / "vamp.flags", batch_size=32, epochs=3, checkpoint_seconds=0, **parts)
    assert batches.steps_per_pass(data.train, 32) * settings.training.passes == 36  # steps of an epoch

    def trained(name, kill_at=math.inf):
        class Kill(callbacks.StopOnNaN):
            def on_train_batch_end(self, batch, logs=None):
                if int(self.model.optimizer.iterations.numpy()) == kill_at:
                    raise Killed

        told = []
        monkeypatch.setattr(training, "StopOnNaN", Kill)
        monkeypatch.setattr(callbacks, "WITHIN_EPOCH_SECONDS", 0 if kill_at < math.inf else math.inf)
        (tmp_path / name).mkdir(exist_ok=True)
        with contextlib.suppress(Killed):
            training.train(settings, Workdir(tmp_path / name), data, told.append, verbose=0)
        return [line for line in told if line.startswith("Resuming")]

    def rows(name):
        with open(tmp_path / name / "history.csv") as f:
            return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(f)]

    trained("alone")
    assert trained("killed", 20) == []  # in the first epoch, which has no best weights yet
    assert trained("killed", 36 + 15) == ["Resuming in epoch 1 after 19 steps."]
    assert rows("killed") == rows("alone")[:1]
    assert trained("killed") == ["Resuming in epoch 2 after 14 steps."]
    assert rows("killed") == rows("alone")
    digests = [checkpoints.digest(tmp_path / name / "best.npz") for name in ("alone", "killed")]
    assert digests[0] == digests[1]


def test_a_workdir_whose_data_set_is_gone_says_so(folder, tmp_path):
    ShardedSplit.of(Prepared(folder)).save(tmp_path)
    assert Workdir(tmp_path).split().train.shape == Prepared(folder).split().train.shape
    reference = read_json(tmp_path / "prepared.json")
    (tmp_path / "prepared.json").write_text(json.dumps(reference | {"fingerprint": "0"}))
    with pytest.raises(UserError, match="is not the data set that the run"):
        Workdir(tmp_path).split()
    (tmp_path / "prepared.json").write_text(json.dumps(reference | {"folder": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match=r"make the data set with trainers\.prepare"):
        Workdir(tmp_path).split()
