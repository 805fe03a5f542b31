"""Every shipped flagfile, and the parts it does not combine, through one suite."""

import keras
import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf
import tensorflow_probability as tfp
from conftest import FLAGFILES, PLAIN, ROOT, built, checkerboard, compiled, small
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from vae_cf_tf.models import batches, tree
from vae_cf_tf.models import histories as hist
from vae_cf_tf.models.build import build, random_users
from vae_cf_tf.models.priors.base import PriorContext
from vae_cf_tf.runs import checkpoints
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.flagfiles import settings_in
from vae_cf_tf.training.compiling import compile_for, log_inclusion

tfd = tfp.distributions
EVCF = ROOT / "trainers" / "flags" / "evcf.flags"
BASELINE = ROOT / "trainers" / "flags" / "baseline.flags"
SETTINGS = {path.stem: small(path) for path in FLAGFILES} | {
    "hvamp 1 layer": small(EVCF, layers=1),
    "hvamp 3 layers": small(EVCF, layers=3),
    "hierarchy, standard": small(EVCF, prior="standard"),
    "bernoulli": small(EVCF, likelihood="bernoulli"),
    "gaussian": small(BASELINE, likelihood="gaussian"),
    "dae 2 layers": small(ROOT / "trainers" / "flags" / "multdae.flags", layers=2),
    "dae, dense skips": small(ROOT / "trainers" / "flags" / "multdae.flags", layers=3, encoder_skips="dense"),
    "users' posteriors": small(EVCF, prior="user_vamp"),
    "the batch's posteriors": small(EVCF, prior="batch_vamp"),
    "recvae": small(BASELINE, prior_own=0.75, encoder_skips="dense", decoder_layers=0, encoder_passes=3),
    "own hierarchy": small(EVCF, prior_own=0.75, encoder_passes=1, beta_scale="item"),
    "sampled softmax": small(BASELINE, softmax_samples=5),
    "sampled hierarchy": small(EVCF, softmax_samples=5, prior="user_vamp", block="tanh"),
    "bfloat16": small(EVCF, dtype_policy="mixed_bfloat16"),
    "sparse first layer": small(EVCF, layers=1, first_layer="sparse"),
}
SEED = tf.constant([0, 1])


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda name: name.replace(" ", "_"))
def trained(request):
    """A model trained on the checkerboard with a brisk schedule, and its data."""
    train, withheld = checkerboard()
    brisk = {"optimizer": "adam", "learning_rate": 0.01, "beta_cap": 0.05, "beta_warmup": 0}
    settings = SETTINGS[request.param].replaced(**brisk)
    model = built(settings, train.shape[1], train)
    start = {name: v.numpy().copy() for name, v in tree.variables(model).items()}
    compile_for(model, settings.training, train)
    model.fit(batches.shuffled(train, 10, seed=0), epochs=1, steps_per_epoch=100, verbose=0)
    return model, train, withheld, start


def test_the_withheld_item_of_a_checkerboard_ranks_first(trained):
    model, train, withheld, _ = trained
    scores = model(batches.ragged(train)).numpy()
    scores[train.nonzero()] = -np.inf
    np.testing.assert_array_equal(scores.argmax(axis=1), withheld)


def test_scores_rank_as_the_log_probabilities_do(trained):
    model, train, *_ = trained
    scores, log_probs = (np.asarray(f(batches.ragged(train)), np.float64) for f in (model.scores, model))
    order = np.argsort(scores, axis=1)
    assert (np.diff(np.take_along_axis(log_probs, order, 1), axis=1) > -1e-5).all()


def test_shapes_and_finite_answers_an_empty_history_too(trained):
    model, train, *_ = trained
    histories = tf.ragged.constant([[], [1, 3], list(range(20))], dtype=tf.int32, row_splits_dtype=tf.int32)
    latents = 2 if model.settings.latent == "hierarchical" else 1
    assert model(histories).shape == (3, train.shape[1])
    assert model.embed(histories).shape == (3, 8 * latents)
    assert np.isfinite(model(histories)).all()
    terms = model.terms(histories, SEED, 0.5)
    assert terms.log_likelihood.shape == terms.kl.shape == (3,)
    assert np.isfinite(terms).all()


