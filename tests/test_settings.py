"""Settings: what is refused, how they are written and read, and that their choices are parts that exist."""

import dataclasses
import json

import pytest
from conftest import FLAGFILES

from vae_cf_tf import registries
from vae_cf_tf.errors import UserError
from vae_cf_tf.models.blocks import BLOCKS, INITIALIZERS, STACKS
from vae_cf_tf.registry import Registry
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import DataSettings, Settings
from vae_cf_tf.settings.fields import facts_of
from vae_cf_tf.settings.flagfiles import settings_in
from vae_cf_tf.settings.settings import OldVersion, field_of, groups, names, parsed, parsed_pairs, written
from vae_cf_tf.training.optimizers import OPTIMIZERS


@pytest.mark.parametrize(
    ("values", "message"),
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
        (
            {"latent": "none", "prior": "standard", "prior_own": 0.5},
            "Contradictory flags: --prior_own needs a latent variable",
        ),
        (
            {"latent": "none", "prior": "standard", "prior_own": 0.0, "encoder_passes": 2},
            "Contradictory flags: --encoder_passes needs a latent variable",
        ),
        (
            {"likelihood": "bernoulli", "softmax_samples": 9},
            "Contradictory flags: --softmax_samples is not known for --likelihood=bernoulli",
        ),
        ({"softmax_samples": 9, "first_layer": "dense"}, "Contradictory flags: --softmax_samples takes the items'"),
        ({"softmax_samples": 9, "weight_decay": 0.1}, "Contradictory flags: --softmax_samples updates few rows"),
        ({"no_such": 3}, "There is no setting 'no_such'."),
        ({"epoch": 3}, "There is no setting 'epoch'. Did you mean epochs?"),
        ({"data": "~nosuchuser/x"}, "~nosuchuser/x: ~nosuchuser is nobody's home folder. Write ./~nosuchuser/x for"),
    ],
)
def test_bad_settings_are_named(values, message):
    with pytest.raises(UserError) as error:
        Settings.of(**values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_by_their_flat_names():
    settings = Settings.of(data="x", latent_dim=3, item_path_mb=7, epochs=2, workdir="w")
    sections = settings.data.data, settings.model.latent_dim, settings.item_item.item_path_mb, settings.training.epochs
    assert sections == ("x", 3, 7, 2)
    assert settings.run.workdir == settings["workdir"] == "w"
    flat = settings.flat()
    assert list(flat) == names()
    assert {name: value for name, value in flat.items() if value != Settings()[name]} == {
        **{"data": "x", "latent_dim": 3, "item_path_mb": 7, "epochs": 2, "workdir": "w"},
    }
    assert settings.replaced(epochs=100, workdir="runs/default") == Settings.of(data="x", latent_dim=3, item_path_mb=7)
    assert settings.training.epochs == 2  # the settings themselves stay as they are


def test_no_two_settings_have_one_flat_name():
    fields = [f.name for section in dataclasses.fields(Settings) for f in dataclasses.fields(section.default_factory)]
    assert len(set(fields)) == len(fields) == len(names())


def test_the_headings_of_help_have_every_setting_once():
    assert sorted(name for under in groups().values() for name in under) == sorted(names())


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    settings = Settings.of(data="~/log.csv", item_titles="~", workdir="~/a/~", user_column="~")
    assert settings.data == DataSettings("/home/me/log.csv", item_titles="/home/me", user_column="~")
    assert settings.run.workdir == "/home/me/a/~"
    assert Settings.of(data="./~nosuchuser").data.data == "./~nosuchuser"


def test_a_dictionary_brings_back_the_same_settings():
    settings = Settings.of(data="x", layers=3, beta_cap=0.7)
    assert Settings.from_dict(settings.to_dict()) == settings
    # A version with fewer settings wrote the first, and a person the whole number of the second.
    before = {"turns": "epoch", "average_weights": 0.0, "initial_items": "random"}  # what that version did
    assert Settings.from_dict({"version": 2, "layers": 3}) == Settings.of(layers=3, **before)
    assert Settings.from_dict({"version": 2, "beta_cap": 1}) == Settings.of(beta_cap=1.0, **before)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "no settings"),
        ("{", "Expecting property name"),
        ('{"version": 2, "layers": 3, "no_such": 1}', "unknown setting no_such"),
        ('{"version": 2, "layers": "3"}', "layers is '3'"),
        ('{"version": 2, "layers": true}', "layers is True"),
        ('{"version": 2, "layers": 3.0}', "layers is 3.0"),
        ('{"version": 2, "layers": 0}', "--layers must be at least 1. Received: 0"),
        ('{"version": 3}', "version is 3"),
    ],
)
def test_a_file_that_holds_no_settings(text, words, tmp_path):
    with pytest.raises((ValueError, UserError)) as error:
        Settings.from_dict(json.loads(text))
    assert words in str(error.value)
    assert not isinstance(error.value, OldVersion)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as error:
        Workdir(tmp_path).settings()
    assert str(error.value).startswith(f"{tmp_path / 'config.json'} cannot be read (")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{}", '{"layers": 3}'])
