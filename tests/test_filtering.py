"""Rules at request time: every answer of `recommend_filtered` against a slow definition in NumPy."""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from conftest import EVCF, built
from serving_kit import ITEM_IDS, SMALL, TOP_K, default_model, exported, model
from tensorflow_serving.apis import prediction_log_pb2

from export.client import messages
from export.kernels import ServedKernel
from export.served_model import ServedModel
from vae_cf_tf.models.blocks import Linear
from vae_cf_tf.models.likelihoods.base import Likelihood
from vae_cf_tf.registries import LIKELIHOODS
from vae_cf_tf.settings import Settings

LOWEST = np.finfo(np.float32).min
ATOL = 3e-5


class TwoNumbers(Likelihood):
    """Two numbers an item, whose product with a constant ranks it."""

    outputs = 2

    def __init__(self, f, name="TwoNumbers"):
        super().__init__(f, dict(locals()), name)
        self.first, self.second = tf.split(self._f, 2, axis=-1)

    def _log_prob(self, x):
        return tf.reduce_sum(tfp.distributions.Normal(self.first, tf.exp(self.second)).log_prob(x), axis=-1)

    def item_scores(self):
        return 2 * self.first - self.second


@pytest.fixture
def two_numbers(monkeypatch):
    monkeypatch.setitem(LIKELIHOODS._parts, "two_numbers", TwoNumbers)


class Request(NamedTuple):
    """One row: raw ids, with repeats, unknown ones and padding among them."""

    history: list[str]
    candidates: list[str]
    exclude: list[str]
    include_history: bool


def drawn(rng: np.random.Generator, ids: list[str], most: int) -> list[str]:
    """Up to `most` ids, some of them repeated, unknown or ""."""
    chosen = [ids[i] for i in rng.integers(0, len(ids), rng.integers(0, most + 1))]
    return chosen + [["", "no such id", "i0 ", "unknown"][i] for i in rng.integers(0, 4, rng.integers(0, 4))]


def random_requests(rng: np.random.Generator, ids: list[str], few: int) -> list[Request]:
    """A batch of 1 to 8 rows: rows with or without candidates, or all with some of `few` items."""
    pool = [ids[i] for i in rng.permutation(len(ids))[:few]]
    kind, batch = rng.integers(0, 3), []
    for _ in range(rng.integers(1, 9)):
        candidates = (
            drawn(rng, pool, few) if kind == 0 else drawn(rng, ids, 40) if kind == 1 or rng.random() < 0.5 else []
        )
        history, exclude = drawn(rng, ids, 20), drawn(rng, pool if kind == 0 else ids, rng.choice([0, 2, 40]))
        batch.append(Request(history, candidates, exclude, bool(rng.random() < 0.4)))
    return batch


def inputs(batch: list[Request]) -> dict[str, tf.Tensor]:
    """The arguments of the signature, from the rows as they are: rectangles that "" fills."""

    def rectangle(rows: list[list[str]]) -> tf.Tensor:
        width = max(map(len, rows), default=0)
        return tf.constant([row + [""] * (width - len(row)) for row in rows], tf.string, [len(rows), width])

    lists = {name: rectangle([getattr(row, name) for row in batch]) for name in ("history", "candidates", "exclude")}
    return lists | {"include_history": tf.constant([row.include_history for row in batch], tf.bool)}


def expected_scores(request: Request, log_probs: np.ndarray, ids: list[str]) -> dict[str, float]:
    """The definition: the item ids that may come back, and their scores."""
    scores = dict(zip(ids, log_probs.astype(np.float64), strict=True))
    if any(request.candidates):
        scores = {item: score for item, score in scores.items() if item in request.candidates}
        total = np.log(sum(np.exp(score) for score in scores.values()) or 1.0)
        scores = {item: score - total for item, score in scores.items()}
    never = {*request.exclude, *(() if request.include_history else request.history)}
    return {item: score for item, score in scores.items() if item not in never}