def test_every_weight_learns(trained):
    model, _, _, start = trained
    for name, variable in tree.variables(model).items():
        assert np.isfinite(variable.numpy()).all(), name
        if variable.trainable:
            assert np.any(variable.numpy() != start[name]), f"{name} never changed"


def fitted_for(steps, **settings):
    """A small H+Vamp on the checkerboard after so many steps, four to a pass."""
    train, _ = checkerboard()
    model = compiled(small(EVCF, **settings), train)
    if steps:
        model.fit(batches.shuffled(train, 10, seed=0), steps_per_epoch=steps, verbose=0)
    return model, train


def test_turns_go_to_the_encoder_and_then_to_the_decoder():
    weights = {steps: weights_of(fitted_for(steps, **PLAIN | {"encoder_passes": 2})[0]) for steps in (0, 8, 12, 13)}

    def changed(a, b):
        return {name for name, value in weights[a].items() if name != "beta" and np.any(value != weights[b][name])}

    decoder = {name for name in weights[0] if name.startswith("decoder/")}
    assert changed(0, 8) == set(weights[0]) - decoder - {"beta"}
    assert changed(8, 12) == decoder
    assert changed(12, 13) == changed(0, 8)


def test_the_decoders_turn_has_no_dropout():
    """With dropout of everything the decoder would see the same z for all users."""
    model, train = fitted_for(48, encoder_passes=1, input_dropout=0.99, optimizer="adam", learning_rate=0.01)
    terms, dropped = (model.terms(batches.ragged(train), SEED, rate).log_likelihood for rate in (0.0, 0.99))
    assert np.mean(terms) > np.mean(dropped) + 1


@pytest.mark.parametrize("lower_encoder", ["items", "hidden"])
def test_the_own_posterior_is_that_of_an_epoch_ago(lower_encoder):
    settings = {"prior_own": 0.75, "encoder_passes": 1, "lower_encoder": lower_encoder, "prior": "user_vamp"}
    model, train = fitted_for(8, **settings)  # an epoch
    before = weights_of(model)
    model.fit(batches.shuffled(train, 10, seed=0, first_pass=2), steps_per_epoch=1, verbose=0)
    after = weights_of(model)
    copies = {name: name.replace("composite/previous_", "") for name in before if name.startswith("composite/")}
    read = {"items": {"lower_encoder"}, "hidden": {"hidden", "lower_encoder"}}[lower_encoder]
    assert {original.split("/")[0] for original in copies.values()} == read
    for copy, original in copies.items():
        original = original if original in before else f"encoder/{original}"
        np.testing.assert_array_equal(after[copy], before[original].astype(np.float32))
        assert np.any(before[copy] != before[original])
    users = batches.ragged(random_users(train, 6, seed=0))
    for name, variable in tree.variables(model.encoder).items():
        variable.assign(before[f"encoder/{name}"])
    mean, log_variance = model.encoder(model.first_input(users))
    np.testing.assert_allclose(model.prior.means, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.prior.log_variances, log_variance, rtol=1e-4, atol=1e-5)


def test_beta_can_count_for_each_item_of_a_history():
    train, _ = checkerboard()
    losses = []
    for scale in ("user", "item"):
        model, _ = fitted_for(0, beta_scale=scale, beta_warmup=0, beta_cap=0.5, input_dropout=0.0)
        logs = model.fit(batches.shuffled(train, 40, seed=0), steps_per_epoch=1, verbose=0).history
        losses.append((logs["loss"][0] - logs["nll"][0]) / logs["kl"][0])
    assert losses == pytest.approx([0.5, 0.5 * 9], rel=1e-4)  # all users have nine items


