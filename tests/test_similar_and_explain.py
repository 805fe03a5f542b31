"""Similar items and reasons against their definitions in plain Python: the signatures, the choice, the report."""

import csv
import functools
import json
import math
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf
from conftest import EVCF, FLAGFILES, built, small, synthetic_events
from serving_kit import ITEM_IDS, SMALL, TOP_K, exported, model
from typed import here, mistake, process

from export import card
from export.benchmark import numpy_reference
from export.savedmodel import export_run
from export.served_model import ServedModel
from trainers.main import train_and_evaluate
from trainers.report.reasons import owed_to
from vae_cf_tf.data.split import PARTS, HeldOut, Split
from vae_cf_tf.evaluation import similar
from vae_cf_tf.linear.item_item import NormalizedEase
from vae_cf_tf.models import tree
from vae_cf_tf.models.blocks import Linear
from vae_cf_tf.models.explanation import HISTORIES, SCORES, contributions
from vae_cf_tf.models.hybrid import HybridModel
from vae_cf_tf.models.similar import names
from vae_cf_tf.registries import SIMILARITIES
from vae_cf_tf.runs import loading
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import Settings

LOWEST = np.finfo(np.float32).min
CATALOGUE = [item.encode() for item in ITEM_IDS]


@functools.cache
def model_of(flagfile: Path):
    """The model of a flagfile at the size of a toy, with an item–item model where the flagfile has one."""
    settings = small(flagfile, **SMALL)
    rng = np.random.default_rng(0)
    users = sp.csr_matrix((rng.random((60, len(ITEM_IDS))) < 0.3).astype(np.float32))
    network = built(settings, len(ITEM_IDS), users)
    if settings.item_item.item_path == "none":
        return network
    hybrid = loading.hybrid(network, settings)
    hybrid.item_item.fit(NormalizedEase(0.5, 30), users)
    hybrid.weight.assign(4.0)
    hybrid.discount.assign(0.5)
    return hybrid


def served(trained, folder: Path, weights: str, similarity: str) -> ServedModel:
    lines = folder / "ids.txt"
    lines.write_text("".join(f"{item}\n" for item in ITEM_IDS), encoding="utf-8")
    return ServedModel(trained, ITEM_IDS, TOP_K, lines, weights, similarity)


def log_probs(signatures, history: list[str]) -> np.ndarray:
    """What serving_default answers to one history."""
    return signatures["serving_default"](history=tf.constant([history], tf.string, [1, len(history)]))["scores"][0]


def left_out(signatures, history: list[str], item: str) -> list[float]:
    """`contributions` by its definition, a request for each place."""
    values = []
    for place, own in enumerate(history):
        if item not in ITEM_IDS or own not in ITEM_IDS or own in history[:place]:
            values.append(0.0)
        else:
            without = [other for other in history if other != own]
            column = ITEM_IDS.index(item)
            fall = log_probs(signatures, history)[column] - log_probs(signatures, without)[column]
            values.append(float(fall))
    return values


def explained(signatures, histories: list[list[str]], items: list[str]) -> np.ndarray:
    width = max(map(len, histories))
    rows = [row + [""] * (width - len(row)) for row in histories]
    return signatures["explain"](history=tf.constant(rows), item=tf.constant(items))["contributions"].numpy()


def likeness(trained, served_model: ServedModel, item: int, similarity: str, weights: str) -> np.ndarray:
    """A similarity of all items to one, by its definition."""

    def rounded(kernel) -> np.ndarray:
        return tf.cast(tf.cast(kernel, weights), tf.float32).numpy().astype(np.float64)

    answer = log_probs(served_model.signatures, [ITEM_IDS[item]]).numpy().astype(np.float64)
    if similarity == "answer":
        return answer
    if similarity == "item_item":
        row = rounded(trained.item_item.b.kernel)[item]
        return np.where(row > 0, row, answer)
    network = trained.network if isinstance(trained, HybridModel) else trained
    layer = network.decoder.output_layer
    vectors = rounded(layer.kernel) if layer.transposed else rounded(layer.kernel).T
    vectors = vectors.reshape(-1, len(ITEM_IDS), vectors.shape[1])  # a number of the likelihood, an item, a dimension
    lengths = np.sqrt((vectors**2).sum(axis=(0, 2)))
    return np.array(
        [(vectors[:, item] * vectors[:, i]).sum() / lengths[item] / lengths[i] for i in range(len(lengths))]
    )


