"""Exports a generated model, and measures its requests beside their floors and beside the same network in NumPy."""

import gc
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from export.benchmark import floors, numpy_reference
from export.savedmodel import export_model
from vae_cf_tf import machine
from vae_cf_tf.cli import quiet
from vae_cf_tf.evaluation.ranking import top_unseen
from vae_cf_tf.models import tree
from vae_cf_tf.models.build import build
from vae_cf_tf.settings import Settings, flagfiles

SLACK_MS, FACTOR = 0.3, 1.5  # the goal


class Options(NamedTuple):
    """The command's flags of these names."""

    hidden_dim: int
    latent_dim: int
    top_k: int
    batch: int
    weights: str
    lengths: list[int]
    requests: int
    candidates: int


class Case(NamedTuple):
    """A kind of request, and what is known of it before it is asked."""

    batch: int  # histories of a request
    length: int  # items of a history
    numpy_seconds: float
    scores: np.ndarray  # of the recommendations for the first request, by NumPy: float32 [batch, k]
    work: floors.Work


def measured(items: int, options: Options) -> dict[str, Any]:
    """The figures of a catalogue of so many items."""
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, so that this one never holds the training model.
        with multiprocessing.get_context("spawn").Pool(1, quiet.import_tensorflow) as pool:
            cases = pool.apply(write, (folder, items, options))
        return ask(Path(folder) / "1", items, cases, options)


