"""Every flag is alive: its values are taken, those past its bounds refused, and it changes what it says it changes."""

import csv
import functools
import json
import math
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import FLAGFILES, ROOT, synthetic_events
from typed import here, mistake

from export import versions
from vae_cf_tf.data.prepared import finish, write_split
from vae_cf_tf.data.split import split
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import Settings, SplitSettings
from vae_cf_tf.settings.fields import facts_of
from vae_cf_tf.settings.flagfiles import settings_in
from vae_cf_tf.settings.settings import field_of, names

TINY = ("--hidden_dim=16", "--latent_dim=6", "--pseudo_inputs=5", "--batch_size=32", "--epochs=2", "--ease_l2=50",
        "--learning_rate=0.01")  # fmt: skip
VAMP, EVCF, DAE, BASELINE, WIDE = ("vamp", "evcf", "multdae", "baseline", "wide")
# By flag: the flagfile, other flags, and a value that must change the outcome.
EFFECTS = {
    "user_column": (BASELINE, ("--data=ratings",), "friend"),
    "item_column": (BASELINE, ("--data=ratings",), "other"),
    "rating_column": (BASELINE, ("--data=ratings",), "stars"),
    "timestamp_column": (BASELINE, ("--data=ratings", "--targets=latest", "--timestamp_column=at"), "later"),
    "weight_column": (BASELINE, ("--data=ratings",), "stars"),
    "split": (BASELINE, ("--data=ratings", "--timestamp_column=at"), "time"),
    "cut": (BASELINE, ("--data=ratings", "--timestamp_column=at", "--split=time"), "0.8"),
    "targets": (BASELINE, ("--data=ratings", "--timestamp_column=at"), "latest"),
    "repeats": (BASELINE, ("--data=ratings",), "sum"),
    "weight_scale": (BASELINE, ("--data=ratings", "--weight_column=stars"), "log"),
    "weight_cap": (BASELINE, ("--data=ratings", "--weight_column=stars"), "3"),
    "half_life_days": (BASELINE, ("--data=ratings", "--timestamp_column=at"), "2"),
    "item_titles": (BASELINE, (), "titles.csv"),
    "train_from": (BASELINE, ("--data=prepared", "--item_path=none"), "shards"),
    "threshold": (BASELINE, ("--data=ratings",), "3"),
    "min_items_per_user": (BASELINE, (), "12"),
    "min_users_per_item": (BASELINE, (), "6"),
    "heldout_users": (BASELINE, (), "30"),
    "fold_in_share": (BASELINE, (), "0.6"),
    "split_seed": (BASELINE, (), "3"),
    "target_draws": (BASELINE, (), "continued"),
    "user_draws": (BASELINE, (), "hashed"),
    "split_by": (BASELINE, (), "hash"),
    "heldout_share": (BASELINE, ("--split_by=hash",), "0.2"),
    "training_users": (BASELINE, (), "60"),
    "latent": (BASELINE, (), "hierarchical"),
    "prior": (EVCF, (), "batch_vamp"),
    "prior_own": (EVCF, (), "0.5"),
    "block": (EVCF, (), "tanh"),
    "layers": (EVCF, (), "3"),
    "encoder_skips": (EVCF, (), "dense"),
    "lower_encoder": (EVCF, ("--layers=1",), "hidden"),
    "decoder_layers": (EVCF, (), "1"),
    "hidden_dim": (EVCF, (), "12"),
    "latent_dim": (EVCF, (), "4"),
    "likelihood": (EVCF, (), "bernoulli"),
    "confidence": (BASELINE, ("--likelihood=gaussian",), "20"),
    "confidence_zero": (BASELINE, ("--likelihood=gaussian",), "2"),
    "input_dropout": (EVCF, (), "0.25"),
    "initializer": (EVCF, (), "glorot"),
    "softmax_samples": (WIDE, (), "50"),
    "pseudo_inputs": (EVCF, (), "7"),
    "pseudo_init": (EVCF, (), "users"),
    "item_path": (BASELINE, (), "linear"),
    "item_path_discount": (BASELINE, ("--item_path=linear",), "validation"),
    "item_path_l2": (BASELINE, ("--item_path=linear",), "400"),
    "item_path_mb": (BASELINE, ("--item_path=linear", "--data=wide"), "1"),
    "item_path_max_items": (BASELINE, ("--item_path=linear",), "20"),
    "dtype_policy": (EVCF, (), "mixed_bfloat16"),
    "optimizer": (EVCF, (), "adam"),
    "learning_rate": (EVCF, (), "0.02"),
    "weight_decay": (DAE, (), "0.01"),
    "batch_size": (EVCF, (), "20"),
    "epochs": (EVCF, (), "3"),
    "patience": (BASELINE, ("--epochs=9", "--beta_warmup=0", "--learning_rate=0.2"), "0"),
    "best_by": (BASELINE, ("--epochs=9", "--patience=9", "--beta_cap=1", "--beta_warmup=0"), "elbo"),
    "encoder_passes": (VAMP, (), "1"),
    "initial_items": (EVCF, (), "factors"),
    "turns": (VAMP, (), "epoch"),
    "average_weights": (VAMP, (), "0.5"),
    "beta_cap": (EVCF, ("--beta_warmup=0",), "0.9"),
    "beta_warmup": (EVCF, (), "2"),
    "beta_scale": (EVCF, ("--beta_warmup=0",), "item"),
    "beta_unit": (EVCF, (), "step"),
    "kl": (BASELINE, (), "analytic"),
    "seed": (EVCF, (), "9"),
    "ease_l2": (BASELINE, (), "900"),
    "ease_max_items": (BASELINE, (), "3"),
}
# What no outcome shows, and where it is tested.
NO_EFFECT = {
    "data": "every test",
    "dataset": "test_download",
    "first_layer": "test_models: both forms train alike",
    "eval_batch_size": "test_evaluation: any size gives the same figures",
    "checkpoint_seconds": "test_training",
    "warm_start": "test_warm_start",
    "also_time_split": "test_time_split",
    "distribute": "test_distributed",
    "replicas": "test_distributed",
    "workdir": "every test",
    "export_dir": "test_belonging",
}