def check_shelf(ids: list[bytes], scores: np.ndarray, item: bytes, wanted: np.ndarray) -> None:
    """Whether an answer of `similar_items` to one item is that of the likeness to it."""
    others = sorted((wanted[i] for i in range(len(wanted)) if CATALOGUE[i] != item), reverse=True)[:TOP_K]
    assert item not in ids
    assert len(set(ids)) == TOP_K
    np.testing.assert_allclose(scores, others, atol=2e-5)
    np.testing.assert_allclose(scores, [wanted[CATALOGUE.index(i)] for i in ids], atol=2e-5)


@pytest.mark.parametrize("flagfile", FLAGFILES, ids=lambda path: path.stem)
def test_both_signatures_hold_their_definition_request_by_request(flagfile, tmp_path, rng):
    trained = model_of(flagfile)
    for number, similarity in enumerate(names(trained)):
        weights = ("float32", "bfloat16")[number % 2]
        serving = served(trained, tmp_path, weights, similarity)
        for item in rng.choice(len(ITEM_IDS), 4, replace=False):
            answer = serving.signatures["similar_items"](item=tf.constant([ITEM_IDS[item]]))
            wanted = likeness(trained, serving, item, similarity, weights)
            assert wanted.std() > 1e-3
            check_shelf(answer["item_ids"].numpy()[0].tolist(), answer["scores"].numpy()[0], CATALOGUE[item], wanted)
        if number < 2:  # both types of the kernels
            for length in (1, 7):
                history = [*rng.choice(ITEM_IDS, length, replace=False), "", "no such item", *rng.choice(ITEM_IDS, 2)]
                item = str(rng.choice(ITEM_IDS))
                wanted = left_out(serving.signatures, history, item)
                assert np.abs(wanted).max() > 1e-3
                np.testing.assert_allclose(explained(serving.signatures, [history], [item])[0], wanted, atol=2e-5)


@functools.cache
def _loaded(weights: str):
    return tf.saved_model.load(str(exported(weights))).signatures


@functools.cache
def _values(weights: str) -> dict[str, np.ndarray]:
    """The weights of the exported model, as they are served."""
    values = {name: np.asarray(v.value) for name, v in tree.variables(model()).items()}
    return {n: tf.cast(tf.cast(v, weights), tf.float32).numpy() if "kernel" in n else v for n, v in values.items()}


IDS = st.one_of(st.sampled_from(CATALOGUE), st.just(b""), st.binary(max_size=4))
REQUESTS = hypothesis.settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@REQUESTS
@hypothesis.given(st.lists(st.tuples(st.lists(IDS, max_size=6), IDS), min_size=50, max_size=50), st.booleans())
def test_three_thousand_random_requests_for_reasons(requests, is_rounded):
    """Against the network in NumPy, which is asked without each place in turn."""
    weights = "bfloat16" if is_rounded else "float32"
    histories, asked = [], []  # what NumPy is asked, and which place of which request that is
    for number, (history, item) in enumerate(requests):
        columns = [CATALOGUE.index(i) if i in CATALOGUE else -1 for i in history]
        if item in CATALOGUE:
            places = [p for p, c in enumerate(columns) if c >= 0 and c not in columns[:p]]
            for place in [None, *places]:
                kept = {c for c in columns if c >= 0} - ({columns[place]} if place is not None else set())
                histories.append(np.array(sorted(kept), int))
                asked.append((number, place, CATALOGUE.index(item)))
    width = max(len(history) for history, _ in requests)
    wanted, whole = np.zeros((len(requests), width)), np.zeros(len(requests))
    answers = numpy_reference.log_probs(_values(weights), histories) if histories else []
    for (number, place, column), answer in zip(asked, answers, strict=True):
        if place is None:
            whole[number] = answer[column]
        else:
            wanted[number, place] = whole[number] - answer[column]
    rows = [history + [b""] * (width - len(history)) for history, _ in requests]
    answer = _loaded(weights)["explain"](
        history=tf.constant(rows, tf.string, [len(rows), width]), item=tf.constant([item for _, item in requests])
    )
    np.testing.assert_allclose(answer["contributions"], wanted, atol=2e-5)


