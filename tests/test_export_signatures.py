"""The signatures: equal to the model, blind to order, repeats and padding, and total over inputs."""

import functools
from concurrent import futures

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from serving_kit import ITEM_IDS, TOP_K, default_model, elsewhere, exported, model

from export.benchmark import numpy_reference
from export.client import messages
from export.kernels import ServedKernel, _summed
from export.served_model import ServedModel
from vae_cf_tf.models import tree
from vae_cf_tf.models.blocks import Linear
from vae_cf_tf.models.histories import ones

LOWEST = np.finfo(np.float32).min
CATALOGUE = [item.encode() for item in ITEM_IDS]
NETWORKS = [
    {"latent": latent, "prior": prior, "block": block, "layers": layers}
    for latent, prior in (("none", "standard"), ("flat", "standard"), ("flat", "vamp"), ("hierarchical", "vamp"))
    for block in ("tanh", "gated")
    for layers in (1, 2)
]
LIKELIHOODS = [
    {"latent": "flat", "prior": "standard", "likelihood": likelihood} for likelihood in ("bernoulli", "gaussian")
]


@functools.cache
def _loaded(weights: str = "float32"):
    return tf.saved_model.load(str(exported(weights)))


def call_of(name: str, **inputs) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in _loaded().signatures[name](**inputs).items()}


def history(*rows: list) -> tf.Tensor:
    """A rectangle of ids, "" behind the shorter rows."""
    rows = [[item.encode() if isinstance(item, str) else item for item in row] for row in rows]
    width = max(map(len, rows), default=0)
    return tf.constant([row + [b""] * (width - len(row)) for row in rows], tf.string, [len(rows), width])


def random_histories(count: int, seed: int = 0) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[ITEM_IDS[i] for i in rng.permutation(len(ITEM_IDS))[: rng.integers(0, 20)]] for _ in range(count)]


def columns(rows: list[list[str]]) -> tf.RaggedTensor:
    sets = [sorted({ITEM_IDS.index(item) for item in row}) for row in rows]
    return tf.ragged.constant(sets, dtype=tf.int32, ragged_rank=1)


MADE = {"-".join(map(str, s.values())): functools.partial(model, **s) for s in NETWORKS + LIKELIHOODS} | {
    "default": default_model,
    "item-item model by rows": functools.partial(default_model, "rows"),
    "sampled softmax": functools.partial(model, latent="flat", prior="standard", softmax_samples=5),
}


@pytest.mark.parametrize("name", MADE)
def test_scores_and_embedding_equal_the_keras_model(name, tmp_path):
    rows, trained = random_histories(20), MADE[name]()
    expected, embedding = trained(columns(rows)).numpy(), trained.embed(columns(rows)).numpy()
    (tmp_path / "ids.txt").write_text("".join(f"{item}\n" for item in ITEM_IDS), encoding="utf-8")
    signatures = ServedModel(trained, ITEM_IDS, TOP_K, tmp_path / "ids.txt").signatures
    assert expected.std() > 1e-3
    np.testing.assert_allclose(signatures["serving_default"](history(*rows))["scores"], expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(signatures["embed"](history(*rows))["embedding"], embedding, atol=1e-5, rtol=0)
    best = signatures["recommend"](history(*rows))
    for row, scores, ids, values in zip(rows, expected, best["item_ids"].numpy(), best["scores"].numpy(), strict=True):
        unseen = [i for i, item in enumerate(ITEM_IDS) if item not in row]
        by_score = sorted((scores[i] for i in unseen), reverse=True)[:TOP_K]
        np.testing.assert_allclose(values, by_score, atol=1e-5, rtol=0)
        np.testing.assert_allclose(values, [scores[CATALOGUE.index(i)] for i in ids], atol=1e-5, rtol=0)


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_the_saved_model_equals_the_network_in_numpy(weights):
    rows = random_histories(30, seed=1)
    values = {name: np.asarray(v.value) for name, v in tree.variables(model()).items()}
    if weights == "bfloat16":
        kernels = {n: tf.cast(tf.cast(v, tf.bfloat16), tf.float32).numpy() for n, v in values.items() if "kernel" in n}
        values |= kernels
    expected = numpy_reference.log_probs(values, [np.array([ITEM_IDS.index(i) for i in row], int) for row in rows])
    scores = _loaded(weights).signatures["serving_default"](history=history(*rows))["scores"]
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)