def check(batch: list[Request], answer: dict, log_probs: np.ndarray, ids: list[str], k: int = TOP_K) -> None:
    assert answer["item_ids"].shape == answer["scores"].shape == (len(batch), k)
    for request, row, items, scores in zip(batch, log_probs, answer["item_ids"], answer["scores"], strict=True):
        wanted = expected_scores(request, row, ids)
        count = min(k, len(wanted))
        items = [item.decode() for item in items.tolist()]
        assert items[count:] == [""] * (k - count)
        assert (scores[count:] == LOWEST).all()
        assert len(set(items[:count])) == count
        assert set(items[:count]) <= set(wanted)
        np.testing.assert_allclose(scores[:count], [wanted[item] for item in items[:count]], atol=ATOL, rtol=0)
        np.testing.assert_allclose(scores[:count], sorted(wanted.values(), reverse=True)[:count], atol=ATOL, rtol=0)
        assert (np.diff(scores) <= 0).all()
    if "unknown_ids" in answer:
        unknown = [len(set(request.history) - set(ids) - {""}) for request in batch]
        assert answer["unknown_ids"].tolist() == unknown
        assert answer["unknown_ids"].dtype == np.int32


def hold(signatures: dict, ids: list[str], few: int, batches: int, seed: int = 0) -> None:
    """Random requests to the signatures of a model that scores up to `few` candidates alone."""
    rng, alone = np.random.default_rng(seed), 0
    for _ in range(batches):
        batch = random_requests(rng, ids, few)
        given = inputs(batch)
        log_probs = signatures["serving_default"](history=given["history"])["scores"].numpy()
        answer = {name: value.numpy() for name, value in signatures["recommend_filtered"](**given).items()}
        check(batch, answer, log_probs, ids)
        union = {item for row in batch for item in row.candidates} & set(ids)
        alone += all(any(row.candidates) for row in batch) and len(union) <= few
    assert batches / 6 < alone < batches, "both ways of scoring are taken"


@functools.cache
def loaded(weights: str = "float32", item_item: str = ""):
    return tf.saved_model.load(str(exported(weights, item_item))).signatures


@pytest.mark.parametrize(
    ("weights", "item_item", "batches"),
    [("float32", "", 1000), ("bfloat16", "", 200), ("float32", "whole", 200), ("bfloat16", "rows", 200)],
)
def test_random_requests_equal_the_definition(weights, item_item, batches):
    hold(loaded(weights, item_item), ITEM_IDS, 8, batches)


MODELS = {
    "Multi-VAE": {"latent": "flat", "prior": "standard", "block": "tanh", "layers": 1},
    "Multi-DAE": {"latent": "none", "prior": "standard", "block": "tanh", "layers": 1},
    "Gaussian": {"latent": "flat", "prior": "standard", "likelihood": "gaussian"},
    "sampled softmax": {"latent": "flat", "prior": "standard", "softmax_samples": 5},
    "two numbers an item": {"latent": "flat", "prior": "standard", "likelihood": "two_numbers"},
}


@pytest.mark.parametrize("name", MODELS)
def test_other_models_answer_by_the_same_rules(name, two_numbers, tmp_path):
    (tmp_path / "ids.txt").write_text("".join(f"{item}\n" for item in ITEM_IDS), encoding="utf-8")
    served = ServedModel(model(**MODELS[name]), ITEM_IDS, TOP_K, tmp_path / "ids.txt")
    assert served.few_items == (4 if "two" in name else 8)
    hold(served.signatures, ITEM_IDS, served.few_items, 60)


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_a_large_catalogue_whose_bfloat16_kernel_is_transposed(weights, tmp_path):
    ids = [f"i{n}" for n in range(4_500)]
    (tmp_path / "ids.txt").write_text("".join(f"{item}\n" for item in ids))
    settings = Settings.of(**{**EVCF, **SMALL, "latent": "flat", "prior": "standard"})
    served = ServedModel(built(settings, len(ids)), ids, TOP_K, tmp_path / "ids.txt", weights)
    assert served.few_items == {"float32": 17, "bfloat16": 1125}[weights]
    hold(served.signatures, ids, min(served.few_items, 400), 30)