def test_saved_and_loaded_it_gives_the_same_scores(trained, tmp_path):
    model, train, *_ = trained
    checkpoints.save(tmp_path / "c.npz", tree.variables(model), {"epoch": 3})
    other = build(model.settings, train.shape[1], seed=9)
    assert checkpoints.load(tmp_path / "c.npz", tree.variables(other)) == {"epoch": 3}
    histories = batches.ragged(train)
    np.testing.assert_array_equal(model(histories), other(histories))


def test_dense_and_sparse_first_layers_train_alike():
    train, _ = checkerboard()
    results = []
    for first_layer in ("dense", "sparse"):
        model = compiled(small(EVCF, first_layer=first_layer), train)
        model.fit(batches.shuffled(train, 10, seed=0), steps_per_epoch=8, verbose=0)
        results.append(model(batches.ragged(train)).numpy())
    np.testing.assert_allclose(*results, rtol=2e-4, atol=2e-4)


def test_the_seed_decides_the_weights():
    same = [built(small(EVCF, seed=s), 20).decoder.output_layer.kernel.numpy() for s in (3, 3, 4)]
    np.testing.assert_array_equal(same[0], same[1])
    assert np.any(same[0] != same[2])


def weights_of(model):
    return {name: v.numpy().astype(np.float64) for name, v in tree.variables(model).items()}


def gated(x, w, prefix):
    linear = x @ w[f"{prefix}/linear/kernel"] + w[f"{prefix}/linear/bias"]
    gate = x @ w[f"{prefix}/gate/kernel"] + w[f"{prefix}/gate/bias"]
    return linear / (1 + np.exp(-gate))


def heads(h, w, prefix):
    mean, log_variance = (
        h @ w[f"{prefix}/{name}/kernel"] + w[f"{prefix}/{name}/bias"] for name in ("mean", "log_variance")
    )
    return mean, np.clip(log_variance, -12, 4)


def normal_log_prob(z, mean, log_variance):
    return -0.5 * (np.log(2 * np.pi) + log_variance + (z - mean) ** 2 / np.exp(log_variance)).sum(-1)


def test_hierarchical_terms_are_the_papers_formulas_in_float64(rng):
    """H+Vamp (Gated), L = 2, at the posterior means, written out in NumPy (docs of the published code)."""
    model, w = built(small(EVCF), 20), None
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    w = weights_of(model)
    x = (rng.random((5, 20)) < 0.4).astype(np.float64)
    x[0] = 0
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)

    def upper(rows):
        return heads(gated(gated(rows, w, "encoder/hidden/block_0"), w, "encoder/hidden/block_1"), w, "encoder/heads")

    mean2, log_variance2 = upper(unit)
    z2 = mean2
    both = np.concatenate(
        [gated(unit, w, "lower_encoder/from_x/block_0"), gated(z2, w, "lower_encoder/from_z2/block_0")], 1
    )
    mean1, log_variance1 = heads(gated(both, w, "lower_encoder/joint/block_0"), w, "lower_encoder/heads")
    z1 = mean1
    prior1 = heads(
        gated(gated(z2, w, "lower_prior/hidden/block_0"), w, "lower_prior/hidden/block_1"), w, "lower_prior/heads"
    )
    pseudo = upper(np.clip(w["prior/pseudo_inputs"], 0, 1))
    components = normal_log_prob(z2[:, None], *(p[None] for p in pseudo))
    prior2 = np.log(np.exp(components).mean(1))
    kl = normal_log_prob(z2, mean2, log_variance2) + normal_log_prob(z1, mean1, log_variance1)
    kl -= prior2 + normal_log_prob(z1, *prior1)
    h = np.concatenate([gated(z1, w, "decoder/from_z1/block_0"), gated(z2, w, "decoder/from_z2/block_0")], 1)
    f = gated(h, w, "decoder/joint/block_0") @ w["decoder/output/kernel"] + w["decoder/output/bias"]
    log_softmax = f - np.log(np.exp(f).sum(1, keepdims=True))

    histories = tf.RaggedTensor.from_row_lengths(np.nonzero(x)[1].astype(np.int32), x.sum(1).astype(np.int32))
    terms = model.terms(histories)
    np.testing.assert_allclose(terms.log_likelihood, (x * log_softmax).sum(1), rtol=1e-4)
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(model(histories), log_softmax, rtol=1e-4, atol=1e-4)


