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
from vae_cf_tf.encoders import Code, ConditionalEncoder, Encoder
from vae_cf_tf.likelihoods import LIKELIHOODS, Gaussian
from vae_cf_tf.optimizers import OPTIMIZERS
from vae_cf_tf.priors import HiddenVampPrior, StandardNormal, VampPrior
from vae_cf_tf.schedules import KLAnnealing

tfd = tfp.distributions

PRODUCT_DTYPES = {"float32": tf.float32, "mixed_bfloat16": tf.bfloat16}

SPARSE_BELOW = 0.04
"""Share of the catalogue in a mean history up to which the sparse first layer is the faster one. Forward and kernel
gradient on 2 cores, 200 × 3,497 × 600: 4 against 11 ms at 1.4 %, 7 against 11 at 2.6 %, 11 against 11 at 4.1 %; 500 ×
20,108 × 600: 30 against 146 ms at .36 %."""


class Terms(NamedTuple):
    """The parts of the evidence lower bound, a value a user."""

    log_likelihood: tf.Tensor  # log p(x|z), float [batch]
    kl: tf.Tensor  # KL(q(z|x) ‖ p(z)) or its one-sample estimate, float [batch]


class Autoencoder(keras.Model):
    """The base of the family: input, likelihood, annealed ELBO and its training step.

    A subclass has `terms` and `latent`, and `decode` from what `latent` returns.

    Args:
      config: settings of the model.
      num_items: size of the catalogue.
      density: share of the catalogue in a mean history, by which first_layer=auto chooses.
    """

    def __init__(self, config: Config, num_items: int, density: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.config, self.num_items = config, num_items
        self.sparse_input = config.first_layer == "sparse" or (config.first_layer == "auto" and density < SPARSE_BELOW)
        self.widths = {
            "hidden_dim": config.hidden_dim,
            "latent_dim": config.latent_dim,
            "block": config.block,
            "initializer": config.initializer,
        }
        self.annealing: KLAnnealing | None = None
        self.beta = self.add_weight(shape=(), initializer="zeros", trainable=False, name="beta")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", "nll", "kl")}
        self.built = True

    # The model

    def terms(self, histories: tf.RaggedTensor, seed: tf.Tensor | None = None) -> Terms:
        """The ELBO's parts: one sample of z and dropout drawn from `seed`; with None, z at its mean and no dropout."""
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
        return self.likelihood(self.decode(*self.latent(histories))).item_log_probs()

    def embed(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """Posterior mean of all latent variables side by side, float [batch, latent]."""
        return tf.concat(self.latent(histories), axis=-1)

    def first_input(self, histories: tf.RaggedTensor, seed: tf.Tensor | None = None) -> tf.Tensor | hist.Bags:
        """x/‖x‖₂ with dropout if there is a seed, in the form that the first layer multiplies fastest."""
        bags = hist.unit_norm(histories, self.config.input_dropout if seed is not None else 0.0, seed)
        return bags if self.sparse_input else hist.dense_rows(bags, self.num_items)

    def log_likelihood(self, histories: tf.RaggedTensor, f: tf.Tensor) -> tf.Tensor:
        return self.likelihood(f).history_log_prob(histories)

    # Training

    def compile_for(self, steps_per_epoch: int) -> "Autoencoder":
        """Compiles with the configuration's optimiser and KL annealing; returns itself."""
        c = self.config
        self.annealing = KLAnnealing(c.beta_cap, c.beta_warmup, c.beta_unit, steps_per_epoch)
        self.compile(optimizer=OPTIMIZERS[c.optimizer](c.learning_rate))
        self.optimizer.build(self.trainable_variables)
        return self

    def train_step(self, histories: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """One step on −log p(x|z) + β·KL, averaged over the batch; β follows the annealing schedule.

        All random draws are a function of the configuration's seed and the step's number, so that a resumed run needs
        no other random state.
        """
        step = tf.convert_to_tensor(self.optimizer.iterations)
        seed = tf.stack([tf.constant(self.config.seed, tf.int32), tf.cast(step, tf.int32)])
        beta = self.annealing(step)
        with tf.GradientTape() as tape, products_in(PRODUCT_DTYPES[self.config.dtype_policy]):
            terms = self.terms(histories, seed)
            nll, kl = -tf.reduce_mean(terms.log_likelihood), tf.reduce_mean(terms.kl)
            loss = nll + beta * kl + self._decay()
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.beta.assign(beta)
        for name, value in {"loss": loss, "nll": nll, "kl": kl}.items():
            self.trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self.trackers.items()} | {"beta": beta}

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
        kernels = [layer.kernel for layer in self._flatten_layers() if isinstance(layer, Linear)]
        return 2 * self.config.weight_decay * tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(k)) for k in kernels])


class DAE(Autoencoder):
    """The denoising autoencoder, Mult-DAE for the multinomial likelihood (Liang et al. 2018, section 2.3): no latent
    distribution, no KL term, weight decay instead."""

    def __init__(self, config: Config, num_items: int, density: float = 1.0, **kwargs: Any):
        super().__init__(config, num_items, density, **kwargs)
        self.encoder = Code(num_items, layers=config.layers, **self.widths, name="encoder")
        self.decoder = Decoder(num_items, layers=config.layers - 1, **self.widths, name="decoder")

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        return (self.encoder(self.first_input(histories)),)

    def terms(self, histories: tf.RaggedTensor, seed: tf.Tensor | None = None) -> Terms:
        log_likelihood = self.log_likelihood(histories, self.decode(self.encoder(self.first_input(histories, seed))))
        return Terms(log_likelihood, tf.zeros_like(log_likelihood))