def test_some_columns_of_a_product():
    x = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    for columns, dtype in ((50, tf.float32), (50, tf.bfloat16), (9_000, tf.float32), (9_000, tf.bfloat16)):
        kernel = ServedKernel(linear := Linear(7, columns), dtype)
        rounded = tf.cast(tf.cast(linear.kernel, dtype), tf.float32).numpy()
        for count in (0, 1, 7, 4_096, 4_097, 8_500):
            units = np.random.default_rng(count).integers(0, columns, count).astype(np.int32)
            for rows in (x, x[:0]):
                some = tf.function(kernel)(tf.constant(rows), tf.constant(units))
                assert some.shape == (len(rows), count)
                np.testing.assert_allclose(some, rows @ rounded[:, units], atol=1e-5)


@pytest.mark.parametrize("item_item", ["", "whole", "rows"])
def test_the_scores_of_some_items_rank_them_as_the_scores_of_all_do(item_item):
    trained = default_model(item_item) if item_item else model()
    histories = tf.ragged.constant([[1, 2, 30], [], [5]], tf.int32, row_splits_dtype=tf.int32)
    some = np.array([3, 30, 0, 17], np.int32)
    found, whole = trained.scores(histories, tf.constant(some)).numpy(), trained.scores(histories).numpy()[:, some]
    np.testing.assert_allclose(found - found[:, :1], whole - whole[:, :1], atol=1e-5)


def same_bytes(one: dict, other: dict) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        left, right = value.numpy(), other[name].numpy()
        assert left.tolist() == right.tolist() if left.dtype == object else left.tobytes() == right.tobytes(), name


@pytest.mark.parametrize("candidates", [["i3", "i9", "i11"], ITEM_IDS[4:30], []], ids=["few", "many", "none"])
def test_order_repeats_padding_and_unknown_ids_of_any_list_change_no_bit(candidates):
    rng, filtered = np.random.default_rng(1), loaded()["recommend_filtered"]
    batch = [Request(["i1", "i3"], candidates, ["i9", "i20"], False), Request(["i11"], candidates, [], True)]
    plain = filtered(**inputs(batch))
    for _ in range(20):
        lists = [
            [
                [*ids, *([rng.choice(ids)] * 3 if ids else []), *(["zz", "zz", "q"] if ids else []), "", ""]
                for ids in row[:3]
            ]
            for row in batch
        ]
        shuffled = [[[ids[i] for i in rng.permutation(len(ids))] for ids in row] for row in lists]
        changed = [
            Request(*lists, include_history=row.include_history) for lists, row in zip(shuffled, batch, strict=True)
        ]
        answer = dict(filtered(**inputs(changed)))
        assert answer.pop("unknown_ids").numpy().tolist() == [2, 2]
        same_bytes({name: plain[name] for name in answer}, answer)


def test_without_rules_it_is_recommend():
    batch = [Request(row.history, [], [], False) for row in random_requests(np.random.default_rng(3), ITEM_IDS, 8)]
    given = inputs(batch)
    answer = dict(loaded()["recommend_filtered"](**given))
    del answer["unknown_ids"]
    same_bytes(answer, loaded()["recommend"](history=given["history"]))


def test_examples_take_the_same_rules_and_need_none_of_them():
    rng = np.random.default_rng(4)
    for _ in range(100):
        batch = random_requests(rng, ITEM_IDS, 8)
        answer = dict(loaded()["recommend_filtered"](**inputs(batch)))
        del answer["unknown_ids"]
        examples = [messages.example(row.history, messages.Rules(*row[1:])) for row in batch]
        same_bytes(answer, loaded()["recommend_examples"](examples=tf.constant(examples)))
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"i3", b"i5"]))
    zero = tf.train.Feature(int64_list=tf.train.Int64List(value=[0]))
    features = tf.train.Features(feature={"history": feature, "include_history": zero})
    example = tf.train.Example(features=features).SerializeToString()
    plain = loaded()["recommend"](history=tf.constant([["i3", "i5"]]))
    same_bytes(loaded()["recommend_examples"](examples=tf.constant([example])), plain)


