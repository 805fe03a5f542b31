"""The flexible prior as data grows: ELBO of held-out users, fewer training users, made-up communities, tuned sweeps."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import tensorflow as tf
from conftest import ROOT, compiled, small
from test_sweep import finish, metrics_json
from typed import here, mistake

from trainers.sweep import growth, plans, results, scheduling, tuning
from trainers.sweep.runs import all_runs
from vae_cf_tf.data.split import split, with_training_users
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import latent
from vae_cf_tf.evaluation.density import density_of
from vae_cf_tf.files import read_json
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings import SplitSettings

EVCF = ROOT / "trainers" / "flags" / "evcf.flags"
NEW = ("elbo", "elbo_nll", "elbo_kl")


def log_normal(z, mean, log_variance):
    """log N(z; mean, exp log_variance) of scalars."""
    return -0.5 * ((z - mean) ** 2 / np.exp(log_variance) + log_variance + np.log(2 * np.pi))


@pytest.mark.parametrize("own", [0.0, 0.75])
@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_the_elbo_is_the_integral_and_a_bound(rng, prior, own):
    """One latent dimension: all integrals over z are sums over a fine grid."""
    users = sp.csr_matrix((rng.random((5, 20)) < 0.3).astype(np.float32))
    model = compiled(small(EVCF, latent="flat", prior=prior, prior_own=own, latent_dim=1, layers=1), users)
    model.refresh()
    found = density_of(model)(users, 2, 400)
    grid = np.linspace(-8, 8, 4001)
    step = grid[1] - grid[0]
    log_p = np.asarray(model.likelihood(model.decode(tf.constant(grid[:, None], tf.float32))).item_log_probs())
    if prior == "standard":
        log_prior = log_normal(grid, 0.0, 0.0)
    else:
        u = np.clip(model.prior.base.pseudo_inputs if own else model.prior.pseudo_inputs, 0, 1)
        means, log_variances = (np.asarray(part)[:, 0] for part in model.encoder(tf.constant(u)))
        components = [log_normal(grid, m, v) for m, v in zip(means, log_variances, strict=True)]
        log_prior = np.logaddexp.reduce(components, axis=0) - np.log(len(components))
    rows = users.toarray()
    x = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means, log_variances = (np.asarray(part)[:, 0] for part in model.encoder(tf.constant(x, tf.float32)))
    for user in range(5):
        log_q = log_normal(grid, means[user], log_variances[user])
        q = np.exp(log_q) * step
        nll = -np.sum(q * (log_p @ rows[user]))
        kl = np.sum(q * (log_q - log_prior))
        variances = [np.sum(q * part**2) - np.sum(q * part) ** 2 for part in (log_p @ rows[user], log_q - log_prior)]
        errors = 5 * np.sqrt(np.array([*variances, 2 * sum(variances)]) / 400) + 0.01
        evidence = np.log(np.sum(np.exp(log_p @ rows[user] + log_prior)) * step)
        assert found["elbo_nll"][user] == pytest.approx(nll, abs=errors[0])
        assert found["elbo_kl"][user] == pytest.approx(kl, abs=errors[1])
        assert found["elbo"][user] == pytest.approx(-nll - kl, abs=errors[2])
        assert -nll - kl < evidence + 1e-6


def test_the_elbo_of_a_hierarchy_knows_no_user_in_its_prior_and_draws_the_same_again(rng):
    users = sp.csr_matrix((rng.random((30, 20)) < 0.3).astype(np.float32))
    plain, own = (compiled(small(EVCF, layers=1, prior_own=share), users) for share in (0.0, 0.75))
    own.refresh()
    expected = density_of(plain)(users, 7)
    for name, values in density_of(own)(users, 7).items():  # same seed, same weights
        np.testing.assert_allclose(values, expected[name], rtol=1e-5)
    np.testing.assert_array_equal(density_of(plain)(users, 7)["elbo"], expected["elbo"])
    assert not np.allclose(own.terms(_ragged(users), tf.constant([0, 0])).kl, expected["elbo_kl"])
    assert density_of(compiled(small(EVCF, latent="none", prior="standard", layers=1), users)) is None


def _ragged(users):
    return tf.RaggedTensor.from_row_splits(users.indices, users.indptr)


def test_diagnosis_counts_active_dimensions_of_each_variable(rng):
    users = sp.csr_matrix((rng.random((60, 20)) < 0.3).astype(np.float32))
    model = compiled(small(EVCF, layers=1, latent_dim=4), users)
    told = latent.diagnosis(model, users, users, 16)
    z1, z2 = (np.asarray(z) for z in model.latent(_ragged(users)))
    assert told["active"] == [int(np.sum(z.var(axis=0) > 0.01)) for z in (z2, z1)]
    assert (told["dimensions"], told["components"]) == (4, 6)
    assert 1 <= told["components_in_use"] <= 6
    for variable in model.encoder.heads.variables:
        variable.assign(tf.zeros_like(variable))  # every user has the same posterior
    assert latent.diagnosis(model, users, users, 16)["active"][0] == 0


def test_fewer_training_users_leave_all_else():
    data = split(synthetic_log(users=300, items=150, communities=3, mean_items=10), SplitSettings(heldout_users=40))
    few, more = (with_training_users(data, users, 5) for users in (30, 90))
    rows = {tuple(row.indices) for row in data.train}
    of_few, of_more = ({tuple(row.indices) for row in part.train} for part in (few, more))
    assert few.train.shape == (30, data.train.shape[1])
    assert of_few < of_more < rows
    for part in ("validation", "test"):
        assert getattr(few, part) is getattr(data, part)
    assert few.item_ids == data.item_ids
    with pytest.raises(UserError, match="--training_users=221, and the data has 220 training users"):
        with_training_users(data, 221, 5)


def test_weights_stay_with_their_users():
    data = split(synthetic_log(users=60, items=120, communities=2, mean_items=8), SplitSettings(heldout_users=9))
    weighted = type(data)(**vars(data) | {"weights": data.train.indices.astype(np.float32) + 1})
    few = with_training_users(weighted, 7, 0)
    np.testing.assert_array_equal(few.weights, few.train.indices + 1)


def test_a_made_up_log_is_written_whole_and_the_same_again(tmp_path):
    given = ["--users=80", "--items=110", "--communities=3", "--mean_items=8", "--seed=4"]
    for name in ("a.csv", "b.csv.gz"):
        result = here("trainers.generate", f"--out={tmp_path / name}", *given)
        assert (result.status, result.stderr) == (0, "")
        assert "80 users in 3 communities" in result.stdout
    a, b = (pd.read_csv(tmp_path / name) for name in ("a.csv", "b.csv.gz"))
    pd.testing.assert_frame_equal(a, b)
    log = synthetic_log(4, 80, 110, 3, 8)
    assert a["item_id"].tolist() == log.item_ids[log.items].tolist()
    assert a["user_id"].tolist() == log.user_ids[log.users].tolist()
    mistake(here("trainers.generate", f"--out={tmp_path / 'c.txt'}"), "c.txt", ".csv")
    mistake(here("trainers.generate"), "--out")
    mistake(here("trainers.generate", "--out=x.csv", "--communities=0"), "communities")


def test_without_own_taste_users_of_a_community_are_closer():
    """Two users of one community share more items when they have no taste of their own."""

    def overlap(own_taste):
        log = synthetic_log(1, 200, 300, 1, 30, own_taste)
        rows = sp.csr_matrix((np.ones(len(log.users)), (log.users, log.items)))
        together = (rows @ rows.T).toarray()
        return together[np.triu_indices(200, 1)].mean()

    assert overlap(0.0) > 1.1 * overlap(3.0)


def growth_settings(**more):
    return small(EVCF, **more)


def test_growth_is_six_variants_each_with_the_same_values_to_tune():
    points = plans.expand("growth", growth_settings(), [], [], [])
    assert len(points) == 18
    by_variant: dict = {}
    for point in points:
        tuned = tuple(point.settings[name] for name in ("beta_cap", "best_by"))
        by_variant.setdefault(point.variant, []).append(tuned)
    assert len(by_variant) == 6
    assert set(map(tuple, by_variant.values())) == {((0.1, "ndcg@100"), (0.3, "ndcg@100"), (1.0, "elbo"))}
    more = plans.expand("growth", growth_settings(), [], [], [], ["learning_rate=1e-3,2e-3"])
    assert len(more) == 36
    assert {p.variant for p in more} == set(by_variant)


def fake_values(run, rng):
    """β = .3 is best by NDCG@100 on validation and worst on test; β = 1 is best by the ELBO."""
    cap, vamp = run.settings["beta_cap"], run.settings["prior"] == "vamp"
    values = {}
    for part in ("test", "validation"):
        for metric in (*results.METRICS, *NEW):
            values[f"{part}/{metric}"] = rng.random(50) * 0.01 + 0.1 * vamp
        values[f"{part}/ndcg@100"] += (cap == 0.3) * (1 if part == "validation" else -1)
        values[f"{part}/elbo"] += cap * 10
    return values


def finish_growth(run, rng):
    finish(run, fake_values(run, rng))
    of_mixture = {"components": 6, "components_in_use": 2.5} if run.settings["prior"] == "vamp" else {}
    Workdir(run.folder).write_metrics(metrics_json(latent={"active": [3], "dimensions": 8} | of_mixture))


def test_tuning_chooses_on_validation_for_each_criterion(tmp_path, rng):
    points = plans.expand("growth", growth_settings(), [], [], [])
    runs = all_runs(points, [0], tmp_path)
    for run in runs:
        finish_growth(run, rng)
    chosen = tuning.chosen(runs, ("ndcg@100", "elbo"))
    assert {name: {p.settings["beta_cap"] for p in points} for name, points in chosen.items()} == {
        "ndcg@100": {0.3},
        "elbo": {1.0},
    }
    assert [len(points) for points in chosen.values()] == [6, 6]


@pytest.fixture
def swept(tmp_path, monkeypatch, rng):
    """A sweep of plan growth as typed, whose runs are made up: its folder, and what was run."""
    log = tmp_path / "log.csv"
    assert here("trainers.generate", f"--out={log}", "--users=300", "--items=150").status == 0
    made = []

    def carry_out(runs, *_):
        for run in runs:
            if run.seconds() is None:
                made.append(run)
                finish_growth(run, rng)
        return {}

    monkeypatch.setattr(scheduling, "carry_out", carry_out)
    monkeypatch.setattr(scheduling, "evaluate_baselines", lambda *_: None)
    given = ["--plan=growth", f"--data={log}", "--training_users=100", f"--sweep_dir={tmp_path / 'sweep'}", "--seeds=2"]
    result = here("trainers.sweep", *given)
    assert (result.status, result.stderr) == (0, "")
    return tmp_path / "sweep", made


def test_only_the_chosen_are_run_with_more_seeds_and_judged_on_test_users(swept):
    folder, made = swept
    seeds = [(run.settings["seed"], run.settings["beta_cap"]) for run in made]
    assert [seed for seed, _ in seeds].count(0) == 18
    assert sorted(cap for seed, cap in seeds if seed == 1) == [0.3] * 6 + [1.0] * 6
    assert Workdir(folder).split().train.shape[0] == 100
    found = json.loads((folder / "results.json").read_text())
    assert (found["data"], found["training_users"]) == ("log.csv", 100)
    by_ndcg, by_elbo = found["chosen_by"]["ndcg@100"], found["chosen_by"]["elbo"]
    assert {row["all_settings"]["beta_cap"] for row in by_ndcg["configurations"]} == {0.3}
    reference = [row for row in by_elbo["configurations"] if not row["difference"]]
    assert [row["settings"] for row in reference] == [{"latent": "flat", "prior": "standard", "block": "tanh"}]
    for row in by_elbo["configurations"]:
        assert len(row["runs"]) == 2
        if row["difference"]:
            gain = 0.1 * (row["settings"]["prior"] == "vamp")
            assert row["difference"]["test"]["elbo"]["mean"] == pytest.approx(gain, abs=0.005)
    text = (folder / "results.md").read_text()
    assert "2 of 6" in text
    assert "# Tuned by ELBO on validation users" in text


def test_growth_of_several_sweeps_is_one_table_and_one_plot(swept, tmp_path):
    folder, _ = swept
    more = tmp_path / "more"
    more.mkdir()
    larger = read_json(folder / "results.json") | {"training_users": 200}
    (more / "results.json").write_text(json.dumps(larger))
    result = here("trainers.sweep.growth", str(more), str(folder), f"--output={tmp_path / 'g.png'}")
    assert (result.status, result.stderr) == (0, "")
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| log.csv")]
    assert [row[1] for row in rows] == (["100"] * 6 + ["200"] * 6) * 2
    assert [row[2] for row in rows[:3]] == ["Multi-VAE", "Multi-VAE (Gated)", "Vamp"]
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "g.md").read_text() == result.stdout
    points = growth._gains(growth.read([more, folder]), "elbo")["H+Vamp (Gated)"]
    assert [users for users, _ in points] == [100, 200]
    del larger["chosen_by"]["elbo"]  # a sweep that was not for the density
    (more / "results.json").write_text(json.dumps(larger))
    assert here("trainers.sweep.growth", str(more), str(folder), f"--output={tmp_path / 'g.png'}").status == 0
    assert [users for users, _ in growth._gains(growth.read([more, folder]), "elbo")["Vamp"]] == [100]
    content = (folder / "results.json").read_text()
    (more / "results.json").write_text(content.replace('"training_users": 1', '"training_users": 3'))
    mistake(here("trainers.sweep.growth", str(more)), "more has no finished sweep", "its checksum is another one")
    mistake(here("trainers.sweep.growth", str(tmp_path)), "no finished sweep of --plan=growth")
    mistake(here("trainers.sweep.growth"), "No sweep is given")
    mistake(here("trainers.sweep.growth", str(folder), "--output=x.txt"), "x.txt")