def test_one_layer_hierarchy_reads_x_and_z2_in_one_block():
    names = tree.variables(built(small(EVCF, layers=1), 20))
    assert names["lower_encoder/joint/block_0/linear/kernel"].shape == (20 + 8, 32)
    assert names["decoder/joint/block_0/linear/kernel"].shape == (8 + 8, 32)
    assert not any("from_" in name for name in names)


@pytest.mark.parametrize(
    ("flagfile", "shapes"),
    [
        ("multdae", {"encoder/hidden/block_0/linear/kernel": (50, 200), "decoder/output/kernel": (200, 50)}),
        (
            "multvae",
            {
                "encoder/hidden/block_0/linear/kernel": (50, 600),
                "encoder/heads/mean/kernel": (600, 200),
                "decoder/hidden/block_0/linear/kernel": (200, 600),
                "decoder/output/kernel": (600, 50),
            },
        ),
        (
            "evcf",
            {
                "prior/pseudo_inputs": (1000, 50),
                "encoder/hidden/block_1/gate/kernel": (600, 600),
                "lower_encoder/joint/block_0/linear/kernel": (1200, 600),
                "lower_prior/hidden/block_0/linear/kernel": (200, 600),
                "decoder/joint/block_0/gate/kernel": (1200, 600),
            },
        ),
    ],
)
def test_flagfiles_have_the_published_sizes(flagfile, shapes):
    settings = Settings.of(**settings_in(ROOT / "trainers" / "flags" / f"{flagfile}.flags"))
    names = tree.variables(build(settings.model, 50))
    for name, shape in shapes.items():
        assert tuple(names[name].shape) == shape


def test_one_sample_kl_is_the_closed_form_on_average():
    train, _ = checkerboard()
    analytic, sampled = (compiled(small(BASELINE, kl=kl), train) for kl in ("analytic", "sample"))
    histories = batches.ragged(train[:5])
    exact = analytic.terms(histories, SEED).kl.numpy()
    one_sample = tf.function(lambda seed: sampled.terms(histories, seed).kl)
    draws = np.stack([one_sample(tf.constant([0, i])) for i in range(400)])
    np.testing.assert_array_less(np.abs(draws.mean(0) - exact), 5 * draws.std(0) / 20)


def test_weight_decay_is_the_published_penalty():
    model = compiled(small(ROOT / "trainers" / "flags" / "multdae.flags", weight_decay=0.5), checkerboard()[0])
    kernels = [v for name, v in weights_of(model).items() if name.endswith("kernel")]
    assert len(kernels) == 2
    np.testing.assert_allclose(model.weight_penalty(), 0.5 * sum((k**2).sum() for k in kernels), rtol=1e-5)


def test_pseudo_inputs_can_start_from_training_users():
    train, _ = checkerboard()
    model = built(small(EVCF, pseudo_init="users"), 20, train)
    pseudo = model.prior.pseudo_inputs.numpy()
    rows = {tuple(row) for row in train.toarray()}
    assert all(tuple(row) in rows for row in np.round(pseudo))
    assert 0.005 < np.abs(pseudo - np.round(pseudo)).std() < 0.02
    plain = built(small(EVCF), 20).prior.pseudo_inputs.numpy()
    assert abs(plain.mean() - 0.05) < 0.005


