"""Forecasts: parameters counted in models that were built, memory and time against measurements."""

import ast
import subprocess
import sys

import numpy as np
import pytest
from conftest import EVCF, FLAGFILES, ROOT, SMALL, built, small
from serving_kit import FACTS
from typed import here, mistake

from export import card
from export.savedmodel import export_model
from trainers.benchmark.__main__ import PRESETS
from vae_cf_tf import forecast as forecasts
from vae_cf_tf.forecast import forecast, parameters
from vae_cf_tf.models.tree import layers
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.flagfiles import settings_in

ITEMS = 31
VARIANTS = [
    {"latent": "flat", "prior": "standard", "prior_own": 0.0, "layers": 3, "decoder_layers": 2, "block": "tanh"},
    {"latent": "flat", "prior": "user_vamp", "prior_own": 0.75, "encoder_skips": "dense"},
    {"latent": "none", "prior": "standard", "prior_own": 0.0, "layers": 1},
    {
        "latent": "none",
        "prior": "standard",
        "prior_own": 0.0,
        "layers": 3,
        "decoder_layers": 0,
        "encoder_skips": "dense",
    },
    {"latent": "hierarchical", "prior": "vamp", "layers": 1, "decoder_layers": 1, "lower_encoder": "items"},
    {"latent": "hierarchical", "prior": "hidden_vamp", "layers": 3, "lower_encoder": "items", "prior_own": 0.5},
    {"latent": "hierarchical", "prior": "batch_vamp", "layers": 2, "lower_encoder": "hidden", "prior_own": 0.5},
]


