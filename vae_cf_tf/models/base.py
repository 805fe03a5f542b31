"""The base of all models: input, likelihood, the annealed ELBO and its training step."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import scipy.sparse as sp
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models import histories as hist
from vae_cf_tf.models import replicas, tree
from vae_cf_tf.models.blocks import Linear, products_in
from vae_cf_tf.models.likelihoods.base import Likelihood
from vae_cf_tf.models.schedules import KLAnnealing
from vae_cf_tf.registries import LIKELIHOODS
from vae_cf_tf.settings import ModelSettings

tfd = tfp.distributions

PRODUCT_DTYPES = {"float32": tf.float32, "mixed_bfloat16": tf.bfloat16}


class ElboTerms(NamedTuple):
    """The two parts of the ELBO, one value per user."""

    log_likelihood: tf.Tensor  # log p(x|z), float [batch]
    kl: tf.Tensor  # KL(q(z|x) ‖ p(z)) or its one-sample estimate, float [batch]


class StepOptions(NamedTuple):
    """What a training step does beside the model; the arguments of `Autoencoder.compile`."""

    annealing: KLAnnealing = KLAnnealing(0.2)
    input_dropout: float = 0.5
    beta_scale: str = "user"
    weight_decay: float = 0.0
    encoder_passes: int = 0
    steps_per_pass: int = 0
    turns: str = "epoch"
    kl: str = "sample"
    dtype_policy: str = "float32"
    seed: int = 0
    log_inclusion: Any = None


class Autoencoder(keras.Model):
    """Base class of all networks.

    A subclass has `terms`, `latent`, and `build_layers`, which sets `decoder`: it takes what `latent` returns. Use
    `vae_cf_tf.models.build` to make a model with initial weights from a seed and, if the prior needs them, from users.

    Args:
      settings: of the model, or a dict of them.
      num_items: size of the catalogue.
      sparse_input: whether the first layer multiplies the items of a history (else dense rows).
      components: K of the prior; None: settings.pseudo_inputs.
      users: [K, num_items], training users from which the prior starts; None: it needs none, or its weights are loaded.
      seed: seed of the prior's initial weights.
    """

    def __init__(
        self,
        settings: ModelSettings | dict[str, Any],
        num_items: int,
        sparse_input: bool = True,
        components: int | None = None,
        users: sp.csr_matrix | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        settings = settings if isinstance(settings, ModelSettings) else ModelSettings(**settings)
        self.settings = settings.for_catalogue(num_items)
        self.num_items, self.sparse_input = num_items, sparse_input
        self.components = self.settings.pseudo_inputs if components is None else components
        self.users, self.seed = users, seed
        self.likelihood_class: type[Likelihood] = LIKELIHOODS[self.settings.likelihood]
        self.step_options = StepOptions()
        self.is_within_epoch = False
        """Whether the next epoch of `fit` is the rest of an interrupted one. `refresh` is then not called again."""
        self.beta = self.add_weight(shape=(), initializer="zeros", trainable=False, name="beta")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", "nll", "kl")}
        self.build_layers()
        self.users = None
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {
            "settings": dataclasses.asdict(self.settings),
            "num_items": self.num_items,
            "sparse_input": self.sparse_input,
            "components": self.components,
            "name": self.name,
        }

    # The model

    def build_layers(self) -> None:
        """Makes the layers."""
        raise NotImplementedError

    def terms(
        self,
        histories: tf.RaggedTensor,
        seed: tf.Tensor | None = None,
        rate: float = 0.0,
        weights: tf.Tensor | None = None,
        density: bool = False,
    ) -> ElboTerms:
        """The two parts of the ELBO.

        With `seed`, int32 [2], z is one sample, and input dropout is at `rate`; both are functions of the seed. Without
        it, z is the posterior mean, and `rate` must be 0.

        `weights`, float [items of the batch], are x_ui of the likelihood; None: ones. The encoder reads the items
        without them, since the histories that a server gets have none.

        With `density`, log_likelihood − kl is a lower bound of log p(x), so that models with different priors can be
        compared: the prior is one density for all users, without a part that reads the user (prior_own) or the batch,
        and the likelihood is over all items.
        """
        raise NotImplementedError

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        """The latent variables at their posterior means, the arguments of `decode`; float [batch, latent_dim] each."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Brings up to date what is encoded once per epoch. `fit` calls it before each epoch."""

    @property
    def shape(self) -> dict[str, Any]:
        """The arguments of `Network` that all networks of the model share: all but `layers` and `skips`."""
        s = self.settings
        return {
            "hidden_dim": s.hidden_dim,
            "latent_dim": s.latent_dim,
            "block": s.block,
            "initializer": s.initializer,
            "by_rows": s.softmax_samples > 0,
        }

    @property
    def num_outputs(self) -> int:
        """Numbers that the decoder gives for a user."""
        return self.num_items * self.likelihood_class.outputs

    @property
    def decoder_layers(self) -> int:
        return self.settings.layers if self.settings.decoder_layers < 0 else self.settings.decoder_layers

    def decode(self, *latent: tf.Tensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """f, the parameters of the likelihood: float [batch, num_outputs]; with `items`, int32 [n], only those of these
        items, float [batch, outputs·n]."""
        if items is None:
            return self.decoder(*latent)
        columns = [items + i * self.num_items for i in range(self.likelihood_class.outputs)]
        return self.decoder(*latent, some=tf.concat(columns, axis=0))

    def likelihood(self, f: tf.Tensor) -> Likelihood:
        return self.likelihood_class.from_settings(f, self.settings)

    def call(self, histories: tf.RaggedTensor, training: bool = False) -> tf.Tensor:
        """Item log-probabilities at the posterior mean, float [batch, num_items]; seen items are not masked."""
        return self.likelihood(self.decode(*self.latent(hist.of_int32(histories)))).item_log_probs()

    def scores(self, histories: tf.RaggedTensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """Scores that rank the items as `call` does: float [batch, num_items]; with `items`, int32 [n], only those of
        these items, float [batch, n]."""
        return self.likelihood(self.decode(*self.latent(histories), items=items)).item_scores()

    def embed(self, histories: tf.RaggedTensor) -> tf.Tensor:
        """Posterior means of all latent variables side by side, float [batch, latent]."""
        return tf.concat(self.latent(histories), axis=-1)

    def first_input(
        self, histories: tf.RaggedTensor, rate: float = 0.0, seed: tf.Tensor | None = None
    ) -> tf.Tensor | hist.Bags:
        """x/‖x‖₂ with dropout at `rate`, in the form that the first layer multiplies fastest."""
        bags = hist.unit_norm(histories, rate, seed)
        return bags if self.sparse_input else hist.dense_rows(bags, self.num_items)

    def log_likelihood(
        self,
        histories: tf.RaggedTensor,
        *latent: tf.Tensor,
        seed: tf.Tensor | None = None,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """log p(x|z), float [batch]. With `seed`, and softmax_samples > 0, it is estimated from sampled candidates."""
        samples, more = self.settings.softmax_samples, () if weights is None else (weights,)
        if seed is None or not samples:
            return self.likelihood(self.decode(*latent)).history_log_prob(histories, *more)
        drawn = tf.random.stateless_uniform([samples], tf.random.fold_in(seed, 1), 0, self.num_items, tf.int32)
        batch, rows = replicas.current(), hist.rows_of(histories)
        candidates, places = tf.unique(tf.concat([batch.all_items(histories.values), drawn], axis=0))
        inclusion = tf.gather(self.step_options.log_inclusion, candidates)
        f = self.decoder(*latent, some=candidates)
        return self.likelihood_class.sampled_log_prob(f, rows, batch.own_items(places, tf.size(rows)), inclusion, *more)

    # Training

    def compile(self, optimizer: Any = "adam", annealing: Any = None, **options: Any) -> None:
        """As `keras.Model.compile`, for the loss −log p(x|z) + β·KL.

        Args:
          optimizer: a Keras optimiser, or the name of one.
          annealing: β of each step, a `KLAnnealing`; or a constant β; None: .2.
          options: input_dropout: share of a history that is dropped (.5). beta_scale: "user", or "item" to multiply a
            user's KL term by the length of the history. weight_decay: λ of λ·Σ‖W‖² (0). encoder_passes: n > 0 for
            alternating training, n passes for encoder and prior, then one for the decoder (0), which needs
            steps_per_pass. turns: "epoch", or "step" to alternate n steps and 1 step instead of passes. kl: "sample" or
            "analytic". dtype_policy: "float32" or "mixed_bfloat16". seed: of dropout and z (0). log_inclusion: for a
            sampled softmax, log probability of each item to be a candidate, float [num_items]. All others go to Keras.

        Raises:
          ValueError: encoder_passes without steps_per_pass, or a model with softmax_samples without log_inclusion.
        """
        own = {name: options.pop(name) for name in StepOptions._fields if name in options}
        if isinstance(annealing, int | float):
            annealing = KLAnnealing(float(annealing))
        self.step_options = StepOptions(**own | ({"annealing": annealing} if annealing else {}))
        if self.step_options.encoder_passes and not self.step_options.steps_per_pass:
            raise ValueError("`encoder_passes` needs `steps_per_pass`. Received: `steps_per_pass` = 0.")
        if self.settings.softmax_samples and self.step_options.log_inclusion is None:
            raise ValueError("A model with `softmax_samples` needs `log_inclusion`. Received: None.")
        # Never XLA, which Keras would choose on a GPU: it has no kernel for sums over bags of items.
        super().compile(optimizer=optimizer, **{"jit_compile": False} | options)
        if hasattr(self.optimizer, "update_by_rows"):
            self.optimizer.update_by_rows([v for layer in self.linear_layers() for v in layer.variables_by_rows])
        self.optimizer.build(self.trainable_variables)

    def get_compile_config(self) -> dict[str, Any]:
        """What `compile` was given, if it was called; {} for a sampled softmax, whose `log_inclusion` belongs to the
        training data."""
        if not self.compiled or self.settings.softmax_samples:
            return {}
        options = self.step_options._asdict() | {"annealing": dataclasses.asdict(self.step_options.annealing)}
        del options["log_inclusion"]
        return {"optimizer": keras.saving.serialize_keras_object(self.optimizer)} | options

    def compile_from_config(self, config: dict[str, Any]) -> None:
        optimizer = keras.saving.deserialize_keras_object(config.pop("optimizer"))
        self.compile(optimizer, **config | {"annealing": KLAnnealing(**config["annealing"])})

    def fit(self, *args: Any, callbacks: Any = None, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`, on a tf.data.Dataset of histories, int32 or int64 ragged [batch, (items)], or of pairs
        of histories and weights, float32 [items of the batch]."""
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(_Refresh())
        else:
            callbacks = self.with_refresh(callbacks or [])
        return super().fit(*args, callbacks=callbacks, **kwargs)

    @staticmethod
    def with_refresh(callbacks: Iterable[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        """These callbacks, and one that calls `refresh` before each epoch."""
        return [_Refresh(), *callbacks]

    def train_step(self, data: tf.RaggedTensor | tuple[tf.RaggedTensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on −log p(x|z) + β·KL, averaged over the batch; β follows the annealing schedule.

        All random draws are a function of the seed and the step's number, so that a resumed run needs no other random
        state.
        """
        histories, weights = data if isinstance(data, tuple) else (data, None)
        histories = hist.of_int32(histories)
        step, options = tf.convert_to_tensor(self.optimizer.iterations), self.step_options
        beta = options.annealing(step)
        first, last = (functools.partial(self._learn, histories, step, beta, *turn, weights) for turn in self._turns)
        loss, nll, kl = tf.cond(self.is_first_turn(step), first, last) if options.encoder_passes else first()
        return self.tracked(beta, loss, nll, kl)

    def replica_step(
        self, histories: tf.RaggedTensor, weights: tf.Tensor | None, is_first_turn: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """One replica's part of a training step, called in the replica's context.

        Differs from `train_step` in that the turn of alternating training is known when it is traced: replicas cannot
        exchange tensors within a `tf.cond`.

        Args:
          histories, weights: the global batch; see `fit`.
          is_first_turn: what the method `is_first_turn` returns for this step.

        Returns:
          Loss, −log p(x|z) and KL term, float [] each: the replica's summands of the means over the batch.
        """
        step, share = tf.convert_to_tensor(self.optimizer.iterations), replicas.Share(hist.of_int32(histories))
        with replicas.computing(share):
            own, weights = share.cut(weights)
            turn = self._turns[0 if is_first_turn else 1]
            return self._learn(own, step, self.step_options.annealing(step), *turn, weights)

    def is_first_turn(self, step: Any) -> Any:
        """Whether the step that follows `step` steps updates encoder and prior; if not, it updates the decoder only.

        Without alternating training it is always True, and each step updates the decoder too.
        """
        passes, steps = self.step_options.encoder_passes, self.steps_per_turn
        return not passes or step % (steps * (passes + 1)) < steps * passes

    @property
    def _turns(self) -> list[tuple[list[keras.Variable], float]]:
        """The variables to update, and the input dropout: a pair for the first passes of alternating training, and one
        for the last pass. Without alternating training the two pairs are equal."""
        rate = self.step_options.input_dropout
        if not self.step_options.encoder_passes:
            return [(self.trainable_variables, rate)] * 2
        return [(self.encoder_and_prior_variables, rate), (self.decoder.trainable_variables, 0.0)]

    def tracked(self, beta: tf.Tensor, loss: tf.Tensor, nll: tf.Tensor, kl: tf.Tensor) -> dict[str, tf.Tensor]:
        """Adds a step's values to the means since the epoch's start; returns these means, and the step's β."""
        self.beta.assign(beta)
        for name, value in {"loss": loss, "nll": nll, "kl": kl}.items():
            self.trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self.trackers.items()} | {"beta": beta}

    @property
    def encoder_and_prior_variables(self) -> list[keras.Variable]:
        """All that learn but the decoder's: those of the first passes of alternating training."""
        of_decoder = {id(v) for v in self.decoder.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in of_decoder]

    @property
    def steps_per_turn(self) -> int:
        """Steps of the decoder's turn in alternating training; that of encoder and prior has `encoder_passes` times as
        many."""
        return 1 if self.step_options.turns == "step" else self.step_options.steps_per_pass

    def _learn(
        self,
        histories: tf.RaggedTensor,
        step: tf.Tensor,
        beta: tf.Tensor,
        variables: list[keras.Variable],
        rate: float,
        weights: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Updates `variables`; returns the loss, −log p(x|z) and the KL term, means over the batch."""
        options = self.step_options
        seed = tf.stack([tf.constant(options.seed, tf.int32), tf.cast(step, tf.int32)])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([v.value for v in variables])
            with products_in(PRODUCT_DTYPES[options.dtype_policy]):
                more = () if weights is None else (weights,)
                terms = self.terms(histories, seed, rate, *more)
            batch = replicas.current()
            nll, kl = -batch.mean(terms.log_likelihood), batch.mean(terms.kl)
            weighted = terms.kl
            if options.beta_scale == "item":
                weighted *= hist.total_weights(histories, weights)
            loss = nll + beta * batch.mean(weighted) + batch.once(self.weight_penalty())
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss, nll, kl

    def test_step(self, histories: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """−log p(x|z) and KL at the posterior mean, and their sum (β = 1), as Kim & Suh's code logs them."""
        terms = self.terms(hist.of_int32(histories))
        nll, kl = -tf.reduce_mean(terms.log_likelihood), tf.reduce_mean(terms.kl)
        for name, value in {"loss": nll + kl, "nll": nll, "kl": kl}.items():
            self.trackers[name].update_state(value)
        return {name: tracker.result() for name, tracker in self.trackers.items()}

    def weight_penalty(self) -> tf.Tensor:
        """weight_decay·Σ‖W‖² over all kernels that learn, float [] (Liang et al.'s code for Mult-DAE)."""
        if not self.step_options.weight_decay:
            return tf.zeros([])
        kernels = [layer.kernel for layer in self.linear_layers() if layer.kernel.trainable]
        squares = tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(kernel)) for kernel in kernels])
        return 2 * self.step_options.weight_decay * squares

    def linear_layers(self) -> list[Linear]:
        """All layers that multiply by a kernel."""
        return [layer for layer in tree.layers(self).values() if isinstance(layer, Linear)]


class _Refresh(keras.callbacks.Callback):
    """Calls the model's `refresh` before each epoch, but not before the rest of an interrupted one."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.refresh = tf.function(lambda: self.model.refresh(), autograph=False)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.model.is_within_epoch:
            self.refresh()
        self.model.is_within_epoch = False


def split_seed(seed: tf.Tensor | None, n: int) -> list[tf.Tensor | None]:
    """n independent seeds; of None, n times None."""
    return [None] * n if seed is None else tf.unstack(tf.random.split(seed, n))


def draw(posterior: tfd.Distribution, seed: tf.Tensor | None) -> tf.Tensor:
    """A sample; without a seed, the mean."""
    return posterior.mean() if seed is None else replicas.current().sample(posterior, seed)
