import numpy as np
import pytest
import scipy.sparse as sp
from conftest import ROOT, small_config

from trainers import benchmark, floor
from vae_cf_tf.errors import UserError
from vae_cf_tf.models.models import build

BASELINE = ROOT / "trainers" / "flags" / "baseline.flags"
EVCF = ROOT / "trainers" / "flags" / "evcf.flags"
B, M, H, Z, K = 10, 50, 32, 8, 6


def counted(config, mean_history=4.0):
    return {part.name: part for part in floor.parts(build(config, M), config, mean_history)}


def test_operations_of_multi_vae_are_those_of_its_layers():
    dense = counted(small_config(BASELINE, first_layer="dense"))["users' products"].operations
    inner = 3 * 2 * B * (2 * H * Z + Z * H + H * M)  # forward and two gradients of heads, decoder block, output
    assert dense == 2 * 2 * B * M * H + inner
    parts = counted(small_config(BASELINE, first_layer="sparse"))
    assert parts["users' products"].operations == inner
    assert parts["sparse first layer"].bytes == 4 * H * (B * 4.0 * 0.5 + M)
    variables = M * H + H + 2 * (H * Z + Z) + Z * H + H + H * M + M
    optimiser = next(part for name, part in parts.items() if name.startswith("optimiser"))
    assert optimiser.bytes == 28 * variables


def test_operations_of_the_vampprior_are_those_of_its_pseudo_inputs():
    vamp = counted(small_config(EVCF))["pseudo-inputs' products"].operations
    hidden = counted(small_config(EVCF, prior="hidden_vamp"))["pseudo-inputs' products"].operations
    behind = 3 * 2 * K * (2 * H * H + 2 * H * Z) + 2 * 3 * 2 * B * K * Z  # second gated block, heads; the mixture
    assert hidden == behind
    assert vamp == behind + 3 * 2 * K * M * 2 * H


def test_a_benchmark_reports_what_it_measured(monkeypatch):
    monkeypatch.setitem(benchmark.PRESETS, "ml-1m", (40, 400, 400))
    variants = [("as given", small_config(EVCF)), ("no prior", small_config(BASELINE, dtype_policy="mixed_bfloat16"))]
    results = benchmark.benchmark(variants, "ml-1m", steps=3)
    assert [r["settings"] for r in results] == ["as given", "no prior"]
    for r in results:
        assert r["users_per_second"] == pytest.approx(1e3 * B / r["ms_per_step"], rel=0.3)
        assert r["floor_ms"] == pytest.approx(sum(r["floors_ms"].values()), abs=0.5)
        assert r["first_layer"] == "sparse"
        assert min(r["gflop_per_second"].values()) >= 0
        assert set(r["first_layer_ms"]) == {"sparse", "dense"}
        assert np.isfinite(list(r["parts_ms"].values())).all()
    assert {"prior, within forward"} <= set(results[0]["parts_ms"])


def test_compared_settings_are_checked():
    config = small_config(EVCF)
    name, other = benchmark._overridden(config, "layers=3,prior=standard")
    assert (name, other.layers, other.prior) == ("layers=3,prior=standard", 3, "standard")
    with pytest.raises(UserError, match=r"There is no setting 'layer'\. Did you mean layers\?"):
        benchmark._overridden(config, "layer=3")
    with pytest.raises(UserError, match=r"--layers takes a whole number\. Received: 'x'"):
        benchmark._overridden(config, "layers=x")


def test_a_sparse_matrix_of_a_presets_shape_chooses_the_sparse_layer():
    train = sp.random(100, 400, 0.01, format="csr", dtype=np.float32, random_state=0)
    assert build(small_config(BASELINE), 400, train).sparse_input


def test_a_wide_catalogue_counts_with_its_candidates(monkeypatch):
    monkeypatch.setitem(benchmark.PRESETS, "wide", (200, 500, 900))
    config = small_config(ROOT / "trainers" / "flags" / "wide.flags", softmax_samples=20)
    (result,) = benchmark.benchmark([("as given", config)], "wide", steps=3, own_items=9_000)
    assert result["items"] == 9_000
    assert result["first_layer"] == "sparse"
    optimiser = next(ms for name, ms in result["floors_ms"].items() if name.startswith("optimiser"))
    assert optimiser < 0.1 * 28 * 2 * 9_000 * 32 / result["bandwidth_gb_per_second"] / 1e6
    train = sp.random(200, 9_000, 0.001, format="csr", dtype=np.float32, random_state=0)
    model = build(config, 9_000, train)
    assert 20 + 5 * 9 * 0.5 < floor.catalogue(model) < 20 + 10 * 9 * 1.5