def _histories(items: int, batch: int, length: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng([seed, length, batch])
    return [np.sort(random.choice(items, min(length, items), replace=False)) for _ in range(batch)]


def write(folder: str, items: int, options: Options) -> list[Case]:
    """Exports a generated model into `folder`; returns the kinds of requests."""
    published = next(path for path in flagfiles.shipped() if path.name == "evcf.flags")
    sizes = {"hidden_dim": options.hidden_dim, "latent_dim": options.latent_dim, "pseudo_inputs": 1}
    settings = Settings.of(**flagfiles.settings_in(published) | sizes | {"first_layer": "sparse"})
    model = build(settings.model, items)
    weights = {name: np.asarray(v.value) for name, v in tree.variables(model).items()}
    k, cases = min(options.top_k, items), []
    for length in options.lengths:
        for batch, repeats in ((1, 20), (options.batch, 3)):
            rows = _histories(items, batch, length)
            seconds = machine.times(partial(numpy_reference.recommend, weights, rows, k), repeats, warm=1)
            scores = np.maximum(numpy_reference.recommend(weights, rows, k)[1], np.finfo(np.float32).min)
            ragged = tf.RaggedTensor.from_row_lengths(np.concatenate(rows).astype(np.int32), [len(r) for r in rows])
            cases.append(Case(batch, length, float(np.median(seconds)), scores, floors.work_of(model, ragged)))
    facts = {"config": None, "data_fingerprint": "generated", "metrics": None}
    export_model(model, [str(i) for i in range(items)], {}, facts, folder, options.top_k, options.weights)
    return cases


def ask(version: Path, items: int, cases: list[Case], options: Options) -> dict[str, Any]:
    """Loads a SavedModel version and times its requests."""
    width = 2 if options.weights == "bfloat16" else 4  # bytes of a weight
    rate, bandwidth = machine.product_rate(), machine.bandwidth(cases[0].work.weights * width)
    before, start = machine.rss(), time.perf_counter()
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session, session.graph.as_default():
        tf.get_logger().setLevel("ERROR")  # the loader is deprecated; it is the one that matches the C++ loader
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
        load_seconds, resident = time.perf_counter() - start, machine.rss() - before

        def function(name: str, *inputs: str) -> Callable:
            signature = loaded.signature_def[name]
            outputs = [signature.outputs[output].name for output in ("item_ids", "scores")]
            return session.make_callable(outputs, [signature.inputs[input].name for input in inputs])

        recommend = function("recommend", "history")
        filtered = function("recommend_filtered", "history", "candidates", "exclude", "include_history")
        rows = [_row(recommend, items, case, options.requests, bandwidth / width, rate) for case in cases]
        for row, case in zip(rows, cases, strict=True):
            row["candidates_p50_ms"] = _with_candidates(filtered, items, case, options)
        resident_after = machine.rss() - before
    gc.collect()
    for row, case in zip(rows, cases, strict=True):
        row["mask_and_top_k_ms"] = 1e3 * _mask_and_top_k(items, case, min(options.top_k, items))
        row["mask_and_top_k_share"] = row["mask_and_top_k_ms"] / row["p50_ms"]
    return {
        "items": items,
        "candidates": min(options.candidates, items),
        "saved_model_bytes": sum(p.stat().st_size for p in version.rglob("*") if p.is_file()),
        "load_seconds": load_seconds,
        "resident_bytes": resident,
        "resident_bytes_after_requests": resident_after,
        "bandwidth_gb_per_second": bandwidth / 1e9,
        "gemm_gflop_per_second": rate / 1e9,
        "requests": rows,
    }


def _row(recommend: Callable, items: int, case: Case, requests: int, weight_rate: float, rate: float) -> dict[str, Any]:
    """The figures of a kind of request, timed `requests` times where it has one history.

    Args:
      recommend: asks for the recommendations of string [batch, length].
      items: size of the catalogue.
      case: the kind.
      requests: see above.
      weight_rate: weights that the machine reads in a second.
      rate: its floating-point operations a second.
    """
    asked = [_ids(_histories(items, *case[:2], seed)) for seed in range(_repeats(case, requests) + 3)]
    scores, turns = recommend(asked[0])[1], iter(asked)
    seconds = machine.times(lambda: recommend(next(turns)), len(asked) - 3)
    p50_ms = 1e3 * float(np.median(seconds))
    read_ms, gemm_ms = 1e3 * case.work.weights / weight_rate, 1e3 * 2 * case.work.multiply_adds / rate
    goal_ms = FACTOR * max(read_ms, gemm_ms) + SLACK_MS if case.batch == 1 else None
    return {
        "batch": case.batch,
        "length": case.length,
        "p50_ms": p50_ms,
        "p99_ms": 1e3 * float(np.quantile(seconds, 0.99)),
        "histories_per_second": 1e3 * case.batch / p50_ms,
        "floor_read_ms": read_ms,
        "floor_gemm_ms": gemm_ms,
        "goal_ms": goal_ms,
        "goal_met": None if goal_ms is None else p50_ms <= goal_ms,
        "numpy_ms": 1e3 * case.numpy_seconds,
        "largest_difference_to_numpy": float(np.abs(scores - case.scores).max()),
    }


def _ids(rows: list[np.ndarray]) -> np.ndarray:
    return np.array([[str(item).encode() for item in row] for row in rows], object)


def _repeats(case: Case, requests: int) -> int:
    return requests if case.batch == 1 else max(10, requests // 10)


def _with_candidates(filtered: Callable, items: int, case: Case, options: Options) -> float:
    """p50 in ms of requests of a kind whose histories have candidates, each its own."""
    asked = [
        (
            _ids(_histories(items, *case[:2], seed)),
            _ids(_histories(items, case.batch, options.candidates, 10_000 + seed)),
            np.full([case.batch, 1], b"", object),
            np.zeros(case.batch, bool),
        )
        for seed in range(_repeats(case, options.requests) + 3)
    ]
    turns = iter(asked)
    return 1e3 * float(np.median(machine.times(lambda: filtered(*next(turns)), len(asked) - 3)))


def _mask_and_top_k(items: int, case: Case, k: int, turns: int = 10) -> float:
    """Seconds that masking and top-k take: many in one call, less the same call without them."""
    histories = _histories(items, case.batch, case.length)
    seen = tf.constant(np.concatenate(histories), tf.int32)
    rows = tf.constant(np.repeat(np.arange(len(histories)), [len(h) for h in histories]), tf.int32)
    scores = tf.random.normal([len(histories), items])

    def seconds(choose: bool) -> float:
        def run() -> tf.Tensor:
            total = tf.zeros([])
            for i in tf.range(turns):
                turned = scores + tf.cast(i, tf.float32)
                total += top_unseen(turned, seen, rows, k)[0][0, 0] if choose else turned[0, 0]
            return total

        compiled = tf.function(run, autograph=True)  # for its loop
        return float(np.median(machine.times(lambda: compiled().numpy(), 10)))

    return (seconds(True) - seconds(False)) / turns