@functools.cache
def data() -> dict[str, Path]:
    """Logs by name: of events, of ratings with columns that other flags choose, and of more items."""
    folder = Path(tempfile.mkdtemp(prefix="flags_"))
    (folder / "wide").mkdir()
    log = synthetic_log(users=160, items=130, communities=4, mean_items=20)
    rng, rows = np.random.default_rng(0), ["user_id,item_id,rating,stars,friend,other,at,later"]
    for user, item in zip(log.users, log.items, strict=True):
        rows.append(f"{user},{item},{rng.integers(2, 6)},{rng.integers(2, 6)},{(user * 7) % 160},{(item * 3) % 130}")
    times = np.random.default_rng(1).integers(10**9, 10**9 + 10**6, (len(rows) - 1, 2))
    rows = rows[:1] + [f"{row},{at},{later}" for row, (at, later) in zip(rows[1:], times, strict=True)]
    rows += [row.replace(",5,", ",4,", 1) for row in rows[1::3]]  # repeated events
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    (folder / "titles.csv").write_text("id,title\n" + "".join(f"{item},T {item}\n" for item in log.item_ids))
    (folder / "prepared").mkdir()
    write_split(split(log, SplitSettings(heldout_users=20)), folder / "prepared", shard_users=12)
    finish(folder / "prepared", {}, {"by": "users"}, 12, "a test")
    return {
        "prepared": folder / "prepared",
        "events": synthetic_events(folder),
        "ratings": folder / "ratings.csv",
        "titles.csv": folder / "titles.csv",
        "wide": synthetic_events(folder / "wide", users=160, items=900),
    }


def flag(name: str, value: object) -> str:
    return f"--{name}={data().get(str(value), value)}"


