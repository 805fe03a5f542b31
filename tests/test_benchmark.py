"""The training benchmark: counts against counts by hand, figures against arithmetic, and the command as typed."""

import io
import json
import re
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf
from conftest import ROOT, built, small
from typed import here, mistake

from trainers.benchmark import work as work_file
from trainers.benchmark.figures import Times
from trainers.benchmark.measurement import Measurement
from trainers.benchmark.phases import Phase, phases_of
from trainers.benchmark.progress import Progress
from trainers.benchmark.work import PASSED, PRODUCTS, SMALLEST, SUMS, UPDATES, MatrixProduct, Work, work_of
from vae_cf_tf.models import batches
from vae_cf_tf.models.distributions import diagonal_normal
from vae_cf_tf.models.priors.base import Prior, PriorContext
from vae_cf_tf.training.compiling import compile_for

FLAGS = ROOT / "trainers" / "flags"
B, M, H, Z, K = 10, 50, 32, 8, 6


@pytest.fixture(scope="module")
def train() -> sp.csr_matrix:
    matrix = sp.random(40, M, 0.1, format="csr", dtype=np.float32, random_state=0)
    matrix.data[:] = 1
    return matrix


def counted(settings, train, change=lambda model: None):
    """What a step of each phase has to do, and the batch that it was counted for."""
    model = built(settings, train.shape[1], train)
    change(model)
    compile_for(model, settings.training, train)
    batch = next(iter(batches.shuffled(train, settings.training.batch_size, 0)))
    works = []
    for phase in phases_of(model):
        model.optimizer.iterations.assign(phase.step)
        works.append(work_of(lambda: model.train_step(batch)))
    return works, batch


def products(work):
    """The products without their arguments that are off."""
    return Counter({(*p.shapes, *(name for name, is_on in p.arguments if is_on)): n for p, n in work.products.items()})


def linear(rows, inputs, units, times=1, forward=True, of_input=True, of_kernel=True):
    """The products of x W, x [rows, inputs], and of its two gradients."""
    x, w, y = (rows, inputs), (inputs, units), (rows, units)
    each = {(x, w): forward, (y, w, "transpose_b"): of_input, (x, y, "transpose_a"): of_kernel}
    return Counter({product: times for product, is_there in each.items() if is_there})


def total(*counts):
    return sum(counts, Counter())


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_multi_vae_has_the_products_of_its_layers(train, form):
    (work,), batch = counted(small(FLAGS / "baseline.flags", first_layer=form), train)
    first = [linear(B, M, H, of_input=False)] if form == "dense" else []
    assert products(work) == total(*first, linear(B, H, Z, 2), linear(B, Z, H), linear(B, H, M))
    inner = 3 * 2 * B * (2 * H * Z + Z * H + H * M)
    assert work.operations == inner + (2 * 2 * B * M * H if form == "dense" else 0)
    variables = M * H + H + 2 * (H * Z + Z) + Z * H + H + H * M + M
    assert work.bytes[UPDATES] == pytest.approx(28 * variables, rel=0.01)  # and a few counters
    distinct = np.unique(batch.values).size  # of which about half is dropped
    low, high = (4 * H * (B + M), 4 * H * (B + M + distinct + B)) if form == "sparse" else (0, 0)
    assert low <= work.bytes[SUMS] <= high


def test_h_vamp_has_the_products_of_its_layers_and_of_its_pseudo_inputs(train):
    (work,), _ = counted(small(FLAGS / "evcf.flags", first_layer="sparse"), train)
    upper = total(linear(B, H, H, 2), linear(B, H, Z, 2))
    lower = total(linear(B, Z, H, 2), linear(B, 2 * H, H, 2), linear(B, H, Z, 2))
    lower_prior = total(linear(B, Z, H, 2), linear(B, H, H, 2), linear(B, H, Z, 2))
    decoder = total(linear(B, Z, H, 4), linear(B, 2 * H, H, 2), linear(B, H, M))
    pseudo_inputs = total(linear(K, M, H, 2), linear(K, H, H, 2), linear(K, H, Z, 2))
    mixture = Counter(
        {((B, Z), (K, Z), "transpose_b"): 2, ((B, K), (K, Z)): 2, ((B, K), (B, Z), "transpose_a"): 2}
    )  # z² and z with the components, and their gradients
    assert products(work) == total(upper, lower, lower_prior, decoder, pseudo_inputs, mixture)