def test_a_workdir_of_an_earlier_version_is_refused(text, tmp_path):
    with pytest.raises(OldVersion):
        Settings.from_dict(json.loads(text))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"was trained by vae_cf_tf 0\.1, .* Give another --workdir, or install"):
        Workdir(tmp_path).settings()
    with pytest.raises(UserError, match=r"is not the workdir of a run: it has no config\.json\. Train one first"):
        Workdir(tmp_path / "other").settings()


def test_differences_are_those_that_make_another_run():
    assert Settings().differences(Settings.of(layers=2, seed=4)) == ["layers", "seed"]
    assert Settings().differences(Settings.of(epochs=3, workdir="elsewhere", eval_batch_size=7)) == []


def test_figures_depend_on_what_weights_are_made_of_and_what_is_made_of_them():
    depend = Settings().figures_depend_on()
    assert {"data", "split_seed", "layers", "epochs", "item_path", "item_path_l2", "seed"} <= set(depend)
    assert not {"workdir", "export_dir", "eval_batch_size", "ease_l2", "checkpoint_seconds"} & set(depend)


def test_values_as_flags_have_them():
    for name, text, value in (
        ("epochs", "3", 3),
        ("beta_cap", "3", 3.0),
        ("data", "3", "3"),
        ("beta_cap", "1e-3", 1e-3),
    ):
        assert parsed(name, text) == value
        assert type(parsed(name, text)) is type(value)
    for value in (0.1, 1e-3, 1 / 3, 123456789.5, 4.0, 7, "user_vamp"):
        assert type(value)(written(value)) == value
    assert written(0.1) == "0.1"
    assert written(4.0) == "4"
    assert parsed_pairs(" layers=2, beta_cap=0.5,") == {"layers": 2, "beta_cap": 0.5}
    for text, words in (
        ("layers=2.5", "--layers takes a whole number. Received: '2.5'."),
        ("beta_cap=much", "--beta_cap takes a number. Received: 'much'."),
        ("layer=2", "There is no setting 'layer'. Did you mean layers?"),
        ("layers", "'layers' is no setting; write NAME=VALUE."),
    ):
        with pytest.raises(UserError) as error:
            parsed_pairs(text)
        assert words in str(error.value)


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_every_flagfile_holds_settings_and_says_what_it_is(path):
    assert path.read_text().startswith("# ")
    Settings.of(**settings_in(path))


def test_every_setting_has_a_help_text():
    for name in names():
        assert facts_of(field_of(name)).help.endswith("."), name


def test_choices_are_the_parts():
    """They stand in the settings too, so that --help needs no TensorFlow."""
    parts = {"block": BLOCKS, "encoder_skips": STACKS, "optimizer": OPTIMIZERS}
    for name, table in parts.items():
        assert set(facts_of(field_of(name)).values()) == set(table)
    # "zeros" is for copies, whose weights are assigned.
    assert set(facts_of(field_of("initializer")).values()) == set(INITIALIZERS) - {"zeros"}
    families = {"latent": "LATENT", "prior": "PRIORS", "likelihood": "LIKELIHOODS", "item_path": "ITEM_ITEM"}
    for name, family in families.items():
        assert facts_of(field_of(name)).family is getattr(registries, family)


@pytest.mark.parametrize("family", [name for name in vars(registries) if name.isupper()])
def test_every_part_of_a_family_is_there(family):
    registry = getattr(registries, family)
    assert isinstance(registry, Registry)
    assert registry.names()
    for name in registry.names():
        assert isinstance(registry[name], type)
    with pytest.raises(UserError, match=f"There is no {registry.family} 'nothing' here.*--extension=MODULE"):
        registry["nothing"]