class Refused(Exception):
    """A run ended with status 2 and a line, which this holds."""


def outcome(flagfile: str, *more: str) -> dict:
    """What a run leaves that a user may look at. Raises Refused where it is told to be a user's mistake."""
    keras.backend.clear_session()
    workdir = Path(tempfile.mkdtemp(prefix="flags_"))
    path = next(p for p in FLAGFILES if p.stem == flagfile)
    flags = [f"--flagfile={path}", f"--data={data()['events']}", f"--workdir={workdir / 'w'}", *TINY]
    try:
        typed = here("trainers.main", *flags, *(flag(*f.removeprefix("--").split("=", 1)) for f in more))
        if typed.status == 2:
            raise Refused(mistake(typed))
        assert (typed.status, typed.stderr) == (0, ""), (more, typed)
        return left(workdir / "w")
    finally:
        shutil.rmtree(workdir)


def left(workdir: Path) -> dict:
    values = json.loads((workdir / "metrics.json").read_text())
    with open(workdir / "history.csv") as f:
        rows = [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(f)]
    assert all(math.isfinite(v) for row in rows for v in row.values())
    (version,) = versions.of(workdir / "export")
    ids = (version / "assets" / "item_ids.txt").read_text().split()
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    scores = served(history=tf.constant([ids[:3]]))["scores"].numpy()
    assert np.isfinite(scores).all()
    return {
        "rows": rows,
        "test": values["test"],
        "baselines": values["baselines"],
        "items": ids,
        "scores": scores.tolist(),
        "titles": (version / "assets.extra" / "titles.json").read_text(),
    }


@functools.cache
def base(flagfile: str, more: tuple[str, ...]) -> dict:
    return outcome(flagfile, *more)


def sample(values: list, fast: int, seed: int) -> list:
    """Some of the values for every run of the suite; all, of which these are marked, for the slow one."""
    chosen = set(np.random.default_rng(seed).permutation(len(values))[:fast].tolist())
    return [v if i in chosen else pytest.param(v, marks=pytest.mark.slow) for i, v in enumerate(values)]


def test_the_table_knows_every_flag():
    assert set(EFFECTS) | set(NO_EFFECT) == set(names())
    assert not set(EFFECTS) & set(NO_EFFECT)


@pytest.mark.parametrize("name", sample(list(EFFECTS), fast=4, seed=1))
def test_a_flag_changes_the_outcome(name):
    flagfile, more, value = EFFECTS[name]
    assert outcome(flagfile, *more, f"--{name}={value}") != base(flagfile, more)


def values_of(name: str) -> list[str]:
    """Values that a flag takes."""
    facts = facts_of(field_of(name))
    if facts.values():
        return [value for value in facts.values() if value]
    low = max(facts.low, 0)
    small = [low, low + 1, low + 2] if isinstance(field_of(name).default, int) else [low, low + 0.3, low + 0.7]
    return [str(v) for v in small if v <= facts.high]


def pairs(count: int, seed: int) -> list[tuple[str, ...]]:
    """Random flagfiles with two random settings each."""
    rng = np.random.default_rng(seed)
    known = [n for n in EFFECTS if not n.endswith("_column") and n not in ("item_titles", "epochs", "ease_l2")]
    found = []
    for _ in range(count):
        chosen = [known[i] for i in rng.permutation(len(known))[:2]]
        flags = [f"--{name}={rng.choice(values_of(name))}" for name in chosen]
        found.append((FLAGFILES[rng.integers(len(FLAGFILES))].stem, *flags))
    return found


USERS_MISTAKES = (
    *("Contradictory flags", "lie between 0 and 1", "too few for", "no held-out user", "The catalogue has"),
    *("lie between 0.5 and 1", "needs a data set of trainers.prepare", "training users; give fewer"),
    *("singular", "Training diverged", "needs times", "no column of times", "the data has no ratings"),
)