def test_the_default_has_less_to_do_in_the_decoders_phase(train):
    (encoder, decoder), _ = counted(small(ROOT / "vamp.flags", first_layer="sparse"), train)
    copies = total(linear(B, H, H, 4, of_input=False, of_kernel=False))
    copies += linear(B, H + Z, Z, 2, of_input=False, of_kernel=False)
    gradients = {"of_input": True, "of_kernel": True}
    expected = {}
    for name, learns in {"encoder": gradients, "decoder": {"of_input": False, "of_kernel": False}}.items():
        expected[name] = total(
            copies,
            *(linear(B, H, H, 4, **learns), linear(B, H, Z, 2, **learns)),  # the encoder
            linear(B, H + Z, Z, 2, **learns),  # the lower encoder
            *(linear(B, Z, H, 2, **learns), linear(B, H, Z, 2, **learns)),  # p(z1|z2)
            Counter({((B, Z), (K, Z), "transpose_b"): 2}),  # the mixture
        )
    expected["encoder"] += total(Counter({((B, K), (K, Z)): 2}), linear(B, 2 * Z, M, of_kernel=False))
    expected["decoder"] += linear(B, 2 * Z, M, of_input=False)
    assert (products(encoder), products(decoder)) == (expected["encoder"], expected["decoder"])
    updated = 28 * (2 * Z * M + M)
    assert updated <= decoder.bytes[UPDATES] < 1.1 * updated < encoder.bytes[UPDATES]


class Looping(Prior):
    """A prior that the benchmark does not know: the density of N(0, I) at z W W … W."""

    def __init__(self, times):
        super().__init__()
        self.times = times
        self.weight = self.add_weight(shape=(Z, Z), initializer="orthogonal", name="weight")
        self.built = True

    def distribution(self, context=PriorContext()):  # noqa: B008
        normal, weight = diagonal_normal(tf.zeros([Z]), tf.zeros([Z])), tf.convert_to_tensor(self.weight)
        times = tf.constant(self.times)

        class Density:
            def log_prob(self, z):
                _, z = tf.while_loop(lambda i, z: i < times, lambda i, z: (i + 1, tf.matmul(z, weight)), [0, z])
                return normal.log_prob(z)

        return Density()


def test_a_new_prior_is_counted_by_what_it_does(train):
    settings = small(FLAGS / "baseline.flags")
    (without,), _ = counted(settings, train)
    (work,), _ = counted(settings, train, lambda model: setattr(model, "prior", Looping(5)))
    assert products(work) - products(without) == linear(B, Z, Z, 5)


def test_a_sampled_softmax_counts_with_the_candidates_of_the_batch():
    train = sp.random(40, 9_000, 0.001, format="csr", dtype=np.float32, random_state=0)
    (work,), batch = counted(small(FLAGS / "wide.flags", softmax_samples=20), train)
    candidates = max(w[0] for _, w, *_ in products(work))
    distinct = np.unique(batch.values).size
    assert distinct < candidates <= distinct + 20
    f, kernel = (B, candidates), (candidates, H)  # held by item
    of_output = Counter([((B, H), kernel, "transpose_b"), (f, kernel), (f, (B, H), "transpose_a")])
    assert products(work) == total(of_output, linear(B, H, Z, 2), linear(B, Z, H))
    assert 0 < work.bytes[UPDATES] < 0.1 * 28 * 2 * 9_000 * H


@pytest.mark.parametrize(
    ("multiply", "operations"),
    [
        (lambda: tf.matmul(tf.ones([2, 3, 4]), tf.ones([2, 5, 4]), transpose_b=True), 2 * 2 * 3 * 5 * 4),
        (lambda: tf.einsum("bij,jk->bik", tf.ones([2, 3, 4]), tf.ones([4, 5])), 2 * 2 * 3 * 5 * 4),
        (lambda: tf.einsum("...ij,...kj->...ik", tf.ones([7, 3, 4]), tf.ones([7, 5, 4])), 2 * 7 * 3 * 5 * 4),
        (lambda: tf.linalg.matvec(tf.ones([3, 4]), tf.ones([4])), 2 * 3 * 4),
        (lambda: tf.ones([3, 4]) * tf.ones([3, 4]), 0),
    ],
)
def test_products_by_other_operations_are_counted_and_can_be_timed(multiply, operations):
    work = work_of(multiply)
    assert work.operations == operations
    for product in work.products:
        product.call()()