def test_wide_bfloat16_kernels_keep_float32_arithmetic():
    for units in (4096 + 1, 3 * 4096, 4096 + 256, 2 * 4096 + 700):
        linear = Linear(7, units)
        rounded = tf.cast(tf.cast(linear.kernel, tf.bfloat16), tf.float32).numpy().astype(np.float64)
        for batch in (0, 1, 5):
            x = np.random.default_rng(batch).normal(size=(batch, 7)).astype(np.float32)
            np.testing.assert_allclose(ServedKernel(linear, tf.bfloat16)(tf.constant(x)), x @ rounded, atol=1e-5)
    kernel = tf.cast(tf.random.stateless_normal([20000, 3], [1, 2]), tf.bfloat16)
    rows = [np.arange(0, 20000, 1), np.array([], int), np.arange(5, 30), np.arange(9000)]
    bags = ones(tf.ragged.constant(rows, tf.int32, ragged_rank=1))
    wide = tf.cast(kernel, tf.float32).numpy().astype(np.float64)
    np.testing.assert_allclose(_summed(kernel, bags), [wide[r].sum(axis=0) for r in rows], atol=2e-3, rtol=1e-5)


def test_a_wide_layer_that_reads_items_is_not_served_transposed():
    """Such is an item–item model of 4,097 to 5,656 items, or a first layer of more than 4,096 units."""
    linear = Linear(4_200, 4_200, items=4_200)
    rounded = tf.cast(tf.cast(linear.kernel, tf.bfloat16), tf.float32).numpy().astype(np.float64)
    histories = [np.arange(0, 4_200, 7), np.array([], int), np.array([3, 4_199])]
    sums = ServedKernel(linear, tf.bfloat16)(ones(tf.ragged.constant(histories, tf.int32, ragged_rank=1)))
    np.testing.assert_allclose(sums, [rounded[h].sum(axis=0) for h in histories], atol=1e-4)


def test_a_request_of_a_hundred_equals_a_hundred_requests():
    rows = random_histories(100, seed=2)
    for name in ("serving_default", "recommend", "embed"):
        together = call_of(name, history=history(*rows))
        for i, row in enumerate(rows):
            single = call_of(name, history=history(row))
            for key, value in single.items():
                if value.dtype == object:
                    np.testing.assert_array_equal(value[0], together[key][i])
                else:
                    np.testing.assert_allclose(value[0], together[key][i], atol=1e-5, rtol=0)