def test_hidden_pseudo_inputs_are_points_behind_the_first_block():
    train, _ = checkerboard()
    model = built(small(EVCF, prior="hidden_vamp"), 20, train)
    w = weights_of(model)
    users = random_users(train, 6, seed=0).toarray()
    unit = users / np.linalg.norm(users, axis=1, keepdims=True)
    np.testing.assert_allclose(w["prior/pseudo_inputs"], gated(unit, w, "encoder/hidden/block_0"), rtol=1e-4, atol=1e-5)
    mean, log_variance = heads(gated(w["prior/pseudo_inputs"], w, "encoder/hidden/block_1"), w, "encoder/heads")
    z = np.zeros((1, 8), np.float32)
    expected = np.log(np.exp(normal_log_prob(z[:, None], mean[None], log_variance[None])).mean(1))
    np.testing.assert_allclose(model.prior.distribution().log_prob(z), expected, rtol=1e-4)


def test_a_training_step_draws_from_seed_and_step_alone():
    train, _ = checkerboard()
    runs = []
    for _ in range(2):
        model = compiled(small(EVCF), train)
        history = model.fit(batches.shuffled(train, 10, seed=0), epochs=3, steps_per_epoch=4, verbose=0).history
        runs.append(history)
    assert runs[0] == runs[1]
    assert runs[0]["beta"] == pytest.approx([0.003, 0.006, 0.009])


def test_is_a_keras_model(trained):
    model, *_ = trained
    assert isinstance(model, keras.Model)
    assert isinstance(model.likelihood(tf.zeros([1, 20])), tfd.Distribution)
    if model.settings.has_latent_variable:
        assert isinstance(model.prior.distribution(), tfd.Distribution)
        assert isinstance(model.encoder.posterior(tf.zeros([1, 20])), tfd.Distribution)


def test_first_layer_form_follows_density_unless_forced():
    dense, sparse = (sp.csr_matrix(np.eye(10, n, dtype=np.float32)) for n in (20, 200))
    assert not built(small(BASELINE), 20, dense).sparse_input
    assert built(small(BASELINE), 200, sparse).sparse_input
    assert built(small(BASELINE, first_layer="sparse"), 20, dense).sparse_input
    assert not built(small(BASELINE, first_layer="dense"), 200, sparse).sparse_input


def test_a_training_user_is_a_pseudo_input_once():
    train, _ = checkerboard(users=8)
    drawn = random_users(train, 9, seed=0)  # more than there are users
    assert sorted(map(tuple, drawn.toarray())) == sorted(map(tuple, train.toarray()))
    for prior in ("user_vamp", "vamp"):
        model = built(small(EVCF, prior=prior, pseudo_inputs=9, pseudo_init="users"), 20, train)
        components = model.prior.distribution().parameters["mean"].shape[0]
        assert components == 8


def test_batches_cover_every_user_once_an_epoch_in_an_order_of_the_seed_and_epoch():
    train, _ = checkerboard(users=23)

    def epoch(seed, first):
        stream = iter(batches.shuffled(train, 10, seed, first))
        rows = [hist.multi_hot(next(stream), 20).numpy() for _ in range(batches.steps_per_pass(train, 10))]
        assert [len(r) for r in rows] == [10, 10, 3]
        return np.concatenate(rows)

    first, again, second = epoch(5, 0), epoch(5, 0), epoch(5, 1)
    np.testing.assert_array_equal(first, again)
    assert np.any(first != second)
    for rows in (first, second):
        np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(train.toarray(), axis=0))


def test_a_step_with_sampled_softmax_touches_the_rows_of_its_candidates_alone():
    train = sp.csr_matrix(np.eye(40, 400, dtype=np.float32))
    model = compiled(small(BASELINE, softmax_samples=3, input_dropout=0.0), train)
    before = weights_of(model)
    model.fit(batches.shuffled(train, 10, seed=0), steps_per_epoch=1, verbose=0)
    after = weights_of(model)
    for name, most in (("encoder/hidden/block_0/linear/kernel", 10), ("decoder/output/kernel", 13)):
        assert before[name].shape[0] == 400
        changed = np.any(before[name] != after[name], axis=1)
        assert 10 <= changed.sum() <= most
    assert (before["decoder/output/bias"] != after["decoder/output/bias"]).sum() == changed.sum()


