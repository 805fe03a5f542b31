"""Forecasts: parameters counted in models that were built, memory and time against measurements."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import EVCF, FLAGFILES, ROOT, SMALL, built, small
from serving_kit import FACTS
from typed import here, mistake

from export import card
from export.savedmodel import export_model
from vae_cf_tf.forecast import forecast, parameters
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
    assert counted.frozen == count(model.non_trainable_variables) - 2 * len(model.trackers)
    rows = [v for layer in model._flatten_layers() for v in getattr(layer, "variables_by_rows", [])]
    assert counted.by_rows == count(rows)
