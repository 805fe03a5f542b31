"""The benchmark of serving, at toy size: its figures are complete and its arithmetic is that of the network."""

import json

import pytest
import tensorflow as tf
from conftest import ROOT, built, small
from typed import here, mistake, process

from export.benchmark import floors


def test_the_command_measures_and_writes_json(tmp_path):
    typed = process(
        "export.benchmark", "--items=300", "--lengths=3,500", "--hidden_dim=16", "--latent_dim=4", "--requests=10",
        "--batch=3", "--candidates=7", f"--output={tmp_path / 'out.json'}",
    )  # fmt: skip
    assert typed.status == 0, typed.stderr[-2000:]
    assert typed.stderr == "300 items: writing the model …\n"
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["machine"].keys() == {"cpu", "cores", "python", "tensorflow"}
    assert (results["settings"]["hidden_dim"], results["settings"]["lengths"]) == (16, [3, 500])
    assert "| 1 | 3 |" in typed.stdout
    (catalogue,) = results["catalogues"]
    assert [(r["batch"], r["length"]) for r in catalogue["requests"]] == [(1, 3), (3, 3), (1, 500), (3, 500)]
    for row in catalogue["requests"]:
        assert row["largest_difference_to_numpy"] < 1e-5
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["candidates_p50_ms"] > 0
        assert min(row["floor_read_ms"], row["floor_gemm_ms"], row["numpy_ms"]) > 0
    first, *others = catalogue["requests"]
    assert first["goal_ms"] == pytest.approx(1.5 * max(first[f"floor_{kind}_ms"] for kind in ("read", "gemm")) + 0.3)
    assert first["goal_met"] == (first["p50_ms"] <= first["goal_ms"])
    assert [row["goal_ms"] is None for row in others] == [True, False, True]


@pytest.mark.parametrize("hidden", [8, 1000])
def test_the_floors_count_what_a_request_needs(hidden):
    """Of H+Vamp gated with two layers; no layer is told by its width, which may be the catalogue's."""
    items, z = 1000, 4
    settings = small(ROOT / "trainers" / "flags" / "evcf.flags", hidden_dim=hidden, latent_dim=z, first_layer="sparse")
    model = built(settings, items)
    histories = tf.ragged.constant([[1, 2, 3], [3, 4], []], tf.int32, row_splits_dtype=tf.int32)
    of_items = 2 * 2 * hidden  # of an item: linear and gate, of the encoder and of the lower encoder
    encoder = 2 * hidden * hidden + hidden * z
    lower_encoder = 2 * z * hidden + 2 * 2 * hidden * hidden + hidden * z
    decoder = 2 * 2 * z * hidden + 2 * 2 * hidden * hidden + hidden * items
    dense = encoder + lower_encoder + decoder
    assert floors.work_of(model, histories) == (4 * of_items + dense, 5 * of_items + 3 * dense)
    dense -= hidden * (items - 2)
    some = tf.constant([7, 0], tf.int32)
    assert floors.work_of(model, histories, some) == (4 * of_items + dense, 5 * of_items + 3 * dense)


def test_bad_flags_are_one_line():
    line = mistake(here("export.benchmark", "--items=ten"))
    assert line == "Error: --items takes whole numbers separated by commas. Received: 'ten'.\n"
