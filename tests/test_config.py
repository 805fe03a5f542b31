import dataclasses

import pytest
from conftest import FLAGFILES, flagfile_settings

from vae_cf_tf.errors import UserError
from vae_cf_tf.settings.config import Config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent": "two"}, "--latent must be one of none, flat, hierarchical. Received: 'two'"),
        ({"layers": 0}, "--layers must be at least 1. Received: 0"),
        ({"input_dropout": 1.0}, "--input_dropout must be at least 0 and at most 0.99"),
        ({"fold_in_share": 1.0}, "--fold_in_share must lie between 0 and 1"),
        ({"learning_rate": -1.0}, "--learning_rate"),
        ({"seed": -1}, "--seed"),
        ({"ease_l2": "700;20"}, "--ease_l2 takes positive numbers"),
        ({"ease_l2": "nan"}, "--ease_l2 takes positive numbers"),
        ({"threshold": float("nan")}, "--threshold must be a finite number"),
        ({"beta_cap": float("inf")}, "--beta_cap must be a finite number"),
        ({"workdir": ""}, "--workdir is empty"),
        ({"ease_l2": "0"}, "--ease_l2 takes positive numbers"),
        ({"data": "x", "dataset": "ml-1m"}, "Contradictory flags: --data and --dataset"),
        ({"latent": "none"}, "Contradictory flags: --prior=user_vamp needs a latent variable"),
        ({"kl": "analytic"}, "Contradictory flags: --kl=analytic"),
        ({"likelihood": "gaussian", "confidence": 1.0}, "Contradictory flags: --confidence"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(UserError) as error:
        Config(**settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_json_brings_back_the_same_configuration():
    config = Config(data="x", layers=3, beta_cap=0.7)
    assert Config.from_json(config.to_json()) == config
    assert Config.from_json('{"layers": 3}') == Config(layers=3)  # a version with fewer settings
    for text in ('{"layers": 3, "no_such": 1}', "[]", "{}"):
        with pytest.raises(ValueError, match="not a configuration"):
            Config.from_json(text)


def test_differences_are_those_that_make_another_run():
    assert Config().differences(Config(layers=2, seed=4)) == ["layers", "seed"]
    assert Config().differences(Config(epochs=3, workdir="elsewhere", eval_batch_size=7)) == []


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_every_flagfile_is_a_configuration_that_says_what_it_is(path):
    assert path.read_text().startswith("# ")
    Config(**flagfile_settings(path))


def test_every_setting_has_a_help_text():
    for field in dataclasses.fields(Config):
        assert field.metadata["help"].endswith("."), field.name


def test_choices_are_the_registries():
    """The choices stand in Config too, so that --help needs no TensorFlow."""
    from vae_cf_tf.models.blocks import BLOCKS, INITIALIZERS
    from vae_cf_tf.models.likelihoods import LIKELIHOODS
    from vae_cf_tf.models.models import MODELS
    from vae_cf_tf.models.priors import PRIORS
    from vae_cf_tf.training.optimizers import OPTIMIZERS

    registries = {"latent": MODELS, "prior": PRIORS, "block": BLOCKS, "likelihood": LIKELIHOODS}
    registries |= {"optimizer": OPTIMIZERS, "initializer": INITIALIZERS}
    choices = {field.name: set(field.metadata["choices"]) for field in dataclasses.fields(Config)}
    for name, registry in registries.items():
        assert choices[name] == set(registry)
