"""Parts of one's own, defined in this file alone: a prior, a likelihood, a data format, a linear model and a signature.

The commands import it where --extension names it, and only then do the parts register themselves. docs/extending.md
shows the same code.
"""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from export.signatures import OfHistories
from tests import typed
from vae_cf_tf.data import formats
from vae_cf_tf.data.events import EventLog
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.linear.base import Baseline, ItemItemModel, RowBlock
from vae_cf_tf.models.likelihoods.base import Likelihood
from vae_cf_tf.models.priors.base import Prior, PriorContext
from vae_cf_tf.registries import BASELINES, ITEM_ITEM, LIKELIHOODS, PRIORS, SIGNATURES
from vae_cf_tf.runs.workdir import Workdir

tfd = tfp.distributions
ROOT = Path(__file__).parents[1]


class GaussianMixture(Prior):
    """p(z) = Σ_k π_k N(z; m_k, diag exp v_k), with learned weights, means and log-variances."""

    title = "GMM"

    def __init__(self, components: int, latent_dim: int, **kwargs):
        super().__init__(**kwargs)
        self.logits = self.add_weight(shape=(components,), initializer="zeros", name="logits")
        self.means = self.add_weight(shape=(components, latent_dim), initializer="random_normal", name="means")
        self.log_variances = self.add_weight(shape=(components, latent_dim), initializer="zeros", name="log_variances")
        self.built = True

    @classmethod
    def from_settings(cls, settings, parts):
        return cls(parts.components, settings.latent_dim, name="prior")

    def distribution(self, context=PriorContext()):  # noqa: B008
        components = tfd.MultivariateNormalDiag(self.means.value, tf.exp(0.5 * self.log_variances.value))
        return tfd.MixtureSameFamily(tfd.Categorical(logits=self.logits.value), components)


class NegativeBinomial(Likelihood):
    """x_i ~ NB(r_i, l_i): two numbers an item, log r and then the logits l. The mean of x_i is r_i·exp l_i."""

    outputs = 2

    def __init__(self, f, name="NegativeBinomial"):
        super().__init__(f, dict(locals()), name)
        self.log_counts, self.logits = tf.split(self._f, 2, axis=-1)

    def _log_prob(self, x):
        of_items = tfd.NegativeBinomial(tf.exp(self.log_counts), logits=self.logits)
        return tf.reduce_sum(of_items.log_prob(x), axis=-1)

    def item_scores(self):
        return self.log_counts + self.logits


class JsonLines(formats.Format):
    """A JSON object on each line, with the keys user and item."""

    accepts = "*.jsonl"
    has_column_names = False

    def sniff(self, path):
        return path.suffix == ".jsonl"

    def in_folder(self, folder):
        return sorted(folder.glob("*.jsonl"))

    def read(self, files, options, say):
        events = [json.loads(line) for path in files for line in path.open()]
        log = EventLog()
        log.add(pa.array([event["user"] for event in events]), pa.array([event["item"] for event in events]))
        return log.interactions()


def similarities(train, shrinkage):
    """Cosine of two items' users times n/(n + shrinkage), n the number of users who have both: [items, items]."""
    together = (train.T @ train).toarray()
    users = np.diag(together)
    cosine = together / np.maximum(np.sqrt(np.outer(users, users)), 1)
    np.fill_diagonal(cosine, 0)
    return cosine * together / np.maximum(together + shrinkage, 1)


class ItemNeighbours(ItemItemModel):
    """Item-kNN with shrinkage 10, beside a network."""

    @classmethod
    def from_settings(cls, settings):
        return cls()

    def fit(self, train, places):
        items = np.arange(train.shape[1])
        yield RowBlock(items, items, similarities(train, shrinkage=10))


class ItemKNN(Baseline):
    """Item-kNN alone, with the shrinkage that ranks best on validation users."""

    description = "adds up the similarities of a history's items"

    def __init__(self, shrinkage):
        self.shrinkage = shrinkage

    @classmethod
    def candidates(cls, settings, num_items):
        return [cls(shrinkage) for shrinkage in (0, 10)]

    @property
    def settings(self):
        return {"shrinkage": self.shrinkage}

    @property
    def label(self):
        return f"item-kNN, shrinkage {self.shrinkage}"

    def fit(self, train):
        neighbours = similarities(train, self.shrinkage)
        return lambda fold_in: fold_in @ neighbours


class KnownItems(OfHistories):
    """`known`, int32 [batch]: how many items of a history the catalogue has."""

    def __call__(self, history):
        _, rows, batch = self.model.known_items(history)
        return {"known": tf.math.bincount(rows, minlength=batch, maxlength=batch)}


if __name__ == "tests.test_extension":  # named by --extension; pytest calls this file test_extension
    PRIORS.register("toy_mixture")(GaussianMixture)
    LIKELIHOODS.register("toy_negative_binomial")(NegativeBinomial)
    formats.register(JsonLines())
    ITEM_ITEM.register("toy_neighbours")(ItemNeighbours)
    BASELINES.register("toy_knn")(ItemKNN)
    SIGNATURES.register("toy_known")(KnownItems)

EXTENSION = "--extension=tests.test_extension"
SMALL = ("--hidden_dim=16", "--latent_dim=8", "--pseudo_inputs=5", "--layers=1", "--epochs=2", "--batch_size=32")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    log = synthetic_log(users=160, items=130, communities=4, mean_items=15)
    path = tmp_path_factory.mktemp("data") / "events.jsonl"
    rows = zip(log.users, log.items, strict=True)
    path.write_text("".join(json.dumps({"user": f"u{u}", "item": f"i{i}"}) + "\n" for u, i in rows))
    return path