def count(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize(
    "settings",
    [*(small(path) for path in FLAGFILES), *(Settings.of(**(EVCF | SMALL | more)) for more in VARIANTS)],
    ids=[*(path.stem for path in FLAGFILES), *map(str, range(len(VARIANTS)))],
)
def test_parameters_are_those_of_the_model(settings):
    model, counted = built(settings, ITEMS), parameters(settings.model, ITEMS)
    assert counted.trainable == count(model.trainable_variables)
    assert counted.frozen == count(model.non_trainable_variables)
    rows = [v for layer in layers(model).values() for v in getattr(layer, "variables_by_rows", [])]
    assert counted.by_rows == count(rows)


@pytest.mark.parametrize(
    "name", ["vamp", "multdae", *(pytest.param(n, marks=pytest.mark.slow) for n in ("evcf", "multvae"))]
)
def test_served_parameters_are_those_of_the_export(name, tmp_path):
    settings = small(next(path for path in FLAGFILES if path.stem == name))
    ids = [f"i{n}" for n in range(ITEMS)]
    version = export_model(built(settings, ITEMS), ids, {}, FACTS, tmp_path, 5)
    assert parameters(settings.model, ITEMS).serving == card.read(version)["parameters"]


def of_flagfile(name: str, **more) -> Settings:
    return Settings.of(**(settings_in(ROOT / "trainers" / "flags" / f"{name}.flags") | more))


MEASURED = {  # docs/performance.md: ms a step, peak MiB
    "H+Vamp, ml-20m": (("evcf", {"batch_size": 500}), "ml-20m", 617, 2648),
    "H+Vamp over users, ml-20m": (("evcf", {"batch_size": 500, "prior": "user_vamp"}), "ml-20m", 237, None),
    "H+Vamp, ml-1m": (("evcf", {}), "ml-1m", 147, 1294),
    "H+Vamp over the batch, ml-1m": (("evcf", {"prior": "batch_vamp"}), "ml-1m", 58, None),
    "Multi-VAE, ml-20m": (("baseline", {}), "ml-20m", 140, 1367),
    "Multi-VAE, netflix": (("baseline", {}), "netflix", 143, 1617),
    "sampled, wide": (("wide", {}), "wide", 158, 6103),
}


@pytest.mark.parametrize("name", MEASURED)
def test_the_published_measurements_are_met_within_20_percent(name):
    (flagfile, more), preset, milliseconds, peak = MEASURED[name]
    found = forecast(of_flagfile(flagfile, **more), *PRESETS[preset])
    assert 1000 * found.step_seconds == pytest.approx(milliseconds, rel=0.2)
    if peak:
        assert found.training_peak / 2**20 == pytest.approx(peak, rel=0.2)


SERVED = {(20_108, 1, 10): 2.21, (20_108, 1, 1000): 2.78, (20_108, 64, 100): 13.4, (20_108, 64, 1000): 36.2} | {
    (200_000, 1, 10): 13.1, (200_000, 1, 1000): 13.7, (200_000, 64, 100): 64.3, (200_000, 64, 1000): 101,
}  # fmt: skip


@pytest.mark.parametrize("size", SERVED, ids=str)
def test_a_request_takes_what_was_published_within_20_percent(size):
    items, batch, length = size
    seconds = forecasts.request_seconds(of_flagfile("evcf").model, items, batch, length)
    assert 1000 * seconds == pytest.approx(SERVED[size], rel=0.2)


@pytest.mark.parametrize(("events", "seconds"), [(2_500_000, 2.01), (10_000_000, 5.26), (40_000_000, 21.05)])
def test_preparation_takes_what_was_published_within_20_percent(events, seconds):
    found = forecast(of_flagfile("baseline"), events // 40, 100_000, events)
    assert found.prepare_seconds == pytest.approx(seconds, rel=0.2)


def test_replicas_send_gradients_and_share_the_users():
    """Of whole gradients each sends 2·(R − 1)/R; of a sampled softmax the rows used, whatever the catalogue."""
    settings = of_flagfile("baseline")
    one, four = (forecast(settings, 10**6, 20_000, 10**8, replicas=n) for n in (1, 4))
    assert one.traffic == 0
    assert four.traffic == pytest.approx(1.5 * 4 * four.parameters.trainable)
    assert one.step > four.step
    wide = [forecast(of_flagfile("wide"), 10**6, items, 10**8, replicas=4) for items in (10**6, 10**7)]
    assert wide[0].traffic < 0.1 * 4 * wide[0].parameters.trainable
    assert wide[1].traffic < 1.5 * wide[0].traffic
    assert wide[1].model == pytest.approx(10 * wide[0].model, rel=0.01)


def test_the_command_as_typed():
    sizes = ["--users=5000", "--items=3500", "--events=460000"]
    done = here("trainers.forecast", *sizes, "--flagfile=trainers/flags/baseline.flags", "--processes=2")
    assert done.status == 0, done.stderr
    assert "parameters: 4,565,100 that learn" in done.stdout  # 2·600·3500 + the small layers and the biases
    assert "memory, parameters: 17 MiB\n" in done.stdout
    mistake(here("trainers.forecast", *sizes[:2]), "--events is missing")


SCRIPT = """
import sys
from vae_cf_tf.cli import quiet
quiet.import_tensorflow()
from vae_cf_tf import machine
from vae_cf_tf.data.synthetic import synthetic_matrix
from vae_cf_tf.models import batches
from vae_cf_tf.models.build import build
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.flagfiles import settings_in
from vae_cf_tf.training.compiling import compile_for
from pathlib import Path
import tensorflow as tf
users, items, events = map(int, sys.argv[2:])
train = synthetic_matrix(users, items, events, seed=0)
machine.reset_peak_rss()
settings = Settings.of(**settings_in(Path(sys.argv[1])))
model = compile_for(build(settings.model, items, train), settings.training, train)
model.make_train_function()
tf.function(model.refresh, autograph=False)()
stream = iter(batches.shuffled(train, settings.training.batch_size, 0))
for _ in range(6):
    model.train_function(iter([next(stream)]))
print((int(train.nnz), machine.peak_rss()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [(5_000, 3_500, 460_000), (20_000, 20_000, 1_500_000), (10_000, 50_000, 1_000_000)])
@pytest.mark.parametrize("name", ["baseline", "evcf", "vamp"])
def test_peak_memory_of_training_is_met_within_20_percent(name, size):
    path = next(path for path in FLAGFILES if path.stem == name)
    command = [sys.executable, "-c", SCRIPT, path, *map(str, size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    events, peak = ast.literal_eval(done.stdout.splitlines()[-1])
    found = forecast(Settings.of(**settings_in(path)), *size[:2], events).training_peak / 2**20
    print(f"\n{name} {size}: measured {peak:,.0f} MiB, forecast {found:,.0f}")
    assert found == pytest.approx(peak, rel=0.2)