def test_a_step_with_sampled_softmax_reads_no_kernel_whole(tmp_path):
    """In what TensorFlow's profiler saw: its graph optimiser put a read of the kernel in place of a gather of rows."""
    train = sp.csr_matrix(np.eye(40, 400, dtype=np.float32))
    model = compiled(small(BASELINE, softmax_samples=3), train)
    model.fit(batches.shuffled(train, 10, seed=0), steps_per_epoch=1, verbose=0)
    with tf.profiler.experimental.Profile(str(tmp_path)):
        model.fit(batches.shuffled(train, 10, seed=0), steps_per_epoch=1, verbose=0)
    space = xplane_pb2.XSpace.FromString(next(tmp_path.rglob("*.xplane.pb")).read_bytes())
    names = {event.name for plane in space.planes for event in plane.event_metadata.values()}
    assert any("SparseSegmentSum" in name for name in names)
    reads = {name for name in names if name.endswith(":ReadVariableOp")}
    assert reads
    assert not any("SparseSegmentSum" in name or "output" in name for name in reads), reads


def test_sampled_softmax_with_all_items_drawn_is_the_full_one():
    """With certain candidates and every item in a batch, the steps are those of the full softmax."""
    train, _ = checkerboard()
    settings, losses, kernel = {"first_layer": "sparse", "input_dropout": 0.0}, [], None
    for samples in (0, 2_000):
        model = compiled(small(BASELINE, softmax_samples=samples, **settings), train)
        if samples:
            model.decoder.output_layer.kernel.assign(np.transpose(kernel))
        kernel = model.decoder.output_layer.kernel.numpy()
        history = model.fit(batches.shuffled(train, 10, seed=0), epochs=2, steps_per_epoch=8, verbose=0).history
        losses.append(history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_inclusion_counts_users_and_draws():
    train = sp.csr_matrix(np.tri(50, 4, k=-46, dtype=np.float32) + np.eye(50, 4, k=-3, dtype=np.float32) > 0)
    found = np.exp(log_inclusion(train, batch_size=10, samples=3))
    counts = np.asarray(train.sum(0)).ravel()
    np.testing.assert_allclose(found, 1 - 0.8**counts * 0.75**3, rtol=1e-5)


def test_the_batchs_prior_is_the_mixture_of_its_other_users_in_training_alone():
    train, _ = checkerboard()
    settings = {"latent": "flat", "layers": 1, "input_dropout": 0.0}
    model = built(small(EVCF, prior="batch_vamp", **settings), 20, train)
    model.refresh()
    histories = batches.ragged(train[:4])
    mean, log_variance = (np.asarray(p, np.float64) for p in model.encoder(model.first_input(histories)))
    z = np.asarray(model.encoder.posterior(model.first_input(histories)).sample(seed=tf.random.split(SEED, 3)[1]))
    densities = np.exp(normal_log_prob(z[:, None], mean[None], log_variance[None]))
    prior = np.log((densities.sum(1) - densities.diagonal()) / 3)
    kl = normal_log_prob(z, mean, log_variance) - prior
    np.testing.assert_allclose(model.terms(histories, SEED).kl, kl, rtol=1e-3)
    users = built(small(EVCF, prior="user_vamp", **settings), 20, train)
    users.refresh()
    np.testing.assert_allclose(model.terms(histories).kl, users.terms(histories).kl, rtol=1e-6)


def test_open_pseudo_inputs_are_clipped_dropped_out_and_differentiated_as_written(rng):
    prior = built(small(EVCF), 20).prior
    w = rng.normal(0.5, 0.6, prior.pseudo_inputs.shape).astype(np.float32)
    w[0, :2] = 0, 1  # the bounds pass gradients on
    prior.pseudo_inputs.assign(w)
    seen = []
    prior._encode = lambda u: seen.append(u) or (u, tf.zeros_like(u))
    seed, upstream = tf.constant([3, 4]), rng.normal(size=w.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        prior.distribution(PriorContext(0.25, seed))
        total = tf.reduce_sum(seen[0] * upstream)
    kept = hist.keep_mask(tf.constant(w.shape), 0.25, seed).numpy() / 0.75
    np.testing.assert_allclose(seen[0], np.clip(w, 0, 1) * kept, rtol=1e-6)
    within = (w >= 0) & (w <= 1)
    np.testing.assert_allclose(tape.gradient(total, prior.pseudo_inputs.value), upstream * kept * within, rtol=1e-6)


def test_a_batch_of_one_user_has_the_training_users_as_prior():
    train, _ = checkerboard(users=41)  # the last batch of ten is one user
    model = compiled(small(EVCF, prior="batch_vamp", optimizer="adam"), train)
    logs = model.fit(batches.shuffled(train, 10, seed=0), epochs=1, steps_per_epoch=5, verbose=0).history
    assert 0 < logs["loss"][0] < 1e3
    users = built(small(EVCF, prior="user_vamp"), 20, train)
    users.set_weights(model.get_weights())
    alone = batches.ragged(train[:1])
    np.testing.assert_allclose(model.terms(alone, SEED).kl, users.terms(alone, SEED).kl, rtol=1e-6)


def test_hidden_pseudo_inputs_start_behind_the_first_norm():
    train, _ = checkerboard()
    model = built(small(EVCF, prior="hidden_vamp", encoder_skips="dense"), 20, train)
    users = random_users(train, 6, 0)
    mean, log_variance = model.encoder(hist.unit_norm(batches.ragged(users)))
    prior = model.prior.distribution().parameters
    np.testing.assert_allclose(prior["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prior["log_variance"], log_variance, rtol=1e-5, atol=1e-6)


def test_weight_decay_leaves_out_copies_that_do_not_learn():
    train, _ = checkerboard()
    losses = []
    for prior_own in (0.0, 0.75):
        model = compiled(small(BASELINE, weight_decay=0.1, prior_own=prior_own), train)
        kernels = [v for v in model.trainable_variables if v.name == "kernel"]
        expected = 0.1 * sum(float(np.sum(v.numpy().astype(np.float64) ** 2)) for v in kernels)
        np.testing.assert_allclose(model.weight_penalty(), expected, rtol=1e-5)
        losses.append(expected)
    assert losses[0] == losses[1]


def test_training_never_asks_for_xla_on_a_machine_with_a_gpu(monkeypatch):
    """Keras resolves jit_compile="auto" to True there, and XLA has no kernel for sums over bags of items."""
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    devices = [*tf.config.list_physical_devices(), gpu]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [gpu] if kind == "GPU" else devices)
    train, _ = checkerboard()
    settings = small(EVCF, **PLAIN, first_layer="sparse")

    def loss(model):
        logs = model.fit(batches.shuffled(train, 10, seed=0), epochs=1, steps_per_epoch=1, verbose=0).history
        return logs["loss"][0]

    automatic = built(settings, 20, train)
    automatic.compile(jit_compile="auto")
    with pytest.raises(tf.errors.InvalidArgumentError, match="SparseSegmentSum"):
        loss(automatic)
    plain = built(settings, 20, train)
    plain.compile()
    assert np.isfinite(loss(plain))
    assert np.isfinite(loss(compiled(settings, train)))


def test_a_gpu_multiplies_whole_float32_numbers():
    """As a CPU does, on which the exported model may be served; TensorFlow's default is TF32."""
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
