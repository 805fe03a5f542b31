"""The phases of an epoch, and the parts of a training step that can be run by themselves."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from vae_cf_tf.evaluation.ranking import SCORES
from vae_cf_tf.models import histories, tree
from vae_cf_tf.models.base import PRODUCT_DTYPES, Autoencoder
from vae_cf_tf.models.blocks import Linear, products_in
from vae_cf_tf.models.priors.base import PriorContext

Call = Callable[[], Any]
FORMS = {"sparse": lambda bags, items: bags, "dense": histories.dense_rows}
"""Forms in which the first layer can take histories."""
_SEED = [0, 1]


class Phase(NamedTuple):
    """The passes of an epoch in which the same variables learn."""

    learns: str
    passes: int  # over the users, in an epoch
    step: int  # number, from 0, of its first step
    variables: Sequence[keras.Variable]  # those that learn
    dropout_rate: float  # at the input


def phases_of(model: Autoencoder) -> list[Phase]:
    """The phases of an epoch of a compiled model."""
    options = model.step_options
    passes, rate = options.encoder_passes, options.input_dropout
    if not passes:
        return [Phase("all weights", 1, 0, model.trainable_variables, rate)]
    return [
        Phase("encoder and prior", passes, 0, model.encoder_and_prior_variables, rate),
        Phase("decoder", 1, passes * model.steps_per_turn, model.decoder.trainable_variables, 0.0),
    ]


def parts_of(model: Autoencoder, phase: Phase, batch: tf.RaggedTensor) -> dict[str, Call]:
    """Functions that run one part of a step each: "forward", "forward and backward", "optimiser", perhaps "prior"."""
    variables, seed = [v.value for v in phase.variables], tf.constant(_SEED)
    dtype = PRODUCT_DTYPES[model.step_options.dtype_policy]

    def terms():
        with products_in(dtype):
            return model.terms(batch, seed, phase.dropout_rate)

    def gradients():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            both = terms()
            loss = tf.reduce_mean(both.kl - both.log_likelihood) + model.weight_penalty()
        return both, tape.gradient(loss, variables)

    backward = tf.function(gradients, autograph=False)
    _, values = backward()
    parts = {
        "forward": tf.function(terms, autograph=False),
        "forward and backward": backward,
        "optimiser": tf.function(lambda: model.optimizer.apply(values, phase.variables), autograph=False),
    }
    if hasattr(model, "prior"):
        z = tf.zeros([batch.nrows(), model.settings.latent_dim])
        context = PriorContext(phase.dropout_rate, seed, (z, z), lambda: model.first_input(batch), z)

        def log_density():
            with products_in(dtype):
                return model.prior.distribution(context).log_prob(z)

        parts["prior"] = tf.function(log_density, autograph=False)
    return parts


def first_layer(model: Autoencoder, batch: tf.RaggedTensor) -> dict[str, Call]:
    """One product with the users' histories, forward and gradient, in each of `FORMS` that fits into memory."""
    layers = tree.layers(model.encoder).values()
    layer = next(layer for layer in layers if isinstance(layer, Linear) and layer.items)
    options = model.step_options

    def product(form: str):
        bags = histories.unit_norm(batch, options.input_dropout, tf.constant(_SEED))
        with products_in(PRODUCT_DTYPES[options.dtype_policy]), tf.GradientTape() as tape:
            total = tf.reduce_sum(layer.product(FORMS[form](bags, model.num_items)))
        return total, tape.gradient(total, layer.kernel.value)

    is_dense_small = int(batch.nrows()) * model.num_items <= SCORES
    return {
        form: tf.function(lambda form=form: product(form), autograph=False)
        for form in FORMS
        if form == "sparse" or is_dense_small
    }
