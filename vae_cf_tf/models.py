"""The models: an encoder, a prior, a decoder and a likelihood, put together and trained by one `train_step`.

`build` makes every configuration. All models take a batch of histories (`vae_cf_tf.histories`) and answer with item
log-probabilities.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf import histories as hist
from vae_cf_tf.batches import ragged
from vae_cf_tf.blocks import Linear, products_in
from vae_cf_tf.config import Config
from vae_cf_tf.decoders import ConditionalPrior, Decoder, JointDecoder
from vae_cf_tf.distributions import anchored, diagonal_normal
from vae_cf_tf.encoders import Code, ConditionalEncoder, Encoder
from vae_cf_tf.item_path import ItemPath
from vae_cf_tf.likelihoods import LIKELIHOODS, Gaussian, sampled_log_softmax
from vae_cf_tf.optimizers import OPTIMIZERS
from vae_cf_tf.priors import BatchVampPrior, HiddenVampPrior, StandardNormal, UserVampPrior, VampPrior
from vae_cf_tf.schedules import KLAnnealing

tfd = tfp.distributions

PRODUCT_DTYPES = {"float32": tf.float32, "mixed_bfloat16": tf.bfloat16}

SPARSE_BELOW = 0.04
"""Share of the catalogue in a mean history up to which the sparse first layer is the faster one. Forward and kernel
gradient on 2 cores, in ms, 200 × 3,497 × 600: 3.6 against 5.0 at 2 %, 5.0 against 4.9 at 4 %, 7.3 against 5.6 at 8 %;
500 × 3,497 × 600: 9.2 against 9.9 at 4 %, 11.1 against 10.7 at 6 %; 500 × 20,108 × 600: 13 against 46 at .4 %, 49
against 61 at 4 %, 65 each at 6 %. `trainers.benchmark` times both forms for a data set at hand."""


class Terms(NamedTuple):
    """The parts of the evidence lower bound, a value a user."""

    log_likelihood: tf.Tensor  # log p(x|z), float [batch]
    kl: tf.Tensor  # KL(q(z|x) ‖ p(z)) or its one-sample estimate, float [batch]


class Autoencoder(keras.Model):
    """The base of the family: input, likelihood, annealed ELBO and its training step.

    A subclass has `terms` and `latent`, and `decode` from what `latent` returns.

    Training is with respect to all weights at once or, with encoder_passes, in turns (RecVAE, Shenbin et al. 2020).

    Args:
      config: settings of the model.
      num_items: size of the catalogue.
      density: share of the catalogue in a mean history, by which first_layer=auto chooses.
    """

    def __init__(self, config: Config, num_items: int, density: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.config, self.num_items = config, num_items
        self.sparse_input = (
            config.first_layer == "sparse"
            or config.softmax_samples > 0
            or (config.first_layer == "auto" and density < SPARSE_BELOW)
        )
        self.log_inclusion: tf.Tensor | None = None  # of each item, in the sampled softmax's candidates
        self.widths = {
            "hidden_dim": config.hidden_dim,
            "latent_dim": config.latent_dim,
            "block": config.block,
            "initializer": config.initializer,
        }
        self.annealing: KLAnnealing | None = None
        self.steps_per_pass = 0
        self.decoder_layers = config.layers if config.decoder_layers < 0 else config.decoder_layers
        self.by_item = config.softmax_samples > 0
        self.beta = self.add_weight(shape=(), initializer="zeros", trainable=False, name="beta")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", "nll", "kl")}
        self.item_path: ItemPath | None = None  # made when all else is trained
        self.built = True

    # The model

    def terms(self, histories: tf.RaggedTensor, seed: tf.Tensor | None = None, rate: float = 0.0) -> Terms:
        """The ELBO's parts: one sample of z and input dropout at `rate` drawn from `seed`; with None, z at its mean."""
        raise NotImplementedError

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        """The latent variables at their posterior means, the arguments of `decode`; float [batch, latent_dim] each."""
        raise NotImplementedError

    def decode(self, *latent: tf.Tensor) -> tf.Tensor:
        """f, float [batch, num_items], the parameters of the likelihood."""
        return self.decoder(*latent)

    def likelihood(self, f: tf.Tensor) -> tfd.Distribution:
        if self.config.likelihood == "gaussian":
            return Gaussian(f, self.config.confidence, self.config.confidence_zero)
        return LIKELIHOODS[self.config.likelihood](f)

    def call(self, histories: tf.RaggedTensor, training: bool = False) -> tf.Tensor:
        """Item log-probabilities at the posterior mean, float [batch, num_items]; seen items are not masked."""
        if self.item_path is None:
            return self.deep_log_probs(histories)
        return tf.nn.log_softmax(self.scores(histories))

    def deep_log_probs(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """What `call` returns where there is no item path."""
        return self.likelihood(self.decode(*self.latent(histories))).item_log_probs()

    def scores(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """Float [batch, num_items], in the order of `call`, which normalises them over the catalogue."""
        if self.item_path is None:
            return self.decode(*self.latent(histories))  # log-probabilities rise with it under every likelihood
        return self.deep_log_probs(histories) + self.item_path(histories)

    def embed(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """Posterior mean of all latent variables side by side, float [batch, latent]."""
        return tf.concat(self.latent(histories), axis=-1)

    def first_input(
        self, histories: tf.RaggedTensor, rate: float = 0.0, seed: tf.Tensor | None = None
    ) -> tf.Tensor | hist.Bags:
        """x/‖x‖₂ with dropout at `rate`, in the form that the first layer multiplies fastest."""
        bags = hist.unit_norm(histories, rate, seed)
        return bags if self.sparse_input else hist.dense_rows(bags, self.num_items)

    def log_likelihood(
        self, histories: tf.RaggedTensor, *latent: tf.Tensor, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """log p(x|z), float [batch]; in training from sampled candidates, where the configuration says so."""
        if seed is None or not self.config.softmax_samples:
            return self.likelihood(self.decode(*latent)).history_log_prob(histories)
        drawn = tf.random.stateless_uniform(
            [self.config.softmax_samples], tf.random.fold_in(seed, 1), 0, self.num_items, tf.int32
        )
        candidates, places = tf.unique(tf.concat([histories.values, drawn], axis=0))
        rows = hist.rows_of(histories)
        inclusion = tf.gather(self.log_inclusion, candidates)
        f = self.decoder(*latent, items=candidates)
        return sampled_log_softmax(f, rows, places[: tf.size(rows)], inclusion)

    # Training

    def compile_for(self, steps_per_pass: int) -> "Autoencoder":
        """Compiles with the configuration's optimiser and KL annealing; returns itself.

        Args:
          steps_per_pass: batches of a pass over the users, of which an epoch has `config.passes`.
        """
        c = self.config
        self.steps_per_pass, steps_per_epoch = steps_per_pass, steps_per_pass * c.passes
        self.annealing = KLAnnealing(c.beta_cap, c.beta_warmup, c.beta_unit, steps_per_epoch)
        # Never XLA, which Keras would choose on a GPU: it has no kernel for sums over bags of items.
        self.compile(optimizer=OPTIMIZERS[c.optimizer](c.learning_rate, by_rows=self._by_rows()), jit_compile=False)
        self.optimizer.build(self.trainable_variables)
        return self

    def _by_rows(self) -> list[keras.Variable]:
        """The variables of which a step updates only the rows that it used."""
        output = self.decoder.output_layer
        first = [layer.kernel for layer in self._flatten_layers() if isinstance(layer, Linear) and layer.rows_only]
        return [*first, output.kernel, output.bias] if output.by_unit else first

    def train_step(self, histories: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """One step on −log p(x|z) + β·KL, averaged over the batch; β follows the annealing schedule.

        All random draws are a function of the configuration's seed and the step's number, so that a resumed run needs
        no other random state.
        """
        step = tf.convert_to_tensor(self.optimizer.iterations)
        within = step % (self.steps_per_pass * self.config.passes)
        tf.cond(within == 0, self._refreshed, lambda: False)
        beta = self.annealing(step)
        variables, rate = self.trainable_variables, self.config.input_dropout
        if not self.config.encoder_passes:
            loss, nll, kl = self._learn(histories, step, beta, variables, rate)
        else:
            of_decoder = {id(v) for v in self.decoder.trainable_variables}
            others = [v for v in variables if id(v) not in of_decoder]
            loss, nll, kl = tf.cond(
                within < self.steps_per_pass * self.config.encoder_passes,
                lambda: self._learn(histories, step, beta, others, rate),
                lambda: self._learn(histories, step, beta, self.decoder.trainable_variables, 0.0),
            )
        self.beta.assign(beta)
        for name, value in {"loss": loss, "nll": nll, "kl": kl}.items():
            self.trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self.trackers.items()} | {"beta": beta}

    def _learn(
        self, histories: tf.RaggedTensor, step: tf.Tensor, beta: tf.Tensor, variables: list[keras.Variable], rate: float
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Updates `variables`; returns the loss, −log p(x|z) and the KL term, means over the batch."""
        seed = tf.stack([tf.constant(self.config.seed, tf.int32), tf.cast(step, tf.int32)])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([v.value for v in variables])
            with products_in(PRODUCT_DTYPES[self.config.dtype_policy]):
                terms = self.terms(histories, seed, rate)
            nll, kl = -tf.reduce_mean(terms.log_likelihood), tf.reduce_mean(terms.kl)
            weighted = terms.kl
            if self.config.beta_scale == "item":
                weighted *= tf.cast(histories.row_lengths(), tf.float32)
            loss = nll + beta * tf.reduce_mean(weighted) + self._decay()
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss, nll, kl

    def _refreshed(self) -> bool:
        self.refresh()
        return True

    def refresh(self) -> None:
        """What is done before the first step of each epoch."""

    def test_step(self, histories: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """−log p(x|z) and KL at the posterior mean, and their sum (β = 1), as Kim & Suh's code logs them."""
        terms = self.terms(histories)
        nll, kl = -tf.reduce_mean(terms.log_likelihood), tf.reduce_mean(terms.kl)
        for name, value in {"loss": nll + kl, "nll": nll, "kl": kl}.items():
            self.trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self.trackers.items()}

    def _decay(self) -> tf.Tensor:
        if not self.config.weight_decay:
            return tf.zeros([])
        kernels = [v.kernel for v in self._flatten_layers() if isinstance(v, Linear) and v.kernel.trainable]
        return 2 * self.config.weight_decay * tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(k)) for k in kernels])


class DAE(Autoencoder):
    """The denoising autoencoder, Mult-DAE for the multinomial likelihood (Liang et al. 2018, section 2.3): no latent
    distribution, no KL term, weight decay instead."""

    def __init__(self, config: Config, num_items: int, density: float = 1.0, **kwargs: Any):
        super().__init__(config, num_items, density, **kwargs)
        self.encoder = Code(num_items, layers=config.layers, skips=config.encoder_skips, **self.widths, name="encoder")
        layers = config.layers - 1 if config.decoder_layers < 0 else config.decoder_layers
        self.decoder = Decoder(num_items, layers=layers, **self.widths, by_item=self.by_item, name="decoder")

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        return (self.encoder(self.first_input(histories)),)

    def terms(self, histories: tf.RaggedTensor, seed: tf.Tensor | None = None, rate: float = 0.0) -> Terms:
        code = self.encoder(self.first_input(histories, rate, seed))
        log_likelihood = self.log_likelihood(histories, code, seed=seed)
        return Terms(log_likelihood, tf.zeros_like(log_likelihood))


class Variational(Autoencoder):
    """What models with a posterior have in common: `encoder` for q of the (upper) latent variable, `prior`, and
    `own_encoder`, the encoder as it was an epoch ago, where prior_own asks for it. A subclass makes them."""

    def _encoder(self, name: str) -> Encoder:
        c = self.config
        return Encoder(self.num_items, layers=c.layers, skips=c.encoder_skips, **self.widths, name=name)

    def refresh(self) -> None:
        for copy, original in self.copies():
            for variable, present in zip(copy.variables, original.variables, strict=True):
                variable.assign(present)
        if isinstance(self.prior, UserVampPrior):
            self.prior.refresh()

    def copies(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """Encoders as they were an epoch ago, and what they are copies of; where prior_own asks for them."""
        return [(self.own_encoder, self.encoder)] if self.own_encoder else []


class VAE(Variational):
    """One latent variable: Mult-VAE with the standard normal prior (Liang et al. 2018), Vamp with the VampPrior
    (Kim & Suh 2019); with prior_own over the standard prior, RecVAE's composite (Shenbin et al. 2020).

    Differs from `DAE` in that the code is a Gaussian whose divergence from the prior is paid for.

    Args:
      users: [K, num_items], training users from which the pseudo-inputs start, where the configuration says so.
    """

    def __init__(
        self, config: Config, num_items: int, density: float = 1.0, users: sp.csr_matrix | None = None, **kwargs: Any
    ):
        super().__init__(config, num_items, density, **kwargs)
        self.encoder = self._encoder("encoder")
        self.prior = _prior(config, self.encoder, num_items, users)
        self.decoder = Decoder(
            num_items, layers=self.decoder_layers, **self.widths, by_item=self.by_item, name="decoder"
        )
        self.own_encoder = _untrained(self._encoder("own_encoder")) if config.prior_own else None

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        return (self.encoder.mean(self.first_input(histories)),)

    def terms(self, histories: tf.RaggedTensor, seed: tf.Tensor | None = None, rate: float = 0.0) -> Terms:
        x_seed, z_seed, prior_seed = _split_seed(seed, 3)
        parameters = self.encoder(self.first_input(histories, rate, x_seed))
        posterior = diagonal_normal(*parameters)
        z = _draw(posterior, z_seed)
        prior = self.prior.distribution(rate, prior_seed, None if seed is None else parameters)
        if self.own_encoder:
            own = self.own_encoder(self.first_input(histories))
            prior = anchored((tf.zeros_like(z), tf.zeros_like(z)), own, self.config.prior_own)
        if self.config.kl == "analytic":
            kl = tfd.kl_divergence(posterior, prior)
        else:
            kl = posterior.log_prob(z) - prior.log_prob(z)
        return Terms(self.log_likelihood(histories, z, seed=seed), kl)


class HierarchicalVAE(Variational):
    """Two latent variables, q(z2|x) q(z1|x, z2) and p(z2) p(z1|z2) p(x|z1, z2): H+Vamp with the VampPrior
    (Kim & Suh 2019).

    Differs from `VAE` in the second, lower latent variable z1, whose prior is a Gaussian given z2; the prior of the
    configuration is that of z2. With prior_own, z1's is RecVAE's composite around that Gaussian instead of N(0, I).
    Arguments as `VAE`.
    """

    def __init__(
        self, config: Config, num_items: int, density: float = 1.0, users: sp.csr_matrix | None = None, **kwargs: Any
    ):
        super().__init__(config, num_items, density, **kwargs)
        self.encoder = self._encoder("encoder")
        self.lower_encoder = self._lower_encoder("lower_encoder")
        self.prior = _prior(config, self.encoder, num_items, users)
        lower_layers = config.layers if config.lower_encoder == "items" else 1
        self.lower_prior = ConditionalPrior(layers=lower_layers, **self.widths, name="lower_prior")
        self.decoder = JointDecoder(
            num_items, layers=self.decoder_layers, **self.widths, by_item=self.by_item, name="decoder"
        )
        self.own_encoder = self.own_lower_encoder = None
        if config.prior_own:
            if config.lower_encoder == "hidden":  # which is given the upper one's last block
                self.own_encoder = _untrained(self._encoder("own_encoder"))
            self.own_lower_encoder = _untrained(self._lower_encoder("own_lower_encoder"))

    def _lower_encoder(self, name: str) -> ConditionalEncoder:
        c = self.config
        shape = {"skips": c.encoder_skips, "name": name} | self.widths
        if c.lower_encoder == "items":
            return ConditionalEncoder(self.num_items, layers=c.layers, items=self.num_items, **shape)
        return ConditionalEncoder(c.hidden_dim, layers=0, **shape)

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        x = self.first_input(histories)
        h = self.encoder.hidden(x)
        z2 = self.encoder.heads.mean(h)
        return self.lower_encoder.mean(x if self.config.lower_encoder == "items" else h, z2), z2

    def terms(self, histories: tf.RaggedTensor, seed: tf.Tensor | None = None, rate: float = 0.0) -> Terms:
        upper_seed, lower_seed, z2_seed, z1_seed, prior_seed = _split_seed(seed, 5)
        h = self.encoder.hidden(self.first_input(histories, rate, upper_seed))
        parameters = self.encoder.heads(h)
        upper = diagonal_normal(*parameters)
        z2 = _draw(upper, z2_seed)
        if self.config.lower_encoder == "items":
            h = self.first_input(histories, rate, lower_seed)  # with dropout of its own
        lower = self.lower_encoder.posterior(h, z2)
        z1 = _draw(lower, z1_seed)
        base = self.lower_prior(z2)
        lower_prior = diagonal_normal(*base)
        if self.own_lower_encoder:
            h = self.first_input(histories)
            h = self.own_encoder.hidden(h) if self.own_encoder else h
            own = self.own_lower_encoder(h, tf.stop_gradient(z2))
            lower_prior = anchored(base, own, self.config.prior_own)
        kl = upper.log_prob(z2) + lower.log_prob(z1)
        upper_prior = self.prior.distribution(rate, prior_seed, None if seed is None else parameters)
        kl -= upper_prior.log_prob(z2) + lower_prior.log_prob(z1)
        return Terms(self.log_likelihood(histories, z1, z2, seed=seed), kl)

    def copies(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        lower = [(self.own_lower_encoder, self.lower_encoder)] if self.own_lower_encoder else []
        return super().copies() + lower


MODELS = {"none": DAE, "flat": VAE, "hierarchical": HierarchicalVAE}


def build(config: Config, num_items: int, train: sp.csr_matrix | None = None) -> Autoencoder:
    """The configuration's model, its weights drawn from the configuration's seed.

    Args:
      config: settings.
      num_items: size of the catalogue.
      train: [users, num_items], the training users; needed for pseudo_init=users, and to choose the first layer's form
        by density.
    """
    keras.utils.set_random_seed(config.seed)
    density = 1.0 if train is None else train.nnz / (train.shape[0] * num_items)
    if config.latent == "none":
        model = DAE(config, num_items, density)
    else:
        users = None
        if train is not None and starts_from_users(config):
            users = random_users(train, config.pseudo_inputs, config.seed)
        model = MODELS[config.latent](config, num_items, density, users)
    if config.softmax_samples and train is not None:
        model.log_inclusion = tf.constant(log_inclusion(train, config.batch_size, config.softmax_samples))
        for layer in model._flatten_layers():
            if isinstance(layer, Linear) and layer.items:
                layer.rows_only = True
    return model


def starts_from_users(config: Config) -> bool:
    """Whether the prior's components are, or start from, training users."""
    if config.prior == "vamp":
        return config.pseudo_init == "users"
    return config.prior != "standard"


def log_inclusion(train: sp.csr_matrix, batch_size: int, samples: int) -> np.ndarray:
    """log probability of each item to be among a step's candidates: in one of its users' histories, or one of `samples`
    draws from the catalogue; float32 [items]."""
    users, items = train.shape
    counts = np.bincount(train.indices, minlength=items)
    absent = counts * np.log1p(-min(batch_size / users, 1 - 1e-9)) + samples * np.log1p(-1 / items)  # log probability
    return np.log(-np.expm1(absent)).astype(np.float32)


def random_users(train: sp.csr_matrix, k: int, seed: int) -> sp.csr_matrix:
    """K training users, or all of them where there are fewer: [min(K, users), items]."""
    rng = np.random.default_rng([seed, 1])
    return train[rng.choice(train.shape[0], size=min(k, train.shape[0]), replace=False)]


def _prior(config: Config, encoder: Encoder, num_items: int, users: sp.csr_matrix | None) -> keras.layers.Layer:
    if config.prior == "standard":
        return StandardNormal(config.latent_dim, name="prior")
    if config.prior in ("user_vamp", "batch_vamp"):
        if users is None:  # likewise: only the shape counts
            users = sp.csr_matrix((config.pseudo_inputs, num_items), dtype=np.float32)
        made = UserVampPrior if config.prior == "user_vamp" else BatchVampPrior
        return made(encoder, users, config.latent_dim, name="prior")
    if config.prior == "hidden_vamp":
        if users is None:  # only the shape counts: the weights are loaded
            start = np.zeros((config.pseudo_inputs, config.hidden_dim), np.float32)
        else:
            start = encoder.hidden.first(hist.unit_norm(ragged(users)))
        return HiddenVampPrior(encoder.after_first_block, start, name="prior")
    start = None
    if config.pseudo_init == "users" and users is not None:
        noise = np.random.default_rng([config.seed, 2]).normal(0, 0.01, users.shape)
        start = (users.toarray() + noise).astype(np.float32)
    pseudo_inputs = config.pseudo_inputs if start is None else len(start)
    return VampPrior(encoder, pseudo_inputs, num_items, start, name="prior")


def _split_seed(seed: tf.Tensor | None, n: int) -> list[tf.Tensor | None]:
    return [None] * n if seed is None else tf.unstack(tf.random.split(seed, n))


def _untrained(layer: keras.layers.Layer) -> keras.layers.Layer:
    layer.trainable = False
    return layer


def _draw(posterior: tfd.Distribution, seed: tf.Tensor | None) -> tf.Tensor:
    return posterior.mean() if seed is None else posterior.sample(seed=seed)
