"""Item vectors that start from factors, and the sampled softmax that a wide catalogue gets by itself."""

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import ROOT, SMALL, built

from vae_cf_tf.errors import UserError
from vae_cf_tf.linear.factors import ImplicitFactors
from vae_cf_tf.models import tree
from vae_cf_tf.settings import ModelSettings, Settings
from vae_cf_tf.settings.flagfiles import settings_in
from vae_cf_tf.settings.model import SAMPLES, WIDE
from vae_cf_tf.training.initial_items import start_from_factors


@pytest.mark.parametrize("name", ["vamp", "trainers/flags/evcf", "trainers/flags/multdae", "trainers/flags/wide"])
def test_kernels_of_items_get_the_factors_and_nothing_else_changes(rng, name):
    train = sp.csr_matrix((rng.random((300, 40)) < np.linspace(0.02, 0.4, 40)).astype(np.float32))
    model = built(Settings.of(**{**settings_in(ROOT / f"{name}.flags"), **SMALL}), 40)
    before = {path: variable.numpy() for path, variable in tree.variables(model).items()}
    start_from_factors(model, train, seed=5)
    after = {path: variable.numpy() for path, variable in tree.variables(model).items()}
    changed = {path for path in after if not np.array_equal(before[path], after[path])}
    assert any("decoder" in path for path in changed)
    assert len(changed) > 1
    assert not any("gate" in path or "bias" in path for path in changed)
    factors = ImplicitFactors(model.settings.latent_dim, seed=5).fit(train)
    for path in changed:
        if "decoder" in path:
            output = model.decoder.output_layer
            rows = after[path] if output.transposed else after[path].T
            expected, part = factors.decoder, rows[:, : factors.decoder.shape[1]]
            assert (part**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)
        else:
            expected = factors.encoder
            part = after[path][:40, : factors.encoder.shape[1]]
            hidden = train @ part / np.sqrt(np.maximum(np.diff(train.indptr), 1))[:, None]
            assert np.square(hidden).mean() == pytest.approx(1, rel=1e-3)
        np.testing.assert_allclose(part / np.linalg.norm(part), expected / np.linalg.norm(expected), atol=1e-5)


def test_a_wide_catalogue_is_sampled_by_itself():
    assert ModelSettings().for_catalogue(WIDE - 1).softmax_samples == 0
    assert ModelSettings().for_catalogue(WIDE).softmax_samples == SAMPLES
    assert ModelSettings(softmax_samples=0).for_catalogue(WIDE).softmax_samples == 0
    assert ModelSettings(softmax_samples=7).for_catalogue(5).softmax_samples == 7
    assert ModelSettings(likelihood="gaussian").for_catalogue(WIDE).softmax_samples == 0
    assert ModelSettings(first_layer="dense").for_catalogue(WIDE).softmax_samples == 0
    with pytest.raises(UserError, match="softmax_samples"):
        ModelSettings(softmax_samples=-2)