def test_large_tensors_between_products_and_other_operations_pass_through_memory(monkeypatch):
    x, w = tf.ones([40, 30]), tf.Variable(tf.ones([30, 20]))

    def step():
        with tf.GradientTape() as tape:
            y = tf.matmul(x * 2, w)
            loss = tf.reduce_sum(tf.exp(y))
        gradient = tape.gradient(loss, w)
        state = tf.Variable(tf.zeros([30, 20]))
        tf.raw_ops.ResourceApplyMomentum(var=w.handle, accum=state.handle, lr=0.1, grad=gradient, momentum=0.9)

    assert work_of(step).bytes[PASSED] == 0  # all of them fit into a cache
    monkeypatch.setattr(work_file, "IN_CACHE", 1)
    work = work_of(step)
    assert work.bytes[PASSED] == 4 * (40 * 30 + 2 * 40 * 20)  # 2x written, y read, its gradient written
    assert work.bytes[UPDATES] == 4 * 5 * 30 * 20  # the gradient read; variable and state read and written


PRODUCT = MatrixProduct("MatMul", ((100, 200), (200, 300)), (100, 300), tf.float32, ())


def times(**seconds):
    """Measurements of two phases, of three passes and of one, with a product that each step has twice."""
    work = Work(Counter({PRODUCT: 2}), {UPDATES: 3e6})
    phases = [Phase("encoder", 3, 0, [], 0.5), Phase("decoder", 1, 60, [], 0.0)]
    parts = {
        "step": ([0.040, 0.044, 0.042], [0.020, 0.021, 0.022]),
        "forward": ([0.011, 0.010], [0.010, 0.011]),
        "forward and backward": ([0.030, 0.031], [0.014, 0.015]),
        "optimiser": ([0.004, 0.005], [0.002, 0.002]),
    }
    parts |= {name.replace("_", " "): value for name, value in seconds.items() if name != "product"}
    every = {(phase.learns, name): parts[name][i] for i, phase in enumerate(phases) for name in parts}
    every |= {PRODUCT: seconds.get("product", [0.0062, 0.0051]), SMALLEST: [0.0001, 0.0002]}
    every |= {"refresh": [0.5, 0.6], "input pipeline": [0.001, 0.002, 0.004]}
    return Times(phases, [work, work], 2_000, 100, every, bandwidth=1e9)


def test_figures_are_means_over_the_passes_of_an_epoch():
    figures = times().figures()
    assert figures["remarks"] == []
    assert figures["floors_ms"] == {PRODUCTS: 10.0, UPDATES: 3.0}
    assert (figures["floor_ms"], figures["ms_per_step_best"], figures["ms_per_step"]) == (13.0, 35.0, 36.75)
    assert figures["utilisation"] == pytest.approx(13 / 35, abs=1e-3)
    assert figures["phases"]["encoder"]["ms_per_pass"] == 20 * 42
    assert figures["phases"]["decoder"]["ms_per_pass"] == 20 * 21
    assert figures["users_per_second"] == round(4 * 2_000 / (20 * (3 * 0.042 + 0.021) + 0.5))
    assert figures["gflop_per_step"] == pytest.approx(2 * 2 * 100 * 200 * 300 / 1e9, abs=0.1)
    assert figures["parts_ms"] == {
        "input pipeline, if it ran alone": 2.0,
        "forward": 10.0,
        "backward": (3 * 20 + 4) / 4,
        "optimiser": 3.5,
    }


