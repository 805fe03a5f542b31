"""The least work of a training step, counted from the model's shapes."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vae_cf_tf import checkpoints, machine
from vae_cf_tf.config import Config
from vae_cf_tf.models import Autoencoder


class Part(NamedTuple):
    """A part of a step: floating-point operations of its matrix products, and bytes it must move at least."""

    name: str
    operations: float
    bytes: float


def parts(model: Autoencoder, config: Config, mean_history: float) -> list[Part]:
    """The parts of one step.

    A product of [rows, i] × [i, o] costs 2·rows·i·o operations, and as many again for each of its gradients; users'
    histories are no variables, so that the first layer has one gradient for them and two for pseudo-inputs. A sparse
    first layer has no product: it reads the kernel's rows of the items kept and writes its gradient. With a sampled
    softmax the catalogue counts with its expected candidates only.

    Args:
      model: built.
      config: its settings.
      mean_history: items of a mean history.
    """
    batch = config.batch_size
    k = {"standard": 0, "batch_vamp": batch}.get(config.prior, config.pseudo_inputs)
    items, learned = catalogue(model), config.prior in ("vamp", "hidden_vamp")
    kept = batch * mean_history * (1 - config.input_dropout)
    users = sparse_bytes = pseudo = 0.0
    for name, variable in checkpoints.model_variables(model).items():
        if not name.endswith("/kernel"):
            continue
        i, o = variable.shape
        if name.startswith(("own_", "prior/")):
            continue
        if name == "decoder/output/kernel":
            users += 3 * 2 * batch * items * min(i, o)
            continue
        through_prior = learned and name.startswith("encoder/")
        if i >= model.num_items:
            if model.sparse_input:
                sparse_bytes += 4 * o * (kept + items)
                i -= model.num_items  # what stands beside the items, if anything
                users += 3 * 2 * batch * i * o
            else:
                users += 2 * 2 * batch * i * o
            pseudo += 3 * 2 * k * model.num_items * o if through_prior and config.prior == "vamp" else 0
        else:
            users += 3 * 2 * batch * i * o
            pseudo += 3 * 2 * k * i * o if through_prior else 0
    mixture = 2 * 3 * 2 * batch * k * config.latent_dim
    share = items / model.num_items  # of the rows that belong to an item
    variables = sum(
        int(np.prod(v.shape)) * (share if v.shape[0] >= model.num_items else 1.0) for v in model.trainable_variables
    )
    scores = 4.0 * batch * items
    open_rows = 2 * 4.0 * k * model.num_items if config.prior == "vamp" else 0.0
    return [
        Part("users' products", users, 0),
        Part("pseudo-inputs' products", pseudo + mixture, 0),
        Part("sparse first layer", 0, sparse_bytes),
        Part("pseudo-inputs read and opened", 0, open_rows),
        Part("likelihood: f read, its gradient written", 0, 2 * scores),
        Part("optimiser: gradient, weight and moments read, the latter written", 0, 7 * 4.0 * variables),
    ]


def catalogue(model: Autoencoder) -> int:
    """Items that the likelihood of a step is made of."""
    return model.num_items if model.log_inclusion is None else int(np.exp(model.log_inclusion).sum())


def product_rates(model: Autoencoder, rows: tuple[int, ...]) -> dict[str, float]:
    """Operations a second of [rows, hidden] × [hidden, items] by number format: the best of `rows`."""
    shape = model.decoder.output_layer.input_dim, catalogue(model)
    return {t.name: max(machine.product_rate(n, *shape, t) for n in rows) for t in (tf.float32, tf.bfloat16)}
