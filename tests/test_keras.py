"""Models as Keras users know them: saved and loaded whole, compiled, fitted and asked without the package's trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import EVCF, FLAGFILES, ROOT, built, checkerboard, compiled, small

from vae_cf_tf.linear.base import ItemItemModel, RowBlock
from vae_cf_tf.models import batches, tree
from vae_cf_tf.models.build import build
from vae_cf_tf.models.hybrid import HybridModel, ItemItemLayer
from vae_cf_tf.saving import CLASSES
from vae_cf_tf.settings import ModelSettings

BASELINE = ROOT / "trainers" / "flags" / "baseline.flags"
SETTINGS = {path.stem: small(path) for path in FLAGFILES} | {
    "the batch's posteriors": small(ROOT / "vamp.flags", prior="batch_vamp"),
    "dense dae": small(ROOT / "trainers" / "flags" / "multdae.flags", layers=3, encoder_skips="dense"),
    "gaussian": small(BASELINE, likelihood="gaussian", confidence=7.0),
}
TRAINED = ("vamp", "evcf", "hidden_vamp", "the batch's posteriors", "multdae")
TRAIN, _ = checkerboard()


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda name: name.replace(" ", "_"))
def saved(request, tmp_path_factory):
    """A model with weights of its own, some by training, and the file that it was saved to."""
    model = compiled(SETTINGS[request.param], TRAIN)
    if request.param in TRAINED:
        model.fit(batches.shuffled(TRAIN, 10, seed=0), steps_per_epoch=4, verbose=0)
    else:
        for variable in model.variables:
            variable.assign(variable + np.random.default_rng(0).normal(0, 0.1, variable.shape))
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return model, path


def test_a_saved_and_loaded_model_is_the_same_one(saved):
    model, path = saved
    loaded = keras.models.load_model(path)
    assert type(loaded) is type(model)
    assert loaded.settings == model.settings
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]
    for name, variable in tree.variables(model).items():
        np.testing.assert_array_equal(tree.variables(loaded)[name], variable, err_msg=name)
    histories = batches.ragged(TRAIN)
    for answer in ("__call__", "scores", "embed"):
        np.testing.assert_array_equal(getattr(loaded, answer)(histories), getattr(model, answer)(histories))


@pytest.mark.parametrize("saved", TRAINED, indirect=True)
def test_a_loaded_model_trains_on_as_the_saved_one_does(saved):
    model, path = saved
    loaded = keras.models.load_model(path)
    assert loaded.step_options == model.step_options
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    before, weights = [v.numpy() for v in model.variables], model.optimizer.variables
    state = [v.numpy() for v in weights]
    losses = []
    for each in (model, loaded):
        history = each.fit(batches.shuffled(TRAIN, 10, seed=0, first_pass=1), steps_per_epoch=4, epochs=2, verbose=0)
        losses.append(history.history)
    for variable, value in [*zip(model.variables, before, strict=True), *zip(weights, state, strict=True)]:
        variable.assign(value)  # as the other tests expect it
    assert losses[0] == losses[1]


def test_every_layer_comes_back_from_its_config(saved):
    """What is in a model is registered, and its config makes a layer of the same variables."""
    model, _ = saved
    for path, layer in tree.layers(model).items():
        if not path or path.split("/")[-1] in ("prior", "composite", "hidden_prior"):
            continue  # the model itself, and priors: they are made with the encoder's posterior, by the model
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert type(again) is type(layer), path
        if layer.built and not isinstance(layer, keras.metrics.Metric):
            assert {n: v.shape for n, v in tree.variables(again).items()} == {
                n: v.shape for n, v in tree.variables(layer).items()
            }, path


@pytest.mark.parametrize("saved", ["wide"], indirect=True)
def test_a_sampled_softmax_is_compiled_anew_for_its_data(saved):
    loaded = keras.models.load_model(saved[1])
    assert not loaded.compiled
    with pytest.raises(ValueError, match="`log_inclusion`"):
        loaded.compile("adam")


class GivenMatrix(ItemItemModel):
    def __init__(self, b):
        self.b = b

    @classmethod
    def from_settings(cls, settings):
        raise NotImplementedError

    def fit(self, train, places):
        items = np.arange(len(self.b))
        yield RowBlock(items, items, self.b)


@pytest.mark.parametrize("megabytes", [1, 0.0012], ids=["whole", "by rows"])
def test_a_hybrid_model_is_saved_and_loaded_too(megabytes, tmp_path):
    network = built(small(BASELINE), 20)  # a run is read without compiling it
    layer = ItemItemLayer(20, megabytes, name="item_item")
    assert layer.whole == (megabytes == 1)
    b = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    layer.fit(GivenMatrix(b), TRAIN)
    model = HybridModel(network, layer, 0.3, 0.2)
    model.save(tmp_path / "hybrid.keras")
    loaded = keras.models.load_model(tmp_path / "hybrid.keras")
    histories = batches.ragged(TRAIN)
    np.testing.assert_array_equal(loaded(histories), model(histories))
    np.testing.assert_array_equal(loaded(histories), loaded.call(histories))
    assert np.abs(np.asarray(loaded(histories)) - network(histories)).max() > 0.1


@pytest.mark.parametrize(("name", "dtype"), [("vamp", tf.int64), ("evcf", tf.int32), ("wide", tf.int64)])
def test_keras_alone_trains_it_on_any_dataset_of_histories(name, dtype):
    """compile, fit, evaluate and predict with Keras' own optimiser, on rows that tf.data makes of Python lists."""
    lists = [row.indices.tolist() for row in TRAIN]
    data = tf.data.Dataset.from_tensor_slices(tf.ragged.constant(lists, dtype)).batch(9)
    model = build(SETTINGS[name].model, 20)
    assert isinstance(model, keras.Model)
    inclusion = {"log_inclusion": tf.zeros([20])} if model.settings.softmax_samples else {}
    model.compile("adam", **inclusion)
    history = model.fit(data, epochs=3, validation_data=data, verbose=0).history
    assert {"loss", "nll", "kl", "beta", "val_loss"} <= set(history)
    assert np.isfinite(history["loss"]).all()
    assert history["nll"][-1] < history["nll"][0]
    found = model.evaluate(data, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-5)
    scores = model.predict(data, verbose=0)
    np.testing.assert_allclose(scores, model(batches.ragged(TRAIN)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(scores.astype(np.float64)).sum(1), 1, rtol=1e-4)


def test_a_model_is_cloned_from_its_config():
    model = build(ModelSettings(**EVCF_MODEL), 20, seed=3)
    again = type(model).from_config(model.get_config())
    assert [v.shape for v in again.variables] == [v.shape for v in model.variables]
    assert again.get_config() == model.get_config()


EVCF_MODEL = {name: EVCF[name] for name in ("latent", "prior", "block", "layers", "likelihood")} | {
    "hidden_dim": 8,
    "latent_dim": 4,
    "pseudo_inputs": 3,
    "prior_own": 0.0,
}


def test_every_model_and_optimizer_is_registered():
    for known in CLASSES:
        assert keras.saving.get_registered_name(known) == f"vae_cf_tf>{known.__name__}"
    models = {type(build(SETTINGS[name].model, 20)) for name in ("vamp", "multvae", "multdae")}
    assert len(models) == 3
    assert models <= set(CLASSES)
