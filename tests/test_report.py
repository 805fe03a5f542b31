"""The report: its numbers against plain arithmetic and SciPy, and its page for each kind of model."""

import base64
import contextlib
import html.parser
import itertools
import json
import re
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.text
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
import tensorflow as tf
from conftest import EVCF, ROOT, synthetic_events
from matplotlib import pyplot as plt
from typed import Typed, mistake, process

import vae_cf_tf
from trainers import claim, job, plotting
from trainers.report import figures, latent_sections, numbers, page, rankings, sections
from trainers.report import run as run_module
from trainers.report.finished import finished_run
from trainers.report.names import METRICS, OURS
from trainers.report.write import write_files, write_report
from vae_cf_tf import files
from vae_cf_tf.data.split import PARTS
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import latent, ranking
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import silent
from vae_cf_tf.settings import Settings, flagfiles
from vae_cf_tf.settings.settings import parsed

TINY = {"hidden_dim": 16, "latent_dim": 6, "pseudo_inputs": 5, "batch_size": 32, "epochs": 3, "ease_l2": "50"}
NASTY = '<script>alert("x")</script> & Söhne'
MODELS = {
    "hvamp": {"latent": "hierarchical", "prior": "vamp"},
    "users": {
        "latent": "hierarchical",
        "prior": "user_vamp",
        "prior_own": 0.75,
        "item_path": "linear",
        "beta_warmup": 0,
    },
    "hidden": {"latent": "flat", "prior": "hidden_vamp", "likelihood": "bernoulli"},
    "standard": {"latent": "flat", "prior": "standard", "block": "tanh", "layers": 1},
    "dae": {"latent": "none", "prior": "standard", "layers": 1, "ease_max_items": 1},
}


