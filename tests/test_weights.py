"""Weights of items: from a log to the likelihood, against definitions in plain Python and NumPy."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from conftest import ROOT, compiled, small
from scipy import sparse
from test_time_split import make_log, write_log
from typed import mistake, process

from vae_cf_tf.data.formats import ReaderOptions, read
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.split import Split, split
from vae_cf_tf.errors import UserError
from vae_cf_tf.models import batches
from vae_cf_tf.models.likelihoods.base import Likelihood
from vae_cf_tf.models.likelihoods.multinomial import Multinomial
from vae_cf_tf.settings import Settings, SplitSettings


def test_weights_are_read(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating,plays\n1,2,3,7\n1,3,4,0\n2,3,5,2.5\n")
    assert read(str(path)).weights is None
    assert read(str(path), ReaderOptions(weight_column="plays")).weights.tolist() == [7, 0, 2.5]
    log = read(str(path), ReaderOptions(weight_column="rating"))  # a rating can be both
    assert log.weights.tolist() == log.ratings.tolist() == [3, 4, 5]
    for column in (pa.array([7, 0, 2]), pa.array(["7", " 0", "2"])):
        pq.write_table(pa.table({"user": [1, 1, 2], "item": [2, 3, 3], "plays": column}), tmp_path / "log.parquet")
        log = read(str(tmp_path / "log.parquet"), ReaderOptions(weight_column="plays"))
        assert log.weights.tolist() == [7, 0, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,7\n1,3,\n", "line 3: the weight is empty"),
        ("1,2,7\n1,3,-1\n", "line 3: the weight is '-1', below 0"),
        ("1,2,many\n", "line 2: the weight is 'many', not a number"),
    ],
)
def test_weights_that_are_refused(tmp_path, text, words):
    (tmp_path / "log.csv").write_text("user,item,plays\n" + text)
    with pytest.raises(UserError, match=words):
        read(str(tmp_path / "log.csv"), ReaderOptions(weight_column="plays"))
    with pytest.raises(UserError, match="--weight_column=user is the user or the item column"):
        read(str(tmp_path / "log.csv"), ReaderOptions(weight_column="user"))


def test_a_negative_weight_in_parquet(tmp_path):
    pq.write_table(pa.table({"user": [1, 1], "item": [2, 3], "plays": [1, -2]}), tmp_path / "log.parquet")
    with pytest.raises(UserError, match="row 2: the weight is -2, below 0"):
        read(str(tmp_path / "log.parquet"), ReaderOptions(weight_column="plays"))


@pytest.mark.parametrize("by", ["users", "time"])
@pytest.mark.parametrize(
    "values",
    [
        {"repeats": "sum"},
        {"weights": True},
        {"weights": True, "repeats": "sum", "weight_scale": "log", "weight_cap": 2.5},
        {"half_life_days": 0.001},
        {"weights": True, "repeats": "sum", "half_life_days": 0.002, "weight_cap": 4.0},
    ],
    ids=str,
)
def test_the_weight_of_a_pair_is_as_defined(by, values, tmp_path):
    log, values = make_log(7), dict(values)
    of_events = None
    if values.pop("weights", False):
        of_events = np.random.default_rng(0).integers(0, 6, len(log.users)).astype(np.float32) / 2
    users = {"heldout_users": 12} if by == "users" else {}
    settings = SplitSettings(split=by, **users, **values)
    log = Interactions(
        log.users, log.items, log.user_ids, log.item_ids, log.ratings, weights=of_events, times=log.times
    )
    made = split(log, settings)
    is_counted = (log.ratings >= 4) & (True if of_events is None else of_events > 0)
    counts = np.flatnonzero(is_counted)
    events = [(log.times[k], log.user_ids[log.users[k]], log.item_ids[log.items[k]],
               1.0 if of_events is None else float(of_events[k])) for k in counts.tolist()]  # fmt: skip
    known = set(made.item_ids)
    if by == "time":
        end = np.datetime64(made.about["training_ends"][:-1], "s").astype(np.int64)
        events = [e for e in events if e[0] < end]
    events = [e for e in events if e[2] in known]
    of_user = {}
    for _, user, item, _ in events:
        of_user.setdefault(user, set()).add(item)
    rows = [{made.item_ids[i] for i in made.train[r].indices} for r in range(made.train.shape[0])]
    users = [next(u for u, items in of_user.items() if items == row) for row in rows]
    events = [e for e in events if e[1] in set(users)]
    last, x = max(e[0] for e in events), {}
    for time, user, item, weight in events:
        if settings.half_life_days:
            weight *= max(2 ** (-(last - time) / 86_400 / settings.half_life_days), 1e-6)
        x.setdefault((user, item), []).append(weight)
    x = {pair: sum(w) if settings.repeats == "sum" else max(w) for pair, w in x.items()}
    if settings.weight_scale == "log":
        x = {pair: np.log2(1 + w) for pair, w in x.items()}
    x = {pair: min(w, settings.weight_cap or np.inf) for pair, w in x.items()}
    weighted = made.weighted_train()
    expected = [x[users[r], made.item_ids[i]] for r in range(len(users)) for i in weighted[r].indices]
    np.testing.assert_allclose(weighted.data, expected, rtol=1e-6)
    assert set(made.train.data.tolist()) == set(made.test.target.data.tolist()) == {1.0}
    made.save(tmp_path)
    loaded = Split.load(tmp_path)
    assert np.array_equal(loaded.weights, made.weights)
    assert loaded.fingerprint() == made.fingerprint()
    plain = Split(made.train, made.validation, made.test, made.item_ids, made.titles)
    assert plain.fingerprint() != made.fingerprint()


def test_unit_weights_are_no_weights():
    log = make_log(7)
    plain = split(log, SplitSettings(heldout_users=12))
    once = Interactions(
        log.users, log.items, log.user_ids, log.item_ids, log.ratings, weights=np.ones(len(log.users), np.float32)
    )
    made = split(once, SplitSettings(heldout_users=12, weight_scale="log", weight_cap=5.0))
    assert made.weights is None
    assert made.fingerprint() == plain.fingerprint()
    zero = Interactions(log.users, log.items, log.user_ids, log.item_ids, weights=np.zeros(len(log.users), np.float32))
    with pytest.raises(UserError, match="every weight is 0"):
        split(zero, SplitSettings())


def toy(rng, users=30, items=12):
    train = (rng.random((users, items)) < 0.4).astype(np.float32)
    train[:, 0] = 1
    weights = train * rng.integers(1, 5, train.shape)
    return train, weights.astype(np.float32)


def test_the_weighted_likelihood_is_its_definition(rng):
    f = rng.normal(size=(5, 12)).astype(np.float32)
    _, w = toy(rng, users=5)
    matrix = sparse.csr_matrix(w)
    histories, weights = batches.ragged(matrix), tf.constant(matrix.data)
    log_softmax = f - np.log(np.exp(f).sum(1, keepdims=True))
    variable = tf.Variable(f)
    with tf.GradientTape() as tape:
        value = Multinomial(variable).history_log_prob(histories, weights)
    np.testing.assert_allclose(value, (w * log_softmax).sum(1), rtol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(value, variable), w - w.sum(1, keepdims=True) * np.exp(log_softmax), atol=1e-5
    )
    np.testing.assert_allclose(Likelihood.history_log_prob(Multinomial(f), histories, weights), value, rtol=1e-5)
    rows, places = tf.constant(matrix.tocoo().row), tf.constant(matrix.indices)
    sampled = Multinomial.sampled_log_prob(f, rows, places, tf.zeros([12]), weights)
    np.testing.assert_allclose(sampled, value, rtol=1e-4)


@pytest.mark.parametrize("flagfile", ["vamp.flags", "trainers/flags/vamp_flat.flags", "trainers/flags/multdae.flags"])
def test_training_minimises_the_weighted_loss(flagfile, rng):
    """One step: the loss is the definition, and weights of 1 are the step without weights, bit by bit."""
    x, w = toy(rng)
    settings = small(ROOT / flagfile, input_dropout=0.0)
    train = sparse.csr_matrix(x)

    def step(weights):
        model = compiled(settings, train)
        data = batches.ragged(train)
        logs = model.train_step(data if weights is None else (data, tf.constant(weights)))
        return float(logs["nll"]), [v.numpy() for v in model.trainable_variables]

    plain, ones = step(None), step(np.ones(train.nnz, np.float32))
    assert ones[0] == pytest.approx(plain[0], rel=1e-6)
    for a, b in zip(plain[1], ones[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    double = step(np.full(train.nnz, 2, np.float32))
    assert double[0] == pytest.approx(2 * plain[0], rel=1e-5)
    weighted = step(sparse.csr_matrix(w).data)
    assert weighted[0] > plain[0]


def test_weights_reach_the_model():
    """The item of the large weight gets the larger probability, although as many users have the other one."""
    users, items = 40, 4
    x = np.ones((users, items), np.float32)
    w = x.copy()
    w[:, 2] = 9
    settings = small(ROOT / "trainers/flags/multdae.flags", epochs=30, learning_rate=0.01)
    train = sparse.csr_matrix(w)
    model = compiled(settings, train)
    model.fit(batches.shuffled(train, 10, 0, weighted=True), epochs=30, steps_per_epoch=4, verbose=0)
    probability = np.exp(model(batches.ragged(train[:1])).numpy())[0]
    np.testing.assert_allclose(probability, w[0] / w[0].sum(), atol=0.05)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight_column": "n", "likelihood": "bernoulli"}, "--weight_column weighs items, and --likelihood=bernoulli"),
        ({"half_life_days": 3.0, "likelihood": "gaussian"}, "--half_life_days weighs items"),
        ({"weight_cap": 3.0}, "--weight_scale and --weight_cap need weights"),
        ({"weight_scale": "log"}, "--weight_scale and --weight_cap need weights"),
        ({"half_life_days": -1.0}, "--half_life_days must be at least 0"),
    ],
)
def test_settings_that_contradict(values, words):
    with pytest.raises(UserError, match=words):
        Settings.of(**values)


@pytest.mark.slow
def test_a_half_life_as_typed(tmp_path):
    data = write_log(tmp_path)
    flags = [f"--data={data}", "--epochs=1", "--hidden_dim=16", "--latent_dim=6", "--pseudo_inputs=5", "--ease_l2=50"]
    runs = {"plain": (), "half": ("--half_life_days=20",)}
    figures = {}
    for name, more in runs.items():
        done = process("trainers.main", *flags, *more, f"--workdir={tmp_path / name}")
        assert done.status == 0, done.stderr
        figures[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    assert figures["plain"]["data_fingerprint"] != figures["half"]["data_fingerprint"]
    assert figures["plain"]["test"] != figures["half"]["test"]
    assert figures["plain"]["baselines"] == figures["half"]["baselines"]  # these know no weights
    flags[0] = "--data="
    mistake(process("trainers.main", *flags, "--half_life_days=3", f"--workdir={tmp_path / 'c'}"), "needs times")