class VAE(Autoencoder):
    """One latent variable: Mult-VAE with the standard normal prior (Liang et al. 2018), Vamp with the VampPrior
    (Kim & Suh 2019).

    Differs from `DAE` in that the code is a Gaussian whose divergence from the prior is paid for.

    Args:
      users: [K, num_items], training users from which the pseudo-inputs start, where the configuration says so.
    """

    def __init__(
        self, config: Config, num_items: int, density: float = 1.0, users: sp.csr_matrix | None = None, **kwargs: Any
    ):
        super().__init__(config, num_items, density, **kwargs)
        self.encoder = Encoder(num_items, layers=config.layers, **self.widths, name="encoder")
        self.prior = _prior(config, self.encoder, num_items, users)
        self.decoder = Decoder(num_items, layers=config.layers, **self.widths, name="decoder")

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        return (self.encoder(self.first_input(histories))[0],)

    def terms(self, histories: tf.RaggedTensor, seed: tf.Tensor | None = None) -> Terms:
        x_seed, z_seed, prior_seed = _split_seed(seed, 3)
        posterior = self.encoder.posterior(self.first_input(histories, x_seed))
        z = _draw(posterior, z_seed)
        prior = self.prior.distribution(self.config.input_dropout if seed is not None else 0.0, prior_seed)
        if self.config.kl == "analytic":
            kl = tfd.kl_divergence(posterior, prior)
        else:
            kl = posterior.log_prob(z) - prior.log_prob(z)
        return Terms(self.log_likelihood(histories, self.decode(z)), kl)


class HierarchicalVAE(Autoencoder):
    """Two latent variables, q(z2|x) q(z1|x, z2) and p(z2) p(z1|z2) p(x|z1, z2): H+Vamp with the VampPrior
    (Kim & Suh 2019).

    Differs from `VAE` in the second, lower latent variable z1, whose prior is a Gaussian given z2; the prior of the
    configuration is that of z2. Arguments as `VAE`.
    """

    def __init__(
        self, config: Config, num_items: int, density: float = 1.0, users: sp.csr_matrix | None = None, **kwargs: Any
    ):
        super().__init__(config, num_items, density, **kwargs)
        self.encoder = Encoder(num_items, layers=config.layers, **self.widths, name="encoder")
        self.lower_encoder = ConditionalEncoder(num_items, layers=config.layers, **self.widths, name="lower_encoder")
        self.prior = _prior(config, self.encoder, num_items, users)
        self.lower_prior = ConditionalPrior(layers=config.layers, **self.widths, name="lower_prior")
        self.decoder = JointDecoder(num_items, layers=config.layers, **self.widths, name="decoder")

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        x = self.first_input(histories)
        z2, _ = self.encoder(x)
        z1, _ = self.lower_encoder(x, z2)
        return z1, z2

    def terms(self, histories: tf.RaggedTensor, seed: tf.Tensor | None = None) -> Terms:
        upper_seed, lower_seed, z2_seed, z1_seed, prior_seed = _split_seed(seed, 5)
        upper = self.encoder.posterior(self.first_input(histories, upper_seed))
        z2 = _draw(upper, z2_seed)
        lower = self.lower_encoder.posterior(self.first_input(histories, lower_seed), z2)
        z1 = _draw(lower, z1_seed)
        prior = self.prior.distribution(self.config.input_dropout if seed is not None else 0.0, prior_seed)
        kl = upper.log_prob(z2) + lower.log_prob(z1)
        kl -= prior.log_prob(z2) + self.lower_prior.distribution(z2).log_prob(z1)
        return Terms(self.log_likelihood(histories, self.decode(z1, z2)), kl)


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
        return DAE(config, num_items, density)
    users = None
    if train is not None and (config.prior == "hidden_vamp" or config.pseudo_init == "users"):
        users = random_users(train, config.pseudo_inputs, config.seed)
    return MODELS[config.latent](config, num_items, density, users)


def random_users(train: sp.csr_matrix, k: int, seed: int) -> sp.csr_matrix:
    """K training users, the same one twice only where there are fewer: [K, items]."""
    rng = np.random.default_rng([seed, 1])
    return train[rng.choice(train.shape[0], size=k, replace=train.shape[0] < k)]


def _prior(config: Config, encoder: Encoder, num_items: int, users: sp.csr_matrix | None) -> keras.layers.Layer:
    if config.prior == "standard":
        return StandardNormal(config.latent_dim, name="prior")
    if config.prior == "hidden_vamp":
        if users is None:  # only the shape counts: the weights are loaded
            start = np.zeros((config.pseudo_inputs, config.hidden_dim), np.float32)
        else:
            start = encoder.hidden.blocks[0](hist.unit_norm(ragged(users)))
        return HiddenVampPrior(encoder.after_first_block, start, name="prior")
    start = None
    if config.pseudo_init == "users" and users is not None:
        noise = np.random.default_rng([config.seed, 2]).normal(0, 0.01, users.shape)
        start = (users.toarray() + noise).astype(np.float32)
    return VampPrior(encoder, config.pseudo_inputs, num_items, start, name="prior")


def _split_seed(seed: tf.Tensor | None, n: int) -> list[tf.Tensor | None]:
    return [None] * n if seed is None else tf.unstack(tf.random.split(seed, n))


def _draw(posterior: tfd.Distribution, seed: tf.Tensor | None) -> tf.Tensor:
    return posterior.mean() if seed is None else posterior.sample(seed=seed)