@pytest.mark.parametrize("flags", sample(pairs(300, seed=7), fast=4, seed=2), ids=" ".join)
def test_random_pairs_of_settings_train_and_serve_or_are_refused_in_a_line(flags):
    line = ""
    try:
        outcome(*flags)
    except Refused as refused:
        line = str(refused)
    assert not line or any(words in line for words in USERS_MISTAKES), line


@pytest.mark.parametrize("name", names())
def test_bounds_and_choices_are_kept(name):
    facts, kind = facts_of(field_of(name)), type(field_of(name).default)
    if facts.values():
        with pytest.raises(UserError, match=f"--{name} must be one of"):
            Settings.of(**{name: "nonsense"})
        mistake(here("trainers.main", f"--{name}=nonsense"), f"--{name} takes one of ")
    elif kind is bool:
        mistake(here("trainers.main", f"--{name}=nonsense"), f"--{name} takes true or false. Received: 'nonsense'.")
    elif kind is not str:
        mistake(here("trainers.main", f"--{name}=nonsense"), f"--{name} takes a ", "'nonsense'")
        step = 1 if kind is int else 1e-9
        if facts.low > -math.inf:
            with pytest.raises(UserError, match=f"--{name}"):
                Settings.of(**{name: kind(facts.low - step)})
        if facts.high < math.inf:
            with pytest.raises(UserError, match=f"--{name}"):
                Settings.of(**{name: kind(facts.high + step)})


def test_messages_suggest_what_was_meant(tmp_path):
    mistake(here("trainers.main", "--epoch=3"), "There is no flag --epoch. Did you mean --epochs?")
    mistake(here("trainers.main", "--beta-cap=3"), "Did you mean --beta_cap?")
    mistake(here("trainers.main", "vamp.flags"), "Did you mean --flagfile=vamp.flags?")
    mistake(here("trainers.main", "epochs=3"), "Did you mean --epochs=3?")
    mistake(here("trainers.main", "extra"), "Unknown argument 'extra'. Settings are given as --name=value.")
    mistake(here("trainers.main", "--epochs"), "--epochs has no value. Write --epochs=VALUE.")
    mistake(here("trainers.main", "--flagfile"), "--flagfile has no value.")
    mistake(here("trainers.main", "--flagfile=nowhere.flags"), "nowhere.flags cannot be read", "Shipped ones: ")
    mistake(here("trainers.main", "--flagfile=evcf.flags"), "Did you mean --flagfile=", "trainers/flags/evcf.flags?")
    path = tmp_path / "my.flags"
    for text, words in (
        ("latent=flat\n", "a line that is no flag: 'latent=flat'"),
        ("--flagfile=my.flags\n", "includes it"),
        ("--flagfile=other.flags\n", "other.flags cannot be read"),
        ("--epochs=many\n", "--epochs takes a whole number. Received: 'many'."),
    ):
        path.write_text(text)
        mistake(here("trainers.main", f"--flagfile={path}"), words)
    path.write_bytes(b"--workdir=\xff\n")
    mistake(here("trainers.main", f"--flagfile={path}"), "is not UTF-8 text")


@pytest.mark.parametrize(
    "module",
    ["trainers.main", "trainers.sweep", "trainers.report", "trainers.benchmark", "export.main", "export.score",
     "export.client", "export.inspect", "export.benchmark"],
)  # fmt: skip
def test_help_ends_well_and_names_every_flag(module):
    typed = here(module, "--help")
    assert (typed.status, typed.stderr) == (0, "")
    assert f"Usage: python -m {module} " in typed.stdout
    if module.startswith("trainers") and module != "trainers.report":
        assert all(f"--{name}=" in typed.stdout for name in names())
        places = [typed.stdout.index(f"\n{title}:\n") for title in ("Most used", "Data", "Split", "Model", "Training")]
        assert places == sorted(places)


def test_the_defaults_are_the_default_models():
    assert Settings.of(**settings_in(ROOT / "vamp.flags") | {"workdir": Settings()["workdir"]}) == Settings()