@REQUESTS
@hypothesis.given(st.lists(IDS, min_size=50, max_size=50), st.booleans())
def test_three_thousand_random_requests_for_similar_items(items, is_rounded):
    weights = "bfloat16" if is_rounded else "float32"
    answer = _loaded(weights)["similar_items"](item=tf.constant(items))
    wanted = numpy_reference.log_probs(
        _values(weights), [np.array([CATALOGUE.index(item)] if item in CATALOGUE else [], int) for item in items]
    )
    for item, ids, scores, expected in zip(
        items, answer["item_ids"].numpy().tolist(), answer["scores"].numpy(), wanted, strict=True
    ):
        if item in CATALOGUE:
            check_shelf(ids, scores, item, expected)
        else:
            assert ids == [b""] * TOP_K
            assert (scores == LOWEST).all()


def test_padding_by_the_server_gives_no_place_a_second_reason():
    """The server pads a request with its first cell, here an item; repeats have no contribution."""
    plain = explained(_loaded("float32"), [["i3", "i5"]], ["i9"])
    padded = explained(_loaded("float32"), [["i3", "i5", "i3", "i3"]], ["i9"])
    assert np.abs(plain).min() > 0
    np.testing.assert_array_equal(padded, np.pad(plain, [[0, 0], [0, 2]]))
    for rows in (0, 2):  # no request, and histories of no place
        answer = _loaded("float32")["explain"](
            history=tf.zeros([rows, 0], tf.string), item=tf.constant(["i1"] * rows, tf.string)
        )
        assert answer["contributions"].shape == (rows, 0)