@pytest.mark.parametrize("name", ["history", "candidates", "exclude", "include_history"])
def test_padding_and_repeated_rows_of_a_server_are_harmless(name):
    """The server pads a tensor with its first cell, and a batch with repeats of its first row."""
    rules = [messages.Rules(["i3", "i4", "i7"], ["i4"], True), messages.Rules(["i9"], ["i8", "i9"]), messages.Rules()]
    for histories, given in (([["i3", "i5"]], rules[:1]), ([["i3"], ["i1", "i2"], []], rules), ([["i3"]], rules[2:])):
        sent = {n: tf.constant(v) for n, v in messages.inputs_of("recommend_filtered", histories, given).items()}
        plain = dict(loaded()["recommend_filtered"](**sent))
        if name != "include_history":
            column = tf.fill([len(histories), 3], sent[name][0, 0])
            same_bytes(plain, loaded()["recommend_filtered"](**sent | {name: tf.concat([sent[name], column], axis=1)}))
        more = {n: tf.concat([value, value[:1], value[:1]], axis=0) for n, value in sent.items()}
        if len(set(map(bool, (r.candidates for r in given)))) == 1:
            longer = loaded()["recommend_filtered"](**more)
            assert longer["item_ids"][: len(histories)].numpy().tolist() == plain["item_ids"].numpy().tolist()
            np.testing.assert_allclose(longer["scores"][: len(histories)], plain["scores"], atol=ATOL)


def test_large_requests_and_edges():
    filtered = loaded()["recommend_filtered"]
    many = [f"x{n}" for n in range(10_000)] + ITEM_IDS[5:20] * 3
    history = ["i6", "i6", *(f"u{n}" for n in range(5_000))]
    batch = [
        Request(history, many, ["i7"] * 10_000, False),
        Request([], ["unknown alone"], [], True),
        Request(["", "i1"], [""], ITEM_IDS, True),
        Request(ITEM_IDS, ITEM_IDS[:1], [], False),
        Request(ITEM_IDS, ITEM_IDS[:1], [], True),
    ]
    for rows in (batch, batch[:1], batch[1:2], batch[3:], []):
        given = inputs(rows)
        log_probs = loaded()["serving_default"](history=given["history"])["scores"].numpy()
        answer = {name: value.numpy() for name, value in filtered(**given).items()}
        check(rows, answer, log_probs, ITEM_IDS)
    assert filtered(**inputs(batch[4:]))["item_ids"].numpy()[0, :2].tolist() == [ITEM_IDS[0].encode(), b""]


@pytest.mark.parametrize("name", ["candidates", "exclude", "include_history"])
def test_an_input_of_another_batch_size_is_refused(name):
    given = inputs([Request(["i1"], ["i2"], ["i3"], True)] * 3)
    for rows in (1, 2):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must have the same batch size"):
            loaded()["recommend_filtered"](**given | {name: given[name][:rows]})


def test_the_warm_up_covers_both_ways_of_scoring():
    records = tf.data.TFRecordDataset(str(Path(exported()) / "assets.extra" / "tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request for record in records]
    asked = [log for log in logs if log.model_spec.signature_name == "recommend_filtered"]
    candidates = [tf.make_ndarray(log.inputs["candidates"]) for log in asked]
    assert {bool((ids != b"").any()) for ids in candidates} == {True, False}
    for log in asked:
        given = {name: tf.constant(tf.make_ndarray(value)) for name, value in log.inputs.items()}
        answer = loaded()["recommend_filtered"](**given)["item_ids"].numpy()
        assert (answer[:, 0] != b"").all() == (given["history"].shape[1] > 1)  # the first item is excluded
