"""A run that starts from an earlier one: weights by item id, β, resuming, and users who stay held out."""

import collections
import csv
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf
from conftest import FLAGFILES, ROOT, built, small
from test_extension import NegativeBinomial
from typed import here, mistake

from export.savedmodel import facts_of_run
from trainers import claim
from trainers import train as training
from vae_cf_tf.data import assignment
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.split import HeldOut, Split, split
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.models import tree
from vae_cf_tf.models.schedules import KLAnnealing
from vae_cf_tf.registries import LIKELIHOODS
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import silent
from vae_cf_tf.settings import Settings, SplitSettings
from vae_cf_tf.training import transfer

EVCF = ROOT / "trainers" / "flags" / "evcf.flags"
SETTINGS = {path.stem: small(path) for path in FLAGFILES} | {
    "one layer, z2 beside the items": small(EVCF, layers=1),
    "two numbers an item": small(EVCF, likelihood="gaussian"),  # of NegativeBinomial, see `models`
    "sampled hierarchy": small(EVCF, softmax_samples=5, prior="user_vamp", block="tanh"),
    "pseudo-inputs from users": small(EVCF, pseudo_init="users", pseudo_inputs=30),
}
BEFORE = [f"i{n}" for n in range(40)]
NOW = ["new1", *(f"i{n}" for n in range(38, 3, -1)), "new2", "alone"]  # another order; i0 to i3 and i39 are gone
KEPT = [item for item in NOW if item in BEFORE]
TINY = {"hidden_dim": 16, "latent_dim": 6, "pseudo_inputs": 5, "batch_size": 32, "ease_l2": "50", "epochs": 5,
        "block": "tanh"}  # fmt: skip


def users(count: int, items: list[str], seed: int) -> sp.csr_matrix:
    """Random histories; no user of "alone" has anything else."""
    dense = np.random.default_rng(seed).random((count, len(items))) < 0.2
    if "alone" in items:
        dense[:, items.index("alone")] = False
        dense[0] = [item == "alone" for item in items]
    return sp.csr_matrix(dense.astype(np.float32))


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda name: name.replace(" ", "_"))
def models(request, tmp_path_factory):
    """A model of the earlier catalogue with random weights, and one of today's that was started from it."""
    settings = SETTINGS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "two numbers an item":
            patch.setitem(LIKELIHOODS._parts, "gaussian", NegativeBinomial)
        train_before, train = users(20, BEFORE, 1), users(50, NOW, 2)
        before, now = built(settings, len(BEFORE), train_before), built(settings.replaced(seed=9), len(NOW), train)
        rng = np.random.default_rng(3)
        for variable in tree.variables(before).values():
            variable.assign(rng.normal(0.1, 0.3, variable.shape))
        workdir = Workdir(tmp_path_factory.mktemp("earlier"))
        checkpoints.save(workdir.best, tree.variables(before), {"epoch": 1})
        held_out = HeldOut(train_before, train_before)
        Split(train_before, held_out, held_out, BEFORE, {}).save(workdir.path)
        start = {name: variable.numpy().copy() for name, variable in tree.variables(now).items()}
        found = transfer.start_from(now, workdir, checkpoints.digest(workdir.best), NOW, train)
        assert [NOW[column] for column in found.kept] == KEPT
        yield before, now, train, start


def histories(items: list[str]) -> tf.RaggedTensor:
    """Some histories of items that stay, in the columns of a catalogue."""
    rng = np.random.default_rng(4)
    rows = [[items.index(KEPT[i]) for i in rng.choice(len(KEPT), size, replace=False)] for size in (1, 3, 9, 20)]
    return tf.ragged.constant(rows, tf.int32, row_splits_dtype=tf.int32)


