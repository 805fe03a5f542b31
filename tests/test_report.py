"""The report: its numbers against plain arithmetic and SciPy, and its page for each kind of model."""

import base64
import html.parser
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
from conftest import EVCF, ROOT

from trainers.report import latent, numbers, rankings
from trainers.report import run as run_module
from trainers.report.write import write_report
from trainers.train import train_and_evaluate
from vae_cf_tf import evaluation
from vae_cf_tf.config import Config
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.workdir import Workdir

TINY = {"hidden_dim": 16, "latent_dim": 6, "pseudo_inputs": 5, "batch_size": 32, "epochs": 3, "ease_l2": "50"}
NASTY = '<script>alert("x")</script> & Söhne'
MODELS = {
    "hvamp": {"latent": "hierarchical", "prior": "vamp"},
    "users": {"latent": "hierarchical", "prior": "user_vamp", "prior_own": 0.75, "item_path": "linear"},
    "hidden": {"latent": "flat", "prior": "hidden_vamp", "likelihood": "bernoulli"},
    "standard": {"latent": "flat", "prior": "standard", "block": "tanh", "layers": 1},
    "dae": {"latent": "none", "prior": "standard", "layers": 1, "ease_max_items": 1},
}


class Page(html.parser.HTMLParser):
    """What a browser would see: text, images, links, headings, and every opening tag."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.tags, self.headings, self.open = "", [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module", params=MODELS)
def made(request, tmp_path_factory):
    """A run of each kind and its report."""
    folder = tmp_path_factory.mktemp("report")
    data = synthetic_log(users=160, items=130, communities=4, mean_items=15)
    lines = [f"{data.user_ids[u]},{data.item_ids[i]}" for u, i in zip(data.users, data.items, strict=True)]
    (folder / "events.csv").write_text("user_id,item_id\n" + "\n".join(lines) + "\n")
    quoted = NASTY.replace('"', '""')
    titles = "".join(f'{item},"{quoted} {i}"\n' for i, item in enumerate(data.item_ids))
    (folder / "titles.csv").write_text("item_id,title\n" + titles)
    workdir = Workdir(folder / "run")
    config = Config(data=str(folder / "events.csv"), workdir=str(workdir.path), **(EVCF | TINY | MODELS[request.param]))
    train_and_evaluate(config, say=lambda line: None)
    path = write_report(workdir.path, item_titles=folder / "titles.csv", components=3)
    return request.param, workdir, path, Page(path.read_text(encoding="utf-8"))


def test_the_page_stands_alone_and_can_be_read_aloud(made):
    _, workdir, path, page = made
    assert path == workdir.path / "report" / "index.html"
    assert page.open == []
    assert not page.all("script")
    assert not page.all("link")
    links = [a.get("href") or a.get("src") or a.get("srcset") for _, a in page.tags]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links if link)
    assert not re.search(r"url\(|@import", path.read_text(encoding="utf-8"))
    shown = {base64.b64decode(a["src"].split(",")[1]) for a in page.all("img")}
    shown |= {base64.b64decode(a["srcset"].split(",")[1]) for a in page.all("source")}
    assert shown == {file.read_bytes() for file in path.parent.glob("*.png")}
    assert all(png.startswith(b"\x89PNG") for png in shown)
    assert len(page.all("img")) == len(page.all("source")) > 5
    assert all(len(a["alt"]) > 20 for a in page.all("img"))
    assert len(page.all("table")) == len(page.all("caption"))
    assert page.all("html")[0]["lang"] == "en"
    assert {a["href"][1:] for a in page.all("a")} == {a["id"] for a in page.all("section")}


def test_titles_are_text_and_no_markup(made):
    _, _, path, page = made
    assert NASTY in page.text
    assert "<script" not in path.read_text(encoding="utf-8")


def test_each_model_has_the_sections_that_it_can_have(made):
    kind, _, path, page = made
    assert ("Latent space" in page.headings) == (kind != "dae")
    assert ("weighs most" in page.text) == (kind in ("hvamp", "users"))
    assert ("without the path" in page.text) == (kind == "users")
    assert ("recommends" in page.text) == (kind in ("hvamp", "users", "hidden"))
    assert ("KL term of a user" in page.text) == (kind != "dae")
    assert ("EASE, λ 50" in page.text) == (kind != "dae")  # whose catalogue was too large for it
    names = {file.name for file in path.parent.iterdir()}
    assert ("latent_prior.png" in names) == (kind != "dae")
    for heading in ("Training", "Beside the baselines", "Catalogue", "Example users", "Settings"):
        assert heading in page.headings


def test_the_figures_are_those_of_the_main_job(made):
    _, workdir, _, page = made
    values = json.loads(workdir.metrics.read_text())
    for system in (values, *values["baselines"].values()):
        for part in ("test", "validation"):
            for metric in ("ndcg@100", "ndcg@10", "recall@20", "recall@50"):
                assert f"{system[part][metric]['mean']:.4f}" in page.text
    run = run_module.load(workdir, workdir.split())
    for system, figures in {run_module.OURS: values, **values["baselines"]}.items():
        for part in ("test", "validation"):
            for metric, figure in figures[part].items():
                assert run.values[system][part][metric].mean() == pytest.approx(figure["mean"], abs=1e-12)


def test_held_out_items_are_marked_and_no_others(made):
    _, workdir, _, page = made
    split = workdir.split()
    with np.load(workdir.path / "rankings.npz") as kept:
        ranked = kept["test"]
    users = [u for u in range(split.test.target.shape[0]) if split.test.target[u].nnz]
    counts = {u: len(set(ranked[i, :10].tolist()) & set(split.test.target[u].indices)) for i, u in enumerate(users)}
    said = [(int(a), int(b)) for a, b in re.findall(r"(\d+) of (\d+) held-out items among the first 10", page.text)]
    assert len(said) == 6
    assert set(said) <= {(counts[u], split.test.target[u].nnz) for u in users}
    assert sum(a for a, _ in said) + 1 == page.text.count("(held out)")  # one is the legend


@pytest.mark.parametrize("made", ["standard"], indirect=True)
def test_lists_are_kept_and_made_anew_when_they_are_not_of_this_run(made):
    _, workdir, _, _ = made
    split, config = workdir.split(), workdir.config()
    kept = workdir.path / "rankings.npz"
    model = run_module.load(workdir, split).model
    before, good = kept.stat().st_mtime_ns, rankings.of_model(workdir, model, split, 500)
    assert kept.stat().st_mtime_ns == before
    for damaged in (kept.read_bytes()[:-99], b"", (workdir.path / "baseline_rankings.npz").read_bytes()):
        kept.write_bytes(damaged)
        again = rankings.of_model(workdir, model, split, config.eval_batch_size)
        for part in rankings.PARTS:
            np.testing.assert_array_equal(again[part], good[part])
    for part in rankings.PARTS:
        expected = evaluation.evaluate(evaluation.model_ranker(model), getattr(split, part), 7)
        found = evaluation.per_user(good[part], getattr(split, part).with_targets())
        for metric in expected:
            np.testing.assert_array_equal(found[metric], expected[metric])


def report(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "trainers.report", *flags], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("made", ["dae"], indirect=True)
def test_the_command_says_where_the_page_is_and_mistakes_are_one_line(made, tmp_path):
    workdir = made[1]
    result = report(f"--workdir={workdir.path}", f"--report_dir={tmp_path / 'r'}", "--example_users=0")
    assert (result.returncode, result.stderr) == (0, "")
    page = Path(result.stdout.strip())
    assert page == tmp_path / "r" / "index.html"
    assert "Example users" not in page.read_text(encoding="utf-8")
    workdir.metrics.rename(tmp_path / "metrics.json")
    for flags, message in (
        ([], "--workdir is missing"),
        ([f"--workdir={tmp_path}"], "is not the workdir of a run"),
        ([f"--workdir={workdir.path}"], "is not finished"),
    ):
        result = report(*flags)
        assert result.returncode == 2
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert message in result.stderr
    (tmp_path / "metrics.json").rename(workdir.metrics)


# Numbers


def test_groups_by_history_are_all_users_once(rng):
    lengths = rng.integers(1, 9, 200)
    rows = sp.csr_matrix(np.arange(10)[None, :] < lengths[:, None], dtype=np.float32)
    groups = numbers.by_history_length(rows, 4)
    np.testing.assert_array_equal(sum(g.members.astype(int) for g in groups), 1)
    for g in groups:
        inside = lengths[g.members]
        assert g.label in (f"{inside.min()}–{inside.max()}", f"{inside.min()}")
        assert not np.isin(lengths[~g.members], inside).any()
    assert len(numbers.by_history_length(rows[lengths == 3], 4)) == 1


def test_groups_by_popularity_hold_about_equal_shares(rng):
    chance = 1 / np.arange(1, 301)
    train = sp.csr_matrix(rng.random((2_000, 300)) < chance, dtype=np.float32)
    groups = numbers.by_popularity(train, 5)
    np.testing.assert_array_equal(sum(g.members.astype(int) for g in groups), 1)
    popularity = train.toarray().sum(axis=0)
    shares = [popularity[g.members].sum() / popularity.sum() for g in groups]
    assert sum(shares) == pytest.approx(1)
    assert len(shares) in (3, 4, 5)  # the most popular item alone is worth more than a fifth at times
    for lower, upper in itertools.pairwise(groups):
        assert popularity[lower.members].max() < popularity[upper.members].min()


def test_what_is_found_of_a_group_of_items(rng):
    target = sp.csr_matrix(rng.random((20, 30)) < 0.3, dtype=np.float32)
    ranked = np.stack([rng.permutation(30)[:7] for _ in range(20)])
    items = rng.random(30) < 0.4
    found, wanted = numbers.found_and_wanted(ranked, target, items)
    for user in range(20):
        held_out = {i for i in target[user].indices if items[i]}
        assert wanted[user] == len(held_out)
        assert found[user] == len(held_out & set(ranked[user].tolist()))


def test_gini_coverage_and_concentration(rng):
    counts = rng.integers(0, 6, 40)
    gaps = sum(abs(int(a) - int(b)) for a in counts for b in counts)
    assert numbers.gini(counts) == pytest.approx(gaps / (2 * 40 * counts.sum()))
    assert numbers.gini(np.ones(9)) == pytest.approx(0)
    assert numbers.gini(np.eye(100)[3]) == pytest.approx(0.99)
    assert numbers.coverage(counts) == sum(c > 0 for c in counts) / 40
    x, y = numbers.concentration(np.array([0, 6, 3, 1]))
    np.testing.assert_allclose(x, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(y, [0, 0.6, 0.9, 1, 1])
    np.testing.assert_array_equal(numbers.times_recommended(np.array([[0, 2], [2, 1]]), 4), [1, 1, 2, 0])


def test_responsibilities_are_those_of_scipys_densities(rng):
    z, mean, log_variance = rng.normal(size=(9, 4)), rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    components = [scipy.stats.multivariate_normal(mean[k], np.diag(np.exp(log_variance[k]))) for k in range(5)]
    density = np.array([[component.pdf(row) for component in components] for row in z])
    found = latent.responsibilities(z, latent.Normals(mean, log_variance))
    np.testing.assert_allclose(found, density / density.sum(axis=1, keepdims=True), rtol=1e-9)


def test_the_plane_is_that_of_the_covariances_eigenvectors(rng):
    means = rng.normal(size=(50, 6)) * [5, 3, 1, 1, 1, 0.5] + 7
    plane = latent.principal_plane(means)
    values, vectors = np.linalg.eigh(np.cov(means.T))
    np.testing.assert_allclose(plane.shares, values[::-1][:2] / values.sum(), rtol=1e-9)
    np.testing.assert_allclose(np.abs(plane.axes.T @ vectors[:, [-1, -2]]), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(plane.project(means).mean(axis=0), 0, atol=1e-9)
    assert latent.principal_plane(means[:, :1]).project(means[:, :1]).shape == (50, 2)
    assert latent.active_dimensions(np.concatenate([means, np.ones((50, 3))], axis=1)) == 6