def same_bytes(name: str, one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for key, value in one.items():
        one_bytes, other_bytes = (v.tolist() if v.dtype == object else v.tobytes() for v in (value, other[key]))
        assert one_bytes == other_bytes, (name, key)


@pytest.mark.parametrize("name", ["serving_default", "recommend", "embed"])
def test_order_repeats_padding_and_unknown_ids_change_no_bit(name, rng):
    rows = [row for row in random_histories(40, seed=3) if row]
    plain_answer = call_of(name, history=history(*rows))
    changed = []
    for row in rows:
        longer = [*row, *rng.choice(row, 5), "", "", "nothing of that name", "i0 "]
        changed.append([longer[i] for i in rng.permutation(len(longer))])
    same_bytes(name, plain_answer, call_of(name, history=history(*changed)))


@pytest.mark.parametrize("name", ["serving_default", "recommend", "embed"])
def test_padding_by_the_server_with_the_first_element_is_safe_for_what_the_client_sends(name):
    for rows in ([["i3", "i4"]], [["i3"], ["i5", "i6", "i7"], []]):
        sent = np.array([[item.encode() for item in row] for row in messages.rectangle(rows)], object)
        padded = np.concatenate([sent, np.full([len(sent), 4], sent[0, 0], object)], axis=1)
        expected = call_of(name, history=history(*rows))
        same_bytes(name, expected, call_of(name, history=tf.constant(sent)))
        same_bytes(name, expected, call_of(name, history=tf.constant(padded)))


def test_examples_answer_as_histories_do():
    rows = random_histories(25, seed=4)
    examples = [messages.example(row) for row in rows] + [tf.train.Example().SerializeToString()]
    answer = call_of("recommend_examples", examples=tf.constant(examples))
    same_bytes("recommend_examples", answer, call_of("recommend", history=history(*rows, [])))


def check(rows: list[list[bytes]], answer: dict[str, np.ndarray]) -> None:
    """What holds of every answer of `recommend`."""
    assert answer["item_ids"].shape == answer["scores"].shape == (len(rows), TOP_K)
    assert np.isfinite(answer["scores"]).all()
    for row, ids, scores in zip(rows, answer["item_ids"].tolist(), answer["scores"], strict=True):
        left = len(set(CATALOGUE) - set(row))
        count = min(TOP_K, left)
        assert len(set(ids[:count])) == count
        assert set(ids[:count]) <= set(CATALOGUE) - set(row)
        assert ids[count:] == [b""] * (TOP_K - count)
        assert (scores[count:] == LOWEST).all()
        assert (scores[:count] > LOWEST).all()
        assert (np.diff(scores) <= 0).all()


IDS = st.one_of(st.sampled_from(CATALOGUE), st.binary(max_size=6), st.text(max_size=4).map(str.encode))


@hypothesis.settings(
    max_examples=1000,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(st.lists(st.lists(IDS, max_size=8), min_size=10, max_size=10), st.integers(0, len(CATALOGUE)))
def test_ten_thousand_random_requests(rows, most):
    rows[0] = rows[0] + CATALOGUE[:most]
    check(rows, call_of("recommend", history=history(*rows)))


@pytest.mark.parametrize(
    "rows",
    [
        [[]],
        [[], [], []],
        [[b""]],
        [[b"unknown", b"\xff\xfe\x00", "\u2028".encode()]],
        [CATALOGUE],
        [CATALOGUE[:-1], CATALOGUE],
        [[b"i1"] * 25000 + [str(n).encode() for n in range(25000)]],
        [],
    ],
    ids=["empty", "three empty", "padding", "unknown", "all seen", "one left", "50,000 ids", "no rows"],
)
def test_edges(rows):
    check(rows, call_of("recommend", history=history(*rows)))
    for name, key, width in (("serving_default", "scores", len(CATALOGUE)), ("embed", "embedding", 10)):
        value = call_of(name, history=history(*rows))[key]
        assert value.shape == (len(rows), width)
        assert np.isfinite(value).all()
    examples = [
        tf.train.Example(
            features=tf.train.Features(feature={"history": tf.train.Feature(bytes_list=tf.train.BytesList(value=row))})
        ).SerializeToString()
        for row in rows
    ]
    check(rows, call_of("recommend_examples", examples=tf.constant(examples, tf.string, [len(rows)])))


LOAD = """
import sys, hashlib, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf, keras
rows = [[b"i3", b"i7", "\\u00e9t\\u00e9".encode()], [b"i9", b"", b""], [b"", b"", b""]]
loaded = tf.saved_model.load(sys.argv[1])
best = loaded.signatures["recommend"](history=tf.constant(rows))
scores = loaded.signatures["serving_default"](history=tf.constant(rows))["scores"].numpy()
inside = keras.Sequential([keras.Input([None], dtype="string"),
                           keras.layers.TFSMLayer(sys.argv[1], call_endpoint="serving_default")])
same = inside(tf.constant(rows))["scores"].numpy().tobytes() == scores.tobytes()
digest = hashlib.sha256(scores.tobytes() + best["scores"].numpy().tobytes()).hexdigest()
print(digest, same, b"".join(best["item_ids"].numpy()[0]).hex())
"""


def test_other_processes_without_this_project_answer_with_the_same_bytes_and_through_keras():
    version = exported()
    with futures.ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: elsewhere(LOAD, version), range(2)))
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    _, same, ids = runs[0].stdout.split()
    assert same == "True"
    rows = [[b"i3", b"i7", "été".encode()], [b"i9", b"", b""], [b"", b"", b""]]
    assert ids == b"".join(call_of("recommend", history=history(*rows))["item_ids"][0]).hex()