class Page(html.parser.HTMLParser):
    """What a browser would see: text, images, links, headings, commands, and every opening tag.

    `within` has, for each tag, the classes of the elements that it stands in.
    """

    def __init__(self, text: str):
        super().__init__()
        self.text, self.tags, self.within, self.headings, self.commands, self.open = "", [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.within.append({name for _, classes in self.open for name in classes.split()})
        if tag not in ("meta", "img", "source", "br"):
            self.open.append((tag, dict(attributes).get("class", "")))
        if tag == "code":
            self.commands.append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        open_tags = [tag for tag, _ in self.open]
        if open_tags and open_tags[-1] == "h2":
            self.headings.append(data)
        if "code" in open_tags:
            self.commands[-1] += data
        if "style" not in open_tags:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module", params=MODELS)
def reported(request, tmp_path_factory):
    """A run of each kind and its report."""
    folder = tmp_path_factory.mktemp("report") / "<i>it's & so on"
    folder.mkdir()
    events = synthetic_events(folder)
    items = dict.fromkeys(line.split(",")[1] for line in events.read_text().splitlines()[1:])
    quoted = NASTY.replace('"', '""')
    titles = "".join(f'{item},"{quoted} {i}"\n' for i, item in enumerate(items))
    (folder / "titles.csv").write_text("item_id,title\n" + titles)
    workdir = Workdir(folder / "run")
    settings = Settings.of(data=str(events), workdir=str(workdir.path), **(EVCF | TINY | MODELS[request.param]))
    with workdir.locked():  # the main job without its export, which a report does not read
        job.trained(settings, workdir, claim.prepared_split(settings, workdir, frozenset(), silent), silent, verbose=0)
    path = write_report(workdir.path, item_titles=folder / "titles.csv", components=3)
    return request.param, workdir, path, Page(path.read_text(encoding="utf-8"))


def test_the_page_stands_alone_and_can_be_read_aloud(reported):
    _, workdir, path, page = reported
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
    assert all(table["aria-label"] for table in page.all("table"))
    assert page.all("html")[0]["lang"] == "en"
    assert {a["href"][1:] for a in page.all("a")} == {a["id"] for a in page.all("section")}


def test_titles_are_text_and_no_markup(reported):
    _, _, path, page = reported
    assert NASTY in page.text
    assert "<i>it's & so on" in page.text
    assert not page.all("i")
    assert "<script" not in path.read_text(encoding="utf-8")


def test_each_model_has_the_sections_that_it_can_have(reported):
    kind, _, path, page = reported
    names = {file.name for file in path.parent.iterdir()}
    for name in ("latent_prior.png", "training_kl.png", "training_val_kl.png"):
        assert (name in names) == (kind != "dae")
    assert ("Latent space" in page.headings) == (kind != "dae")
    assert ("largest weights of its pseudo-input" in page.text) == (kind == "hvamp")
    assert ("this user's most characteristic items" in page.text) == (kind == "users")
    assert "(1.00)" not in page.text or kind == "hvamp"
    assert ("without the item–item model" in page.text) == (kind == "users")
    assert ("recommends" in page.text.partition("components that stand")[2]) == (kind in ("hvamp", "users", "hidden"))
    assert ("EASE, λ 50" in page.text) == (kind != "dae")  # whose catalogue was too large for it
    for heading in ("Data", "Comparison with the baselines", "Training", "Example users", "About this run"):
        assert heading in page.headings


def test_a_constant_beta_is_a_sentence_and_no_plot(reported):
    kind, _, path, page = reported
    changes = kind in ("hvamp", "hidden", "standard")
    assert (path.parent / "training_beta.png").exists() == changes
    assert ("in every epoch" in page.text) == (kind == "users")


def test_the_data_section_has_sizes_lengths_and_popularity(reported):
    _, workdir, path, page = reported
    train = workdir.split().train.toarray()
    assert f"{train.mean():.2%} of all pairs" in page.text
    lengths, popularity = train.sum(axis=1).tolist(), train.sum(axis=0).tolist()
    assert f"at most {statistics.median(lengths):,.0f}, a tenth" in page.text
    assert f"Half have at most {statistics.median(popularity):,.0f} users" in page.text
    assert f"10% have {sum(sorted(popularity)[-13:]) / sum(popularity):.0%}" in page.text  # of 130 items
    assert {"data_lengths.png", "data_popularity.png"} <= {file.name for file in path.parent.iterdir()}


def test_the_page_says_when_by_what_and_by_which_commands_it_was_made(reported):
    _, workdir, _, page = reported
    assert f"vae_cf_tf {vae_cf_tf.__version__}, TensorFlow {tf.__version__}" in page.text
    assert len(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d", page.text)) == 2  # of the run and of the report
    training, reporting = (shlex.split(command) for command in page.commands)
    assert training[:3] == ["python", "-m", "trainers.main"]
    flags = (word.removeprefix("--").partition("=") for word in flagfiles.expanded(training[3:]))
    assert Settings.of(**{name: parsed(name, value) for name, _, value in flags}) == workdir.settings()
    assert reporting[:4] == ["python", "-m", "trainers.report", f"--workdir={workdir.path}"]
    assert f"--item_titles={workdir.path.parent / 'titles.csv'}" in reporting
    assert "--components=3" in reporting


def test_no_plot_stands_alone_in_a_row_and_wide_tables_say_that_they_scroll(reported):
    _, _, path, page = reported
    images = [classes for (tag, _), classes in zip(page.tags, page.within, strict=True) if tag == "img"]
    assert all("pair" in classes for classes in images)
    wide = re.findall(r"All (\d) columns: scroll the table sideways", page.text)
    assert wide == (["6", "5", "5", "7", "7", "7"] if "EASE" in page.text else ["6", "6", "6", "7"])
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto[^}]*local", path.read_text(encoding="utf-8"))


def loaded(workdir: Workdir) -> run_module.Run:
    return run_module.load(workdir, finished_run(workdir), workdir.split())


def axes_of(plot: page.Plot) -> plt.Axes:
    """The axes of a plot as it is drawn for the page."""
    drawn = []
    plotting.png(lambda axes: (plot.draw(axes), drawn.append(axes)), size=plot.size)
    return drawn[0]


def plots_of(section: page.Section) -> list[page.Plot]:
    return [block for row in section.rows for block in row if isinstance(block, page.Plot)]


@pytest.mark.parametrize("reported", ["users", "dae"], indirect=True)
def test_curves_that_cannot_be_compared_have_axes_of_their_own(reported):
    kind, workdir, _, _ = reported
    run = loaded(workdir)
    apart = [column for column in ("loss", "nll", "val_nll", "kl", "val_kl") if any(run.history[column])]
    shown = []
    for plot in plots_of(sections.training(run)):
        axes = axes_of(plot)
        lines = [list(line.get_ydata()) for line in axes.lines]
        here = [column for column in apart if run.history[column] in lines]
        shown += here
        assert len(here) <= 1 or here == ["loss", "nll"]  # which are equal without a KL term
        assert ("network alone" in axes.get_title(loc="left")) == (kind == "users")
    assert set(shown) == set(apart)


@pytest.mark.parametrize("reported", ["hvamp"], indirect=True)
def test_text_of_plots_can_be_read_on_a_phone(reported):
    _, workdir, _, _ = reported
    run = loaded(workdir)
    shown = [sections.data(run), sections.training(run), sections.catalogue(run), sections.by_history(run, 0)]
    for plot in itertools.chain.from_iterable(map(plots_of, [*shown, latent_sections.latent_space(run, 3, 0)])):
        texts = axes_of(plot).figure.findobj(matplotlib.text.Text)
        smallest = min(text.get_fontsize() for text in texts if text.get_text())
        assert smallest / 72 / plot.size[0] * 350 >= 10  # pixels, where the plot is 350 pixels wide


@pytest.mark.parametrize("reported", ["users"], indirect=True)
def test_only_the_pseudo_inputs_that_are_shown_become_dense(reported, monkeypatch):
    _, workdir, _, _ = reported
    run = loaded(workdir)
    dense = sp.csr_matrix.toarray
    rows = []
    monkeypatch.setattr(sp.csr_matrix, "toarray", lambda self, *args: (rows.append(self.shape[0]), dense(self))[1])
    section = latent_sections.latent_space(run, 2, 0)
    assert max(rows) == 2
    table = section.rows[-1][0]
    users = [dense(run.network.prior.users)[int(row[0].partition(":")[0])] for row in table.rows]
    for user, (_, characteristic, recommended) in zip(users, table.rows, strict=True):
        has = {run.title(item) for item in np.flatnonzero(user)}
        assert set(characteristic.split("; ")) <= has
        assert not set(recommended.split("; ")) & has


def test_the_figures_are_those_of_the_main_job(reported):
    _, workdir, _, page = reported
    values = json.loads(workdir.metrics.read_text())
    systems = {OURS: values} | {baseline["label"]: baseline for baseline in values["baselines"]}
    for system in systems.values():
        for part in PARTS:
            for metric in METRICS:
                assert f"{system[part][metric]['mean']:.4f}" in page.text
    run = loaded(workdir)
    for system, judged in systems.items():
        for part in PARTS:
            for metric, figure in judged[part].items():
                assert run.values[system][part][metric].mean() == pytest.approx(figure["mean"], abs=1e-12)


def test_held_out_items_are_marked_and_no_others(reported):
    _, workdir, _, page = reported
    split = workdir.split()
    with np.load(workdir.path / "rankings.npz") as kept:
        ranked = kept["test"]
    users = [u for u in range(split.test.target.shape[0]) if split.test.target[u].nnz]
    counts = {u: len(set(ranked[i, :10].tolist()) & set(split.test.target[u].indices)) for i, u in enumerate(users)}
    shown = [(int(a), int(b)) for a, b in re.findall(r"(\d+) of (\d+) held-out items among the first 10", page.text)]
    assert len(shown) == 6
    assert set(shown) <= {(counts[u], split.test.target[u].nnz) for u in users}
    assert sum(a for a, _ in shown) == page.text.count("(held out)")


@pytest.mark.parametrize("reported", ["standard"], indirect=True)
def test_lists_are_kept_and_made_anew_when_they_are_not_of_this_run(reported):
    _, workdir, _, _ = reported
    split, batch_size = workdir.split(), workdir.settings().evaluation.eval_batch_size
    kept = workdir.path / "rankings.npz"
    model = loaded(workdir).network
    rankings.of_model(workdir, model, "a", split, 500)
    before, good = kept.stat().st_mtime_ns, rankings.of_model(workdir, model, "a", split, 500)
    assert kept.stat().st_mtime_ns == before
    whole = kept.read_bytes()
    lacks = (whole[:-300] + whole[-298:], whole[: len(whole) // 2] + whole[len(whole) // 2 + 9 :])  # some bytes within
    for damaged in (whole[:-99], b"", *lacks, (workdir.path / "baseline_rankings.npz").read_bytes()):
        kept.write_bytes(damaged)
        again = rankings.of_model(workdir, model, "a", split, batch_size)
        for part in PARTS:
            np.testing.assert_array_equal(again[part], good[part])
    for part in PARTS:
        expected = ranking.evaluate(ranking.model_ranker(model), getattr(split, part), 7)
        found = ranking.per_user(good[part], getattr(split, part).with_targets())
        for metric in expected:
            np.testing.assert_array_equal(found[metric], expected[metric])


@pytest.mark.parametrize("reported", ["dae"], indirect=True)
def test_a_run_that_is_being_continued_is_refused(reported):
    _, workdir, _, _ = reported
    history = workdir.history.read_bytes()
    with contextlib.ExitStack() as restored:
        restored.callback(workdir.history.write_bytes, history)
        workdir.history.write_bytes(history + history.splitlines()[-1] + b"\r\n")
        mistake(before_tensorflow(f"--workdir={workdir.path}"), "metrics.json is of 3 epochs", "history.csv of 4 ")
        workdir.history.write_bytes(history)
        restored.callback(workdir.metrics.write_bytes, workdir.metrics.read_bytes())
        files.write_json(workdir.metrics, files.read_json(workdir.metrics) | {"model_id": "0" * 16})
        with pytest.raises(UserError, match=r"figures of the run in .* are of other weights"):
            loaded(workdir)


def before_tensorflow(*flags: str) -> Typed:
    """`python -m trainers.report FLAG …`; the exit status is 3 where TensorFlow was imported."""
    code = (
        "import sys; from trainers.report.__main__ import run; status = run(); "
        "sys.exit(3 if {'tensorflow', 'keras'} & set(sys.modules) else status)"
    )
    result = subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True)
    return Typed(result.returncode, result.stdout, result.stderr)


@pytest.mark.parametrize("reported", ["dae"], indirect=True)
def test_the_command_says_where_the_page_is(reported, tmp_path):
    workdir = reported[1]
    folder = tmp_path / "r"
    result = process("trainers.report", f"--workdir={workdir.path}", f"--report_dir={folder}", "--example_users=0")
    assert (result.status, result.stderr) == (0, "")
    page = Path(result.stdout.strip())
    assert page == folder / "index.html"
    assert "Example users" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("reported", ["dae"], indirect=True)
def test_a_wrong_workdir_is_told_before_tensorflow_is_imported(reported, tmp_path):
    workdir = reported[1]
    (tmp_path / "empty").mkdir()
    mistake(before_tensorflow(), "--workdir is missing")
    mistake(before_tensorflow(f"--workdir={tmp_path / 'nowhere'}"), "nowhere is not the workdir of a run")
    mistake(before_tensorflow(f"--workdir={tmp_path / 'empty'}"), "empty is not the workdir of a run")
    with contextlib.ExitStack() as restored:
        settings = workdir.settings_file.read_bytes()
        restored.callback(workdir.settings_file.write_bytes, settings)
        written = files.read_json(workdir.settings_file)
        files.write_json(workdir.settings_file, {name: v for name, v in written.items() if name != "version"})
        mistake(
            before_tensorflow(f"--workdir={workdir.path}"), "was trained by vae_cf_tf 0.1", "Give another --workdir"
        )
        workdir.settings_file.write_bytes(settings)
        workdir.metrics.rename(tmp_path / "metrics.json")
        restored.callback((tmp_path / "metrics.json").rename, workdir.metrics)
        mistake(before_tensorflow(f"--workdir={workdir.path}"), "is not finished: it has no metrics.json")


def test_of_reports_written_at_once_one_stays_whole(tmp_path):
    folder, names = tmp_path / "report", ["one.png", "two.png", "three.png", "index.html"]
    contents = [dict.fromkeys(names, bytes([writer]) * 1000) for writer in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write_files, itertools.repeat(folder), contents))
    assert {name: (folder / name).read_bytes() for name in names} in contents
    assert {path.name for path in folder.iterdir()} == {*names, files.LOCK}
    with files.locked(folder, ""), pytest.raises(UserError, match=r"Another report is being written to .*--report_dir"):
        write_files(folder, contents[0], waits=[])


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


# Plots


def overlaps(boxes) -> bool:
    return any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_labels_of_components_lie_apart(rng):
    users = rng.normal(size=(100, 2))
    components = np.concatenate([rng.normal(0, 0.02, (12, 2)), users[:20]])  # the first twelve are almost one point
    draw = figures.means_and_components(users, components, np.ones(32) / 32, list(range(12)), ("x", "y"))
    axes = axes_of(page.Plot("p", "title", "what", "alt", draw))
    assert sorted(int(label.get_text()) for label in axes.texts) == list(range(12))
    boxes = [label.get_bbox_patch().get_window_extent() for label in axes.texts]
    assert not overlaps(boxes)


def test_tick_labels_lie_apart():
    panels = []

    def draw(left, right):  # as a sweep's results: long names take most of the width
        left.set_yticks([0, 1], ["hierarchical · user_vamp · gated · layers 3"] * 2)
        for axes in (left, right):
            axes.plot([-0.0152, 0.0148], [0, 1])
            panels.append(axes)

    plotting.png(draw, size=(9.5, 2), panels=2, dpi=150)
    for axes in panels:
        low, high = axes.get_xlim()
        labels = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
        assert len(labels) >= 2
        assert not overlaps(label.get_window_extent() for label in labels)