@pytest.mark.parametrize("num_items", [2_000, 500_000])
def test_a_long_history_is_answered_in_chunks_of_bounded_size(num_items):
    """log p is stood in by minus the root of a sum over the history, which is no sum of its parts."""
    sizes, value = [], np.random.default_rng(0).random(num_items)
    lengths = [300 if num_items < 5_000 else 9, 0, 7]

    def fake(histories):
        sizes.append(int(histories.nrows()))
        sums = [value[row].sum() for row in histories.to_list()]
        return tf.constant([-np.sqrt(s) + np.arange(num_items) % 7 for s in sums], tf.float64)

    rng = np.random.default_rng(1)
    histories = [np.sort(rng.choice(num_items, length, replace=False)) for length in lengths]
    targets = np.array([[3, 1], [2, 2], [5, 0]], np.int32)
    answer = contributions(
        lambda histories: tf.cast(fake(histories), tf.float32),
        tf.constant(np.concatenate(histories), tf.int32),
        tf.constant(np.repeat(range(3), lengths), tf.int32),
        tf.constant(targets),
        num_items,
    ).numpy()
    wanted = [
        -math.sqrt(value[row].sum()) + math.sqrt(max(value[row].sum() - value[item], 0))
        for row in histories
        for item in row
    ]
    np.testing.assert_allclose(answer, np.stack([wanted, wanted], axis=1), atol=1e-5)
    assert max(sizes) <= max(1, min(HISTORIES, SCORES // num_items))
    assert sum(sizes) == 3 + sum(lengths)


def test_an_item_without_a_row_of_the_item_item_model_gets_the_models_answer(tmp_path):
    """model_of leaves ten of forty items out of B."""
    trained = model_of(next(path for path in FLAGFILES if path.name == "vamp.flags"))
    kernel = trained.item_item.b.kernel.numpy()
    without = [n for n in range(len(ITEM_IDS)) if not kernel[n].any()]
    assert len(without) == 10
    by_row, by_answer = (
        served(trained, tmp_path, "float32", name).signatures["similar_items"](item=tf.constant([ITEM_IDS[without[0]]]))
        for name in ("item_item", "answer")
    )
    assert by_row["item_ids"].numpy().tolist() == by_answer["item_ids"].numpy().tolist()


def test_cosine_of_a_likelihood_with_two_numbers_an_item():
    trained = built(small(FLAGFILES[0], **SMALL), 20)
    trained.decoder.output_layer = Linear(trained.decoder.output_layer.input_dim, 40)
    vectors = np.split(trained.decoder.output_layer.kernel.numpy(), 2, axis=1)
    both = np.concatenate(vectors, axis=0).T  # an item's columns, one after the other
    wanted = both @ both[7] / np.linalg.norm(both, axis=1) / np.linalg.norm(both[7])
    cosines = SIMILARITIES["decoder"](trained)(tf.ragged.constant([[7]], tf.int32, row_splits_dtype=tf.int32))
    np.testing.assert_allclose(cosines[0], wanted, atol=1e-5)


def matrix(rows: list[list[int]], items: int) -> sp.csr_matrix:
    lil = sp.lil_matrix((len(rows), items), dtype=np.float32)
    for number, row in enumerate(rows):
        lil[number, row] = 1
    return lil.tocsr()


def test_one_item_of_each_user_is_given_and_the_others_are_to_be_found():
    fold_in, target = [[0, 3], [2], [], [5], [1, 4]], [[1], [], [6], [0, 2], []]
    held_out = HeldOut(matrix(fold_in, 7), matrix(target, 7))
    own = [set(a) | set(b) for a, b in zip(fold_in, target, strict=True) if len(a + b) > 1]
    given = set()
    for seed in range(20):
        asked = similar.one_item_each(held_out, seed)
        assert asked.fold_in.shape == asked.target.shape == (len(own), 7)
        for user, items in enumerate(own):
            (item,) = asked.fold_in[user].indices
            assert set(asked.target[user].indices) == items - {item}
            given.add((user, int(item)))
    assert given == {(user, item) for user, items in enumerate(own) for item in items}
    again = [similar.one_item_each(held_out, 3).fold_in.indices.tolist() for _ in range(2)]
    assert again[0] == again[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Workdir:
    """A run of a model that has all similarities, by the main job."""
    folder = tmp_path_factory.mktemp("similar")
    sizes = {"hidden_dim": 16, "latent_dim": 6, "pseudo_inputs": 5, "batch_size": 32, "epochs": 3, "ease_l2": "50"}
    options = {"latent": "flat", "prior": "standard", "layers": 1, "item_path": "linear", "seed": 5}
    data = str(synthetic_events(folder, titles=True))
    said = []
    train_and_evaluate(Settings.of(data=data, workdir=str(folder / "run"), **(EVCF | sizes | options)), say=said.append)
    assert any(line.startswith("Similar items: from ") for line in said)
    return Workdir(folder / "run")


def figures_of(scores: np.ndarray, split: Split, part: str, seed: int) -> tuple[float, float]:
    """Mean NDCG@20 and Recall@20 of a likeness, [items, items], by their definition."""
    asked = similar.one_item_each(getattr(split, part), seed)
    ndcg, recall = [], []
    for user in range(asked.fold_in.shape[0]):
        (item,), others = asked.fold_in[user].indices, set(asked.target[user].indices)
        ranked = [i for i in np.argsort(-scores[item], kind="stable") if i != item][:20]
        gain = sum(1 / math.log2(rank + 2) for rank, i in enumerate(ranked) if i in others)
        best = min(20, len(others))
        ndcg.append(gain / sum(1 / math.log2(rank + 2) for rank in range(best)))
        recall.append(len(others.intersection(ranked)) / best)
    return float(np.mean(ndcg)), float(np.mean(recall))


def test_the_best_on_validation_users_is_chosen_recorded_and_exported(run, tmp_path):
    split, values = run.split(), run.read_metrics()
    chosen, trained = values["similar_items"], loading.load(run, split).model
    items = len(split.item_ids)
    single = tf.RaggedTensor.from_row_lengths(tf.range(items), tf.ones([items], tf.int32))
    answer, kernel = trained(single).numpy(), trained.network.decoder.output_layer.kernel.numpy()
    b, dense = trained.item_item.b.kernel.numpy(), split.train.toarray()
    vectors, columns = (m / np.maximum(np.linalg.norm(m, axis=0), 1e-9) for m in (kernel, dense))
    tables = {
        "answer": answer,
        "item_item": np.where(b > 0, b, answer),
        "decoder": vectors.T @ vectors,
        "cosine_knn": columns.T @ columns,
    }
    for part in PARTS:
        assert list(chosen[part]) == list(tables)
        for name, scores in tables.items():
            found = [chosen[part][name][metric]["mean"] for metric in ("ndcg@20", "recall@20")]
            np.testing.assert_allclose(found, figures_of(scores, split, part, 5), atol=1e-3)
    means = {name: chosen["validation"][name]["ndcg@20"]["mean"] for name in ("answer", "item_item", "decoder")}
    assert len(set(means.values())) == 3
    assert chosen["source"] == max(means, key=means.get)
    assert similar.choose(trained, split, 5, run.settings().evaluation.eval_batch_size) == chosen
    # What metrics.json says is what an export serves; a run without it, of version 0.1, gets the answer.
    for source in ("decoder", "item_item", None):
        changed = {n: v for n, v in values.items() if n != "similar_items"}
        changed |= {"similar_items": chosen | {"source": source}} if source else {}
        run.metrics.write_text(json.dumps(changed))
        version = export_run(run, tmp_path / "models")
        shelf = tf.saved_model.load(str(version)).signatures["similar_items"](item=tf.constant([split.item_ids[3]]))
        scores = tables[source or "answer"][3].copy()
        scores[3] = -np.inf
        np.testing.assert_allclose(shelf["scores"][0, :20], np.sort(scores)[::-1][:20], atol=1e-4)
        assert card.read(version)["similar_items"] == changed.get("similar_items")
    for damaged in ("decoder", {"source": 3}, chosen | {"test": []}):
        run.metrics.write_text(json.dumps(values | {"similar_items": damaged}))
        typed = here("export.main", f"--workdir={run.path}", f"--export_dir={tmp_path / 'models'}")
        mistake(typed, "metrics.json is damaged")
    run.metrics.write_text(json.dumps(values | {"similar_items": chosen | {"source": "no such"}}))
    mistake(here("export.main", f"--workdir={run.path}", f"--export_dir={tmp_path / 'models'}"), "no such")
    run.metrics.write_text(json.dumps(values))


def test_the_report_names_the_two_items_that_a_recommendation_owes_most_to(run, tmp_path):
    split = run.split()
    trained, fold_in = loading.load(run, split).model, split.test.with_targets().fold_in[:4]
    ranked = np.argsort(-np.random.default_rng(0).random((4, len(split.item_ids))))[:, :3].astype(np.int32)

    def answer(items: list[int]) -> np.ndarray:
        return trained(tf.RaggedTensor.from_row_lengths(tf.constant(items, tf.int32), [len(items)])).numpy()[0]

    for user, reasons in enumerate(owed_to(trained, fold_in, ranked)):
        own = fold_in[user].indices.tolist()
        for item, found in zip(ranked[user], reasons, strict=True):
            fall = {i: answer(own)[item] - answer([other for other in own if other != i])[item] for i in own}
            best = sorted((i for i in own if fall[i] > 0), key=lambda i: -fall[i])[:2]
            np.testing.assert_allclose([fall[i] for i in found], [fall[i] for i in best], atol=1e-5)
    reported = process("trainers.report", f"--workdir={run.path}", f"--report_dir={tmp_path}", "--example_users=3")
    assert reported.status == 0, reported.stderr
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    with open(run.path.parent / "movies.csv", newline="") as f:
        titles = {row["title"] for row in csv.DictReader(f)}
    reasons = [part.split("</span>")[0] for part in page.split('<span class="reason">because of ')[1:]]
    assert len(reasons) > 15
    assert all(set(reason.split(" and ")) <= titles for reason in reasons)
