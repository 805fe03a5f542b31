"""Measures a served model of a given size on this machine: `python -m export.benchmark --items=20108,200000`.

The model is H+Vamp gated, two layers, with generated weights, and is asked through the C++ session that TF Serving
runs. Beside each figure stand its floor (`export.floors`) and the same network in plain NumPy (`export.plain`), all
measured in the same run; the goal is p50 ≤ 1.5 × the larger floor + 0.3 ms for a batch of one.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from vae_cf_tf.cli import commands, quiet
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside

SLACK, FACTOR = 0.3e-3, 1.5  # the goal


def define_flags() -> None:
    flags.DEFINE_list("items", ["20108", "200000"], "Sizes of the catalogues.")
    flags.DEFINE_list("lengths", ["10", "100", "1000"], "Items of a history.")
    flags.DEFINE_integer("hidden_dim", 600, "Units of a hidden block.", lower_bound=1)
    flags.DEFINE_integer("latent_dim", 200, "Dimensions of each latent variable.", lower_bound=1)
    flags.DEFINE_integer("top_k", 100, "Items of a recommendation.", lower_bound=1)
    flags.DEFINE_integer("requests", 200, "Requests of one history that are timed, for each length.", lower_bound=10)
    flags.DEFINE_integer("batch", 64, "Histories of a request whose throughput is measured.", lower_bound=1)
    flags.DEFINE_enum("weights", "float32", ["float32", "bfloat16"], "Type of the kernels in the SavedModel.")
    commands.define_path("output", "", "JSON file for the figures; empty: none.")


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    sizes, lengths = _whole("items"), _whole("lengths")
    options = {name: values[name].value for name in ("hidden_dim", "latent_dim", "top_k", "batch", "weights")}
    options |= {"lengths": lengths, "requests": values.requests}
    quiet.import_tensorflow()
    found = {"machine": _machine(), "settings": options, "catalogues": []}
    for items in sizes:
        print(f"{items:,} items: writing the model …", file=sys.stderr)
        found["catalogues"].append(_measure(items, options))
        print(_table(found["catalogues"][-1]))
    if values.output:
        with written_aside(values.output) as aside:
            aside.write_text(json.dumps(found, indent=1) + "\n")


def _whole(name: str) -> list[int]:
    texts = flags.FLAGS[name].value
    if not texts or not all(text.isdecimal() and int(text) > 0 for text in texts):
        raise UserError(f"--{name} takes whole numbers separated by commas. Received: {','.join(texts)!r}.")
    return [int(text) for text in texts]


def _measure(items: int, options: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, so that this one never holds the training model.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            made = pool.apply(_write, (folder, items, options))
        return _ask(Path(folder) / "1", items, made, options)


def _histories(items: int, batch: int, length: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng([seed, length, batch])
    return [np.sort(random.choice(items, min(length, items), replace=False)) for _ in range(batch)]


def _write(folder: str, items: int, options: dict[str, Any]) -> dict[str, Any]:
    """Exports a generated model and times its NumPy twin."""
    quiet.import_tensorflow()
    from export import plain
    from export.savedmodel import export_model
    from vae_cf_tf.machine import times
    from vae_cf_tf.models.models import build
    from vae_cf_tf.settings.config import Config, flagfile_settings
    from vae_cf_tf.models import tree
from vae_cf_tf.training import checkpoints

    widths = {name: options[name] for name in ("hidden_dim", "latent_dim")}
    published = flagfile_settings(Path(__file__).parents[1] / "trainers" / "flags" / "evcf.flags")
    model = build(Config(**published | widths | {"pseudo_inputs": 1}), items)
    weights = {name: np.asarray(v.value) for name, v in tree.variables(model).items()}
    k = min(options["top_k"], items)
    twin: dict[str, Any] = {}
    for length in options["lengths"]:
        for batch, repeats in ((1, 20), (options["batch"], 3)):
            histories = _histories(items, batch, length, 0)
            seconds = times(lambda h=histories: plain.recommend(weights, h, k), repeats, warm=1)
            twin[f"{batch}x{length}"] = {
                "seconds": float(np.median(seconds)),
                "answer": np.maximum(plain.recommend(weights, histories, k)[1], np.finfo(np.float32).min),
            }
    shapes = {name: v.shape for name, v in weights.items() if _predicts(name)}
    facts = {"config": None, "data_fingerprint": "generated", "metrics": None}
    export_model(model, [str(i) for i in range(items)], {}, facts, folder, options["top_k"], options["weights"])
    return {"twin": twin, "shapes": shapes}


def _predicts(name: str) -> bool:
    """Whether a recommendation reads this kernel."""
    return name.endswith("kernel") and "log_variance" not in name and not name.startswith(("prior", "lower_prior"))


def _ask(version: Path, items: int, made: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    from export import floors
    from vae_cf_tf import machine

    size = 2 if options["weights"] == "bfloat16" else 4
    read, _ = floors.work(made["shapes"], items, 1, 100)
    rate, speed = machine.product_rate(), machine.bandwidth(read * size)
    before = _resident()
    start = time.perf_counter()
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session, session.graph.as_default():
        logging.set_verbosity(logging.ERROR)  # it is called deprecated, and is what the C++ loader corresponds to
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
        load_seconds, resident = time.perf_counter() - start, _resident() - before
        signature = loaded.signature_def["recommend"]
        ask = session.make_callable(
            [signature.outputs[name].name for name in ("item_ids", "scores")], [signature.inputs["history"].name]
        )
        rows = []
        for length in options["lengths"]:
            for batch in (1, options["batch"]):
                repeats = options["requests"] if batch == 1 else max(10, options["requests"] // 10)
                asked = [_request(items, batch, length, seed) for seed in range(repeats + 3)]
                answer = ask(asked[0])[1]
                twin = made["twin"][f"{batch}x{length}"]
                turns = iter(asked)
                seconds = machine.times(lambda turns=turns: ask(next(turns)), repeats)
                read, operations = floors.work(made["shapes"], items, batch, length)
                rows.append(
                    {
                        "batch": batch,
                        "length": length,
                        "p50_ms": 1e3 * float(np.median(seconds)),
                        "p99_ms": 1e3 * float(np.quantile(seconds, 0.99)),
                        "histories_per_second": batch / float(np.median(seconds)),
                        "floor_read_ms": 1e3 * read * size / speed,
                        "floor_gemm_ms": 1e3 * 2 * operations / rate,
                        "numpy_ms": 1e3 * twin["seconds"],
                        "largest_difference_to_numpy": float(np.abs(answer - twin["answer"]).max()),
                    }
                )
        resident_after = _resident() - before
    gc.collect()
    for row in rows:
        histories = _histories(items, row["batch"], row["length"], 0)
        seen = tf.constant(np.concatenate(histories), tf.int32)
        owner = tf.constant(np.repeat(np.arange(row["batch"]), [len(h) for h in histories]), tf.int32)
        row["mask_and_top_k_ms"] = 1e3 * _choosing(items, row["batch"], seen, owner, min(options["top_k"], items))
        row["mask_and_top_k_share"] = row["mask_and_top_k_ms"] / row["p50_ms"]
        limit = FACTOR * max(row["floor_read_ms"], row["floor_gemm_ms"]) + 1e3 * SLACK
        row["goal_ms"] = limit if row["batch"] == 1 else None
        row["goal_met"] = row["p50_ms"] <= limit if row["batch"] == 1 else None
    return {
        "items": items,
        "saved_model_bytes": sum(p.stat().st_size for p in version.rglob("*") if p.is_file()),
        "load_seconds": load_seconds,
        "resident_bytes": resident,
        "resident_bytes_after_requests": resident_after,
        "bandwidth_gb_per_second": speed / 1e9,
        "gemm_gflop_per_second": rate / 1e9,
        "requests": rows,
    }


def _choosing(items: int, batch: int, seen: Any, owner: Any, k: int, turns: int = 10) -> float:
    """Seconds that masking and top-k take: many in one call, less the same call without them."""
    import tensorflow as tf

    from vae_cf_tf import machine
    from vae_cf_tf.evaluation.ranking import top_unseen

    scores = tf.random.normal([batch, items])

    def loop(choose: bool) -> float:
        def run() -> tf.Tensor:
            total = tf.zeros([])
            for i in tf.range(turns):
                turned = scores + tf.cast(i, tf.float32)
                total += top_unseen(turned, seen, owner, k)[0][0, 0] if choose else turned[0, 0]
            return total

        compiled = tf.function(run)
        return float(np.median(machine.times(lambda: compiled().numpy(), 10)))

    return (loop(True) - loop(False)) / turns


def _request(items: int, batch: int, length: int, seed: int) -> np.ndarray:
    histories = _histories(items, batch, length, seed)
    return np.array([[str(i).encode() for i in history] for history in histories], object)


def _resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _machine() -> dict[str, Any]:
    name = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:
        name = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), name)
    import tensorflow as tf

    return {"cpu": name, "cores": os.cpu_count(), "python": platform.python_version(), "tensorflow": tf.__version__}


def _table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['items']:,} items: {found['saved_model_bytes'] / 1e6:,.0f} MB, loaded in "
        f"{found['load_seconds']:.2f} s into {found['resident_bytes'] / 1e6:,.0f} MB "
        f"({found['resident_bytes_after_requests'] / 1e6:,.0f} MB after the requests); "
        f"memory {found['bandwidth_gb_per_second']:.1f} GB/s, "
        f"GEMM {found['gemm_gflop_per_second']:,.0f} GFLOP/s",
        "| batch | history | p50 ms | p99 ms | histories/s | floor: read ms | floor: GEMM ms | goal ms | NumPy ms "
        "| mask + top-k |",
        "| --- " * 10 + "|",
    ]
    for r in found["requests"]:
        goal = "" if r["goal_ms"] is None else f"{r['goal_ms']:.2f} {'met' if r['goal_met'] else 'missed'}"
        lines.append(
            f"| {r['batch']} | {r['length']:,} | {r['p50_ms']:.2f} | {r['p99_ms']:.2f} | "
            f"{r['histories_per_second']:,.0f} | {r['floor_read_ms']:.2f} | {r['floor_gemm_ms']:.2f} | {goal} | "
            f"{r['numpy_ms']:.2f} | {r['mask_and_top_k_share']:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    define_flags()
    sys.exit(commands.run(main))