@pytest.fixture(scope="module", params=[pytest.param("flat", marks=pytest.mark.slow), "hierarchical"])
def run(request, log, tmp_path_factory):
    """A run with all five parts, by the command as typed: its folder, and the version that it exported."""
    folder = tmp_path_factory.mktemp(request.param)
    parts = ["--prior=toy_mixture", "--likelihood=toy_negative_binomial", "--item_path=toy_neighbours"]
    places = [f"--data={log}", f"--workdir={folder / 'run'}", f"--export_dir={folder / 'models'}"]
    trained = typed.process("trainers.main", EXTENSION, f"--latent={request.param}", *parts, *places, *SMALL)
    assert trained.status == 0, trained.stderr
    return folder / "run", folder / "models" / "1", trained.stdout


def test_a_run_with_five_parts_of_ones_own_trains_and_is_judged(run):
    workdir = Workdir(run[0])
    history = workdir.history.read_text().splitlines()
    assert len(history) == 1 + 2
    first, last = (dict(zip(history[0].split(","), map(float, row.split(",")), strict=True)) for row in history[1:])
    assert last["loss"] < first["loss"]
    arrays = np.load(workdir.best)
    logits = next(arrays[name] for name in arrays.files if name.endswith("prior/logits"))
    assert logits.shape == (5,)
    assert np.abs(logits).max() > 0, "the mixture's weights did not learn"
    items = len(workdir.split().item_ids)
    decoder = [arrays[name].shape for name in arrays.files if name.startswith("decoder/") and name.endswith("kernel")]
    assert max(shape[-1] for shape in decoder) == 2 * items
    values = workdir.read_metrics()
    knn = next(baseline for baseline in values["baselines"] if baseline["name"] == "toy_knn")
    popularity = next(baseline for baseline in values["baselines"] if baseline["name"] == "popularity")
    assert knn["test"]["ndcg@100"]["mean"] > popularity["test"]["ndcg@100"]["mean"]


def test_the_item_item_model_of_ones_own_stands_beside_the_network(run):
    workdir = Workdir(run[0])
    split = workdir.split()
    stored = np.load(workdir.item_item)
    kernel = next(stored[name] for name in stored.files if stored[name].shape == (len(split.item_ids),) * 2)
    dense = split.train.toarray()
    together = dense.T @ dense
    users = np.diag(together)
    expected = together / np.sqrt(np.outer(users, users)) * together / (together + 10) * (1 - np.eye(len(users)))
    np.testing.assert_allclose(kernel, expected, atol=1e-6)


def test_its_export_serves_all_signatures(run):
    split = Workdir(run[0]).split()
    served = tf.saved_model.load(str(run[1])).signatures
    history = [split.item_ids[0], split.item_ids[3], split.item_ids[0], "no such item", ""]
    assert served["toy_known"](history=tf.constant([history, [""] * 5]))["known"].numpy().tolist() == [2, 0]
    answer = served["recommend"](history=tf.constant([history]))
    assert np.isfinite(answer["scores"]).all()
    recommended = [item.decode() for item in answer["item_ids"].numpy()[0] if item]
    assert len(set(recommended)) == 100
    assert not {*history} & {*recommended}


def test_what_follows_training_needs_the_extension_and_says_so(run, tmp_path):
    workdir, version, _ = run
    arguments = ("export.main", f"--workdir={workdir}", f"--export_dir={tmp_path / 'models'}")
    typed.mistake(typed.process(*arguments), "--prior", "toy_mixture", "--extension=MODULE")
    assert typed.process(*arguments, EXTENSION).status == 0
    ours, theirs = (tf.saved_model.load(str(path)).signatures for path in (version, tmp_path / "models" / "1"))
    history = tf.constant([Workdir(workdir).split().item_ids[:4]])
    np.testing.assert_array_equal(*(f["serving_default"](history=history)["scores"].numpy() for f in (ours, theirs)))
    reported = typed.process(
        "trainers.report", f"--workdir={workdir}", f"--report_dir={tmp_path / 'report'}", EXTENSION
    )
    assert reported.status == 0, reported.stderr
    assert "item-kNN, shrinkage" in (tmp_path / "report" / "index.html").read_text()


def test_help_and_a_wrong_module(tmp_path):
    shown = typed.fresh_process("trainers.main", EXTENSION, "--help").stdout
    for name in ("toy_mixture", "toy_negative_binomial", "toy_neighbours"):
        assert name in shown
    typed.mistake(typed.process("trainers.main", "--extension=no.such.module"), "no.such.module")


@pytest.mark.parametrize("z", [np.zeros(8), np.linspace(-2, 2, 8)])
def test_the_mixture_is_the_formula(z):
    prior = GaussianMixture(components=3, latent_dim=8)
    random = np.random.default_rng(0)
    for variable in prior.weights:
        variable.assign(random.normal(size=variable.shape))
    logits, means, log_variances = (variable.numpy().astype(np.float64) for variable in prior.weights)
    log_weights = logits - np.log(np.exp(logits).sum())
    normal = -0.5 * ((z - means) ** 2 / np.exp(log_variances) + log_variances + np.log(2 * np.pi)).sum(axis=1)
    expected = np.log(np.exp(log_weights + normal).sum())
    np.testing.assert_allclose(prior.distribution().log_prob(z.astype(np.float32)), expected, rtol=1e-5)


def test_the_tutorial_shows_the_code_of_this_file():
    page, source = (ROOT / "docs" / "extending.md").read_text(), Path(__file__).read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "class " in block]
    assert len(blocks) == 5
    for block in blocks:
        for part in re.split(r"\n\n\n(?=class |def )", block.strip()):
            assert part.strip() in source, part