def test_items_that_stay_are_answered_as_before(models):
    before, now, *_ = models
    columns = [[items.index(item) for item in KEPT] for items in (BEFORE, NOW)]
    scores = [
        m.scores(histories(i)).numpy()[:, c] for m, i, c in zip((before, now), (BEFORE, NOW), columns, strict=True)
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(before.embed(histories(BEFORE)), now.embed(histories(NOW)), rtol=1e-4, atol=1e-5)


def neighbours_of(item: str, train: sp.csr_matrix) -> dict[str, float]:
    """The 20 items that stay whose users are most like the item's, with their shares; the definition, user by user."""
    users_of = {i: set(np.flatnonzero(train[:, NOW.index(i)].toarray())) for i in NOW}
    cosine = {
        i: len(users_of[i] & users_of[item]) / (len(users_of[i]) * len(users_of[item])) ** 0.5
        for i in KEPT
        if users_of[i] & users_of[item]
    }
    nearest = sorted(cosine, key=cosine.get, reverse=True)[:20]
    return {i: cosine[i] / sum(cosine[j] for j in nearest) for i in nearest}


def test_a_new_item_is_the_mean_of_its_neighbours(models):
    """The output layer is linear, so that the item's f is the mean of theirs."""
    before, now, train, _ = models
    f = [m.decode(*m.latent(histories(i))).numpy() for m, i in ((before, BEFORE), (now, NOW))]
    f_before, f_now = (a.reshape(len(a), -1, len(items)) for a, items in zip(f, (BEFORE, NOW), strict=True))
    for item in ("new1", "new2"):
        shares = neighbours_of(item, train)
        expected = sum(share * f_before[..., BEFORE.index(i)] for i, share in shares.items())
        assert len(shares) == 20
        np.testing.assert_allclose(f_now[..., NOW.index(item)], expected, rtol=1e-4, atol=1e-4)


def test_an_item_without_neighbours_and_components_without_forerunners_keep_their_start(models):
    before, now, train, start = models
    assert not neighbours_of("alone", train)
    values = {name: variable.numpy().copy() for name, variable in tree.variables(now).items()}
    for name, variable in tree.variables(before).items():
        if variable.shape[-1:] == (len(BEFORE),):  # output biases and kernels, pseudo-inputs
            np.testing.assert_array_equal(values[name][..., NOW.index("alone")], start[name][..., NOW.index("alone")])
    if now.components > before.components:
        extra = values["prior/pseudo_inputs"][before.components :]
        np.testing.assert_array_equal(extra, start["prior/pseudo_inputs"][before.components :])
        assert before.components == 20


def test_pseudo_inputs_move_with_their_items(models):
    before, now, *_ = models
    if "prior/pseudo_inputs" in tree.variables(now) and now.settings.prior == "vamp":
        old, new = (m.prior.pseudo_inputs.numpy() for m in (before, now))
        for item in KEPT:
            np.testing.assert_array_equal(new[: len(old), NOW.index(item)], old[:, BEFORE.index(item)])


def go(settings: Settings, say=silent) -> None:
    """The part of the main job that a warm start is in: reading the data and training."""
    workdir = Workdir(settings.run.workdir)
    with workdir.locked():
        training.train(settings, workdir, claim.prepared_split(settings, workdir, frozenset(), say), say)


def log(path: Path, users: int) -> Path:
    """A log that has grown to so many of its users, and to eleven items for every twenty of them."""
    whole = synthetic_log(users=240, items=130, communities=4, mean_items=15)
    events = [(u, i) for u, i in zip(whole.users, whole.items, strict=True) if u < users and 20 * i < 11 * users]
    rows = [f"{whole.user_ids[u]},{whole.item_ids[i]}" for u, i in events]
    path.write_text("user_id,item_id\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def monday(tmp_path_factory) -> Settings:
    """A finished run of a small log."""
    folder = tmp_path_factory.mktemp("week")
    data = log(folder / "monday.csv", 200)
    chosen = {"user_draws": "hashed", "beta_warmup": 30, "initial_items": "random"}  # a start that is really cold
    settings = Settings.of(data=str(data), workdir=str(folder / "monday"), **chosen, **TINY)
    go(settings)
    return settings


@pytest.fixture
def tuesday(monday, tmp_path) -> Settings:
    """A run to start from a copy of it, on the log as it has grown."""
    shutil.copytree(monday.run.workdir, tmp_path / "monday")
    data = log(tmp_path / "tuesday.csv", 240)
    return monday.replaced(data=str(data), workdir=str(tmp_path / "tuesday"), warm_start=str(tmp_path / "monday"))


def rows(settings: Settings) -> list[dict]:
    with open(Path(settings.run.workdir, "history.csv")) as f:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(f)]


def test_a_warm_run_is_ahead_goes_on_with_beta_and_resumes_exactly(monday, tuesday, tmp_path):
    lines: list[str] = []
    go(tuesday, lines.append)
    (told,) = (line for line in lines if line.startswith("Warm start"))
    ids = [Workdir(s.run.workdir).split().item_ids for s in (monday, tuesday)]
    stay, new, gone = len(set(ids[0]) & set(ids[1])), len(set(ids[1]) - set(ids[0])), len(set(ids[0]) - set(ids[1]))
    assert told.endswith(f": {stay} items stay, {new} are new, {gone} are gone.")
    assert not any("too good" in line for line in lines)

    best = checkpoints.read_meta(Path(monday.run.workdir, "best.npz"))["epoch"]
    betas = [row["beta"] for row in rows(tuesday)]
    np.testing.assert_allclose(betas, [tuesday.training.beta_cap * (best + n) / 30 for n in range(1, 6)], rtol=1e-5)
    assert rows(tuesday)[0]["val_ndcg@100"] > rows(monday)[0]["val_ndcg@100"] + 0.05

    # In two parts, and without the earlier run in the second: the same figures.
    parts = tuesday.replaced(workdir=str(tmp_path / "parts"))
    go(parts.replaced(epochs=2))
    shutil.rmtree(tmp_path / "monday")
    go(parts)
    assert rows(parts) == rows(tuesday)
    assert str(tmp_path) not in json.dumps(facts_of_run(parts, Workdir(parts.run.workdir).split(), "", 1, None))


def flags(settings: Settings, **changed) -> list[str]:
    different = {n: v for n, v in settings.replaced(**changed).flat().items() if v != Settings()[n]}
    return [f"--{name}={value}" for name, value in different.items()]


def test_mistakes_are_a_line(tuesday, tmp_path):
    earlier, w = Path(tuesday.training.warm_start), tuesday.run.workdir
    told = mistake(here("trainers.main", *flags(tuesday, latent_dim=7, prior="vamp", initializer="he")))
    assert (
        "another architecture: --prior=user_vamp there, --prior=vamp here; --latent_dim=6 there, --latent_dim=7" in told
    )
    assert "initializer" not in told
    mistake(here("trainers.main", *flags(tuesday, warm_start=w)), "--warm_start and --workdir are both")
    mistake(here("trainers.main", *flags(tuesday, warm_start=str(tmp_path / "nothing"))), "is not the workdir of a run")
    assert not Path(w).exists()

    go(tuesday.replaced(epochs=1))
    mistake(here("trainers.main", *flags(tuesday, warm_start="")), f"--warm_start={earlier} there, --warm_start= here")
    moved = earlier.rename(tmp_path / "moved")  # elsewhere, but the same weights
    assert here("trainers.main", *flags(tuesday, epochs=1, warm_start=str(moved))).status == 0
    meta = checkpoints.read_meta(moved / "best.npz")
    checkpoints.save(moved / "best.npz", {}, meta)
    mistake(
        here("trainers.main", *flags(tuesday, warm_start=str(moved))), "did not start from the weights", "--workdir"
    )
    shutil.rmtree(moved)
    shutil.copytree(tuesday.run.workdir, earlier)
    (earlier / "best.npz").unlink()
    other = flags(tuesday, workdir=str(tmp_path / "other"))
    mistake(here("trainers.main", *other), "has no finished epoch", "best.npz")
    Path(w, "warm_start.json").write_text("{}")
    mistake(here("trainers.main", *flags(tuesday)), "warm_start.json is damaged")


def test_another_id_space_is_a_line(tmp_path):
    settings, train = small(EVCF), users(20, BEFORE, 1)
    model = built(settings, len(BEFORE), train)
    workdir = Workdir(tmp_path)
    checkpoints.save(workdir.best, tree.variables(model), {"epoch": 1})
    Split(train, HeldOut(train, train), HeldOut(train, train), BEFORE, {}).save(tmp_path)
    others = [f"sku {item}" for item in BEFORE]
    with pytest.raises(UserError, match=r"no item in common .* first is 'i0', here 'sku i0'"):
        transfer.start_from(model, workdir, checkpoints.digest(workdir.best), others, train)


def test_users_who_may_have_been_learned_from_are_told(tuesday):
    lines: list[str] = []
    go(tuesday.replaced(user_draws="permuted", epochs=1), lines.append)
    assert any("may have learned from users who are held out here" in line for line in lines)


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_beta_goes_on_after_the_epochs_before(unit):
    schedule = KLAnnealing(0.5, 40, unit, steps_per_epoch=8)
    later = dataclasses.replace(schedule, epochs_before=3)
    steps = range(100)
    assert [float(later(tf.constant(s))) for s in steps] == [float(schedule(tf.constant(s + 24))) for s in steps]
    assert later.warmup_epochs == {"epoch": 37, "step": 2}[unit]
    assert dataclasses.replace(schedule, epochs_before=90).warmup_epochs == 0


def parts_of(user_ids: list[str], seed: int = 7) -> dict[str, set[str]]:
    found = assignment.by_hash(np.arange(len(user_ids)), np.array(user_ids, object), seed)
    return dict(zip(("train", "validation", "test"), ({user_ids[u] for u in part} for part in found), strict=True))


def test_hashed_users_keep_their_part_as_the_log_grows(monkeypatch):
    ids = [f"user {n}" for n in range(3000)]
    few, many, other = parts_of(ids[::-3]), parts_of(ids), parts_of(ids, seed=8)
    for name, part in few.items():
        assert part == many[name] & set(ids[::-3])
    assert 230 < len(many["validation"]) < 370
    assert 230 < len(many["test"]) < 370
    assert many["test"] != other["test"]
    number = int.from_bytes(hashlib.blake2b(b"user 5", digest_size=6, key=b"7").digest(), "big") / 2**48
    part = "test" if number < 0.1 else "validation" if number >= 0.9 else "train"
    assert "user 5" in many[part]
    monkeypatch.setattr(assignment, "_MOST", 200)  # the share is halved: nobody is held out anew
    halved = parts_of(ids)
    assert halved["test"] < many["test"]
    assert halved["validation"] < many["validation"]
    assert 100 < len(halved["test"]) < 200


def test_the_split_holds_out_the_hashed_users():
    whole = synthetic_log(users=300, items=130, communities=4, mean_items=15)
    made = split(
        Interactions(whole.users, whole.items, whole.user_ids, whole.item_ids), SplitSettings(user_draws="hashed")
    )
    sizes = [m.shape[0] for m in (made.train, made.validation.fold_in, made.test.fold_in)]
    active = [u for u, n in collections.Counter(whole.users.tolist()).items() if n >= 5]
    parts = parts_of([str(whole.user_ids[u]) for u in active], seed=SplitSettings().split_seed)
    assert sizes == [len(parts[name]) for name in ("train", "validation", "test")]


def test_hashed_users_and_a_number_of_them_contradict(tmp_path):
    typed = here("trainers.main", "--user_draws=hashed", "--heldout_users=9", f"--workdir={tmp_path / 'w'}")
    mistake(typed, "Contradictory flags", "--heldout_users")
