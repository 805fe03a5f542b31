"""Measures a served model of a given size on this machine: `python -m export.benchmark --items=20108,200000`.

The model is H+Vamp gated, two layers, with generated weights, and is asked through the C++ session that TF Serving
runs. Beside each figure stand its floor and the same network in plain NumPy, all measured in the same run; the goal is
p50 ≤ 1.5 × the larger floor + 0.3 ms for a batch of one. The last columns are of `recommend_filtered`, for the same
histories with --candidates each.
"""

import json
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from vae_cf_tf.cli import commands
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.files import written_aside

if TYPE_CHECKING:
    from export.benchmark import measurement
    from vae_cf_tf import machine
else:
    measurement, machine = LazyModule("export.benchmark.measurement"), LazyModule("vae_cf_tf.machine")


def define_flags() -> None:
    flags.DEFINE_list("items", ["20108", "200000"], "Sizes of the catalogues.")
    flags.DEFINE_list("lengths", ["10", "100", "1000"], "Items of a history.")
    flags.DEFINE_integer("hidden_dim", 600, "Units of a hidden block.", lower_bound=1)
    flags.DEFINE_integer("latent_dim", 200, "Dimensions of each latent variable.", lower_bound=1)
    flags.DEFINE_integer("top_k", 100, "Items of a recommendation.", lower_bound=1)
    flags.DEFINE_integer("candidates", 100, "Candidates of a request that has some, drawn at random.", lower_bound=1)
    flags.DEFINE_integer("requests", 200, "Requests of one history that are timed, for each length.", lower_bound=10)
    flags.DEFINE_integer("batch", 64, "Histories of a request whose throughput is measured.", lower_bound=1)
    flags.DEFINE_enum("weights", "float32", ["float32", "bfloat16"], "Type of the kernels in the SavedModel.")
    commands.define_path("output", "", "JSON file for the figures; empty: none.")


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    sizes, lengths = commands.whole_numbers("items"), commands.whole_numbers("lengths")
    names = ("hidden_dim", "latent_dim", "top_k", "batch", "weights", "requests", "candidates")
    given: dict[str, Any] = {name: values[name].value for name in names}
    options = measurement.Options(**given, lengths=lengths)
    catalogues = []
    for items in sizes:
        print(f"{items:,} items: writing the model …", file=sys.stderr)
        catalogues.append(measurement.measured(items, options))
        print(_table(catalogues[-1]))
    if values.output:
        results = {"machine": machine.description(), "settings": options._asdict(), "catalogues": catalogues}
        with written_aside(values.output) as aside:
            aside.write_text(json.dumps(results, indent=1) + "\n")


def _table(figures: dict[str, Any]) -> str:
    """A line about the model, and a Markdown table with a row for each kind of request."""
    lines = [
        f"{figures['items']:,} items: {figures['saved_model_bytes'] / 1e6:,.0f} MB, loaded in "
        f"{figures['load_seconds']:.2f} s into {figures['resident_bytes'] / 1e6:,.0f} MB "
        f"({figures['resident_bytes_after_requests'] / 1e6:,.0f} MB after the requests); "
        f"memory {figures['bandwidth_gb_per_second']:.1f} GB/s, "
        f"GEMM {figures['gemm_gflop_per_second']:,.0f} GFLOP/s",
        "| batch | history | p50 ms | p99 ms | histories/s | floor: read ms | floor: GEMM ms | goal ms | NumPy ms "
        f"| mask + top-k | {figures['candidates']:,} candidates: p50 ms | of the whole |",
        "| --- " * 12 + "|",
    ]
    for r in figures["requests"]:
        goal = "" if r["goal_ms"] is None else f"{r['goal_ms']:.2f} {'met' if r['goal_met'] else 'missed'}"
        lines.append(
            f"| {r['batch']} | {r['length']:,} | {r['p50_ms']:.2f} | {r['p99_ms']:.2f} | "
            f"{r['histories_per_second']:,.0f} | {r['floor_read_ms']:.2f} | {r['floor_gemm_ms']:.2f} | {goal} | "
            f"{r['numpy_ms']:.2f} | {r['mask_and_top_k_share']:.0%} | {r['candidates_p50_ms']:.2f} | "
            f"{r['candidates_p50_ms'] / r['p50_ms']:.0%} |"
        )
    return "\n".join(lines)


def run() -> int:
    return commands.run(main, define_flags)


if __name__ == "__main__":
    sys.exit(run())
