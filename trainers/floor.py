"""The least work of a training step, counted from the model's shapes."""

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from vae_cf_tf.models.models import Autoencoder
from vae_cf_tf.settings.config import Config

from vae_cf_tf import machine
from vae_cf_tf.models import tree


class Product(NamedTuple):
    """x W for x [rows, inputs] and W [inputs, units], and its gradients: W's, and x's where that is no constant."""

    rows: int
    inputs: int
    units: int
    of_input: bool = True

    @property
    def operations(self) -> float:
        """Floating-point operations: 2·rows·inputs·units, and as many for each gradient."""
        return (6.0 if self.of_input else 4.0) * self.rows * self.inputs * self.units

    def seconds(self, dtype: tf.DType) -> float:
        """What these products take by themselves, each at its own shape."""
        n, i, o = self.rows, self.inputs, self.units
        forward, of_kernel = _seconds(n, i, o, dtype), _seconds(i, n, o, dtype, transpose_a=True)
        return forward + of_kernel + (_seconds(n, o, i, dtype, transpose_b=True) if self.of_input else 0.0)


@functools.cache
def _seconds(m: int, k: int, n: int, dtype: tf.DType, **transposed: bool) -> float:
    return 2 * m * k * n / machine.product_rate(m, k, n, dtype, repeats=7, **transposed)


class Part(NamedTuple):
    """A part of a step: its matrix products, and bytes it must move at least."""

    name: str
    products: tuple[Product, ...]
    bytes: float = 0.0

    @property
    def operations(self) -> float:
        return sum(product.operations for product in self.products)

    def products_seconds(self, dtype: tf.DType) -> float:
        return sum(product.seconds(dtype) for product in self.products)


def parts(model: Autoencoder, config: Config, mean_history: float) -> list[Part]:
    """The parts of one step.

    Users' histories are no variables, so that the first layer has no gradient for them, and one for pseudo-inputs. A
    sparse first layer has no product: it reads the kernel's rows of the items kept and writes its gradient. With a
    sampled softmax the catalogue counts with its expected candidates only.

    Args:
      model: built.
      config: its settings.
      mean_history: items of a mean history.
    """
    batch = config.batch_size
    k = {"standard": 0, "batch_vamp": batch}.get(config.prior, config.pseudo_inputs)
    items, learned = catalogue(model), config.prior in ("vamp", "hidden_vamp")
    kept = batch * mean_history * (1 - config.input_dropout)
    users: list[Product] = []
    pseudo: list[Product] = []
    sparse_bytes = 0.0
    for name, variable in tree.variables(model).items():
        if not name.endswith("/kernel") or name.startswith(("own_", "prior/")):
            continue
        i, o = variable.shape
        through_prior = learned and name.startswith("encoder/")
        if name == "decoder/output/kernel":
            users.append(Product(batch, min(i, o), items))
        elif i < model.num_items:
            users.append(Product(batch, i, o))
            pseudo += [Product(k, i, o)] * through_prior
        else:
            if not model.sparse_input:
                users.append(Product(batch, i, o, of_input=False))
            else:
                sparse_bytes += 4 * o * (kept + items)
                beside = i - model.num_items  # what stands beside the items
                users += [Product(batch, beside, o)] * (beside > 0)
            pseudo += [Product(k, i, o)] * (through_prior and config.prior == "vamp")
    mixture = [Product(batch, config.latent_dim, k)] * (2 * (k > 0))  # of z² and of z with the components
    share = items / model.num_items  # of the rows that belong to an item
    variables = sum(
        int(np.prod(v.shape)) * (share if v.shape[0] >= model.num_items else 1.0) for v in model.trainable_variables
    )
    scores = 4.0 * batch * items
    open_rows = 2 * 4.0 * k * model.num_items if config.prior == "vamp" else 0.0
    return [
        Part("users' products", tuple(users)),
        Part("pseudo-inputs' products", (*pseudo, *mixture)),
        Part("sparse first layer", (), sparse_bytes),
        Part("pseudo-inputs read and opened", (), open_rows),
        Part("likelihood: f read, its gradient written", (), 2 * scores),
        Part("optimiser: gradient, weight and moments read, the latter written", (), 7 * 4.0 * variables),
    ]


def catalogue(model: Autoencoder) -> int:
    """Items that the likelihood of a step is made of."""
    return model.num_items if model.log_inclusion is None else int(np.exp(model.log_inclusion).sum())


def product_rates(model: Autoencoder, rows: tuple[int, ...]) -> dict[str, float]:
    """Operations a second of [rows, hidden] × [hidden, items] by number format: the best of `rows`."""
    shape = model.decoder.output_layer.input_dim, catalogue(model)
    return {t.name: max(machine.product_rate(n, *shape, t) for n in rows) for t in (tf.float32, tf.bfloat16)}