def test_figures_that_cannot_be_are_said_to_be_worthless():
    figures = times(product=[0.018]).figures()
    assert figures["utilisation"] is figures["utilisation_at_best_rate"] is None
    assert figures["remarks"][0].startswith("The floor is worthless: it is 1.11 times the best step")
    figures = times(step=([0.04, 0.06, 0.07], [0.02, 0.02])).figures()
    (remark,) = figures["remarks"]
    assert remark.startswith("All times are worthless: the median step took 1.50 times as long as the best one")
    figures = times(forward=([0.031], [0.014])).figures()
    assert figures["parts_ms"]["backward"] is None
    assert figures["remarks"] == ["The time of backward is noise: it is a difference, which came out negative."]


def test_compared_settings_are_checked():
    for text, words in (
        ("layer=3", "There is no setting 'layer'. Did you mean layers?"),
        ("layers=x", "--layers takes a whole number. Received: 'x'"),
        ("layers=3,prior", "'prior' is no setting; write NAME=VALUE."),
    ):
        mistake(here("trainers.benchmark", f"--compare={text}"), words)


def test_a_model_larger_than_the_machine_is_refused():
    typed = here("trainers.benchmark", "--hidden_dim=32", f"--items={10**12}")
    assert re.search(r"A model of 1,000,000,000,000 items and --hidden_dim=32 takes [\d,]+ GiB", mistake(typed))


def test_a_terminal_sees_a_bar_that_is_redrawn(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress()
    progress.begin("measuring")
    progress.advance(0.5)
    progress.close()
    drawn = [line.strip() for line in terminal.getvalue().split("\r")]
    assert "[                    ] 00:00 measuring" in drawn
    assert "[##########          ] 00:00 measuring" in drawn
    assert drawn[-1] == ""


TINY = [f"--flagfile={FLAGS / 'baseline.flags'}", "--hidden_dim=16", "--latent_dim=4", "--pseudo_inputs=20",
        "--items=50", "--steps=3"]  # fmt: skip


def test_the_command_measures_few_items_in_batches_larger_than_the_users():
    other = "prior=user_vamp,dtype_policy=mixed_bfloat16"
    typed = here("trainers.benchmark", *TINY, "--batch_size=6000", "--encoder_passes=2", f"--compare={other}")
    assert typed.status == 0, typed.stderr
    stages = [line.partition("] ")[2] for line in typed.stderr.splitlines()]
    assert stages[:2] == [
        "making 120,850 interactions of 4,834 users with 50 items",
        "as given: building the model and tracing its step",
    ]
    assert f"{other}: measuring, round 3 of 3" in stages
    results = json.loads(typed.stdout)
    assert [result["settings"] for result in results] == ["as given", other]
    for result in results:
        assert (result["users_per_step"], result["items"]) == (4_834, 50)
        per_pass = {name: phase["ms_per_pass"] for name, phase in result["phases"].items()}
        epoch = 2 * per_pass["encoder and prior"] + per_pass["decoder"] + result["refresh_ms_per_epoch"]
        assert result["users_per_second"] == pytest.approx(1e3 * 3 * 4_834 / epoch, rel=0.01)
        assert 0 < result["floor_ms"] == pytest.approx(sum(result["floors_ms"].values()), abs=0.05)
        assert result["utilisation"] is None or 0 < result["utilisation"] <= 1.03
        assert result["utilisation"] or "The floor is worthless" in " ".join(result["remarks"])
        assert all(ms is None or ms > 0 for ms in result["parts_ms"].values())
        assert set(result["first_layer_ms"]) == {"sparse", "dense"}
    assert set(results[0]["gflop_per_second"]) == {"float32"}
    assert set(results[1]["gflop_per_second"]) == {"float32", "bfloat16"}


def test_ctrl_c_ends_a_measurement_with_one_line():
    command = subprocess.Popen(
        [sys.executable, "-m", "trainers.benchmark", *TINY],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert any("building the model" in line for line in command.stderr)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=200)
    assert (command.returncode, out, err.lstrip()) == (130, "", "Interrupted.\n")


def test_only_full_batches_are_timed(train):
    stages: list[str] = []
    measurement = Measurement(small(FLAGS / "baseline.flags", batch_size=15), train, stages.append, lambda _: None)
    assert stages == ["building the model and tracing its step", "counting the work of a step and tracing its parts"]
    assert [int(next(measurement.stream).nrows()) for _ in range(7)] == [15] * 7  # 40 users: 15, 15, 10
    assert measurement.times.users_per_step == 15
