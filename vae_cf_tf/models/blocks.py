"""Hidden blocks, and the linear products that they are made of."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from vae_cf_tf.models import replicas
from vae_cf_tf.models.histories import Bags
from vae_cf_tf.models.item_axes import ItemAxis

INITIALIZERS = ("he", "glorot", "zeros")


class _ProductDtype(threading.local):
    """Of a thread, since `MirroredStrategy` traces replicas in threads that take turns."""

    value = tf.float32


_product_dtype = _ProductDtype()
_product: Callable[..., tf.Tensor] | None = None


@contextlib.contextmanager
def products_in(dtype: tf.DType) -> Iterator[None]:
    """Within, the dense products of layers, and their gradients, are computed in `dtype`.

    Inputs and results stay float32, and so do variables, sums over rows, densities and losses. It holds for what is
    traced within: `train_step` uses it. Evaluation and export do not, so they answer in float32.
    """
    before, _product_dtype.value = _product_dtype.value, dtype
    try:
        yield
    finally:
        _product_dtype.value = before


@contextlib.contextmanager
def products_by(product: Callable[..., tf.Tensor]) -> Iterator[None]:
    """Within, `product(layer, x)` computes every `Linear.product`, and `product(layer, x, units)` some columns of one.

    The export traces its signatures within it, to read the kernels in their serving layout.
    """
    global _product
    before, _product = _product, product
    try:
        yield
    finally:
        _product = before


def _matmul(a: tf.Tensor, b: Any, transpose_b: bool = False) -> tf.Tensor:
    if _product_dtype.value == tf.float32:
        return tf.matmul(a, b, transpose_b=transpose_b)
    a, b = tf.cast(a, _product_dtype.value), tf.cast(b, _product_dtype.value)
    return tf.cast(tf.matmul(a, b, transpose_b=transpose_b), tf.float32)


def _kernel_and_bias(name: str, fan_in: int, fan_out: int) -> tuple[keras.Initializer, keras.Initializer]:
    if name == "he":  # Kim & Suh's code: He-normal kernels over PyTorch's default biases
        bound = fan_in**-0.5
        return keras.initializers.RandomNormal(stddev=(2 / fan_in) ** 0.5), keras.initializers.RandomUniform(
            -bound, bound
        )
    if name == "glorot":  # Liang et al.'s code: Xavier-uniform kernels, biases N(0, .001²) truncated
        bound = (6 / (fan_in + fan_out)) ** 0.5
        return keras.initializers.RandomUniform(-bound, bound), keras.initializers.TruncatedNormal(stddev=0.001)
    if name == "zeros":  # for copies, whose weights are assigned
        return keras.initializers.Zeros(), keras.initializers.Zeros()
    raise ValueError(f"`initializer` should be one of {INITIALIZERS}. Received: `initializer` = {name!r}.")


@keras.saving.register_keras_serializable("vae_cf_tf")
class Linear(keras.layers.Layer):
    """x W + b, for dense rows, for bags of items, or for the two side by side.

    Args:
      input_dim: width of x.
      units: width of the result.
      initializer: one of `INITIALIZERS`.
      fan_out: for "glorot": units of the published code's layer, if this one is a part of it; None: `units`.
      items: number of inputs, counted from the first, that are catalogue items; if it is not 0, x may be `Bags`.
      by_rows: a training step reads and updates only the rows of the kernel that the batch uses. This copies those
        rows, so it is faster only where the catalogue is much larger than a batch. A layer with `items` uses the rows
        of W of the items in its bags. A layer without holds Wᵀ, [units, input_dim], and uses the rows of the units
        that `some_units` asks for.
      units_are_items: whether the units are numbers of the catalogue's items, one or several for each.

    Call arguments:
      x: float [batch, input_dim]; or `Bags` of items; or a pair of either and float [batch, d], which stand for their
        concatenation.

    Returns:
      float [batch, units].

    Examples:
      >>> Linear(3, 2)(tf.ones([5, 3])).shape
      TensorShape([5, 2])
    """

    def __init__(
        self,
        input_dim: int,
        units: int,
        initializer: str = "he",
        fan_out: int | None = None,
        items: int = 0,
        by_rows: bool = False,
        units_are_items: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units_are_items = units_are_items
        kernel, bias = _kernel_and_bias(initializer, input_dim, fan_out or units)
        self.input_dim, self.units, self.items, self.by_rows = input_dim, units, items, by_rows
        self.transposed = by_rows and not items
        shape = (units, input_dim) if self.transposed else (input_dim, units)
        self.kernel = self.add_weight(shape=shape, initializer=kernel, name="kernel")
        self.bias = self.add_weight(shape=(units,), initializer=bias, name="bias")
        self.built = True

    @property
    def variables_by_rows(self) -> list[keras.Variable]:
        """The variables of which a training step updates only some rows."""
        if not self.by_rows:
            return []
        return [self.kernel, self.bias] if self.transposed else [self.kernel]

    def item_axes(self) -> list[ItemAxis]:
        """Where the items lie in kernel and bias."""
        if self.units_are_items:
            kernel = ItemAxis(self.kernel, 0 if self.transposed else 1, self.units)
            return [kernel, ItemAxis(self.bias, 0, self.units)]
        return [ItemAxis(self.kernel, 0, self.items)] if self.items else []

    def call(self, x: Any) -> tf.Tensor:
        return tf.nn.bias_add(self.product(x), self.bias)

    def product(self, x: Any) -> tf.Tensor:
        """x W, without the bias."""
        if _product is not None:
            return _product(self, x)
        if isinstance(x, Bags):
            return self._sum(x)
        if isinstance(x, tuple) and isinstance(x[0], Bags):
            bags, rest = x
            tail = tf.convert_to_tensor(self.kernel)[-rest.shape[-1] :]
            return self._sum(bags) + _matmul(rest, tail)
        return _matmul(tf.concat(x, axis=-1) if isinstance(x, tuple) else x, self.kernel, transpose_b=self.transposed)

    def some_units(self, x: tf.Tensor | tuple[tf.Tensor, ...], units: tf.Tensor) -> tf.Tensor:
        """The columns `units`, int32 [n], of the result for dense rows: float [batch, n].

        Only a layer that holds Wᵀ reads, and in training updates, those columns of W alone.
        """
        if _product is not None:  # reads the bias, then gathers: see `export.kernels.ServedKernel`
            return tf.nn.bias_add(_product(self, x, units), tf.gather(tf.convert_to_tensor(self.bias), units))
        x = tf.concat(x, axis=-1) if isinstance(x, tuple) else x
        some = tf.gather(replicas.local(self.kernel.value), units, axis=0 if self.transposed else 1)
        bias = tf.gather(replicas.local(self.bias.value), units)
        return tf.nn.bias_add(_matmul(x, some, transpose_b=self.transposed), bias)

    def columns(self, units: tf.Tensor) -> tf.Tensor:
        """The columns `units`, int32 [n], of the kernel: float32 [n, input_dim]."""
        if self.transposed:
            return tf.gather(self.kernel.value, units)
        return tf.transpose(tf.gather(self.kernel.value, units, axis=1))

    def _sum(self, bags: Bags) -> tf.Tensor:
        """Sums the kernel rows of each bag's items. Reads only those rows."""
        items = bags.items
        if self.by_rows:
            # Not tf.unique: with it, TensorFlow's graph optimiser takes these lines for a lookup of embeddings, and
            # reads the whole kernel in place of the gather.
            distinct, items, _ = tf.unique_with_counts(items)
            kernel = tf.gather(replicas.local(self.kernel.value), distinct)
        else:
            kernel = tf.convert_to_tensor(self.kernel)
        sums = _row_sums(kernel, items, bags.rows, tf.size(bags.scale))
        return sums * tf.cast(bags.scale, sums.dtype)[:, None]


@tf.custom_gradient
def _row_sums(kernel: tf.Tensor, items: tf.Tensor, rows: tf.Tensor, batch: tf.Tensor):
    """For each row of the batch, the sum of the kernel's rows of its items: float [batch, units].

    `rows` has the batch row of each of `items`. The kernel's gradient sums the upstream rows of each item. This takes
    12 ms for 500 users of ML-20M and 600 units, sort included; TensorFlow's own gradient takes 20.
    """

    def gradient(upstream):
        order = tf.argsort(items, stable=True)
        by_item = tf.gather(rows, order), tf.gather(items, order)
        segments = kernel.shape[0] or tf.shape(kernel)[0]  # a number where it is one: the optimiser reads the shape
        return tf.sparse.segment_sum(upstream, *by_item, num_segments=segments), None, None, None

    return tf.sparse.segment_sum(kernel, items, rows, num_segments=batch), gradient


@keras.saving.register_keras_serializable("vae_cf_tf")
class TanhBlock(keras.layers.Layer):
    """tanh(xW + b + skipped): the hidden layer of Liang et al. 2018. Arguments as `Linear`.

    Call arguments:
      x: as `Linear`.
      skipped: float [batch, units], the sum of earlier blocks' outputs, for dense skips; else 0.
    """

    def __init__(self, input_dim: int, units: int, initializer: str = "he", **shape: Any):
        super().__init__(**_layer_arguments(shape))
        self.linear = Linear(input_dim, units, initializer, **shape, name="linear")
        self.built = True

    def call(self, x: Any, skipped: tf.Tensor | float = 0.0) -> tf.Tensor:
        return tf.tanh(self.linear(x) + skipped)


@keras.saving.register_keras_serializable("vae_cf_tf")
class GatedBlock(keras.layers.Layer):
    """(xW + b + skipped)·σ(xV + c), with no other activation: the gated linear unit of Kim & Suh 2019.

    Differs from `TanhBlock` in that its output is unbounded and a second product decides how much passes. Arguments as
    `TanhBlock`.
    """

    def __init__(self, input_dim: int, units: int, initializer: str = "he", **shape: Any):
        super().__init__(**_layer_arguments(shape))
        self.linear = Linear(input_dim, units, initializer, **shape, name="linear")
        self.gate = Linear(input_dim, units, initializer, **shape, name="gate")
        self.built = True

    def call(self, x: Any, skipped: tf.Tensor | float = 0.0) -> tf.Tensor:
        return (self.linear(x) + skipped) * tf.sigmoid(self.gate(x))


def _layer_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Takes Keras' own arguments out of `arguments` and returns them."""
    return {name: arguments.pop(name) for name in ("name", "dtype", "trainable") if name in arguments}


BLOCKS: dict[str, type[keras.layers.Layer]] = {"tanh": TanhBlock, "gated": GatedBlock}


@keras.saving.register_keras_serializable("vae_cf_tf")
class Stack(keras.layers.Layer):
    """Blocks in a row: input_dim → units[0] → units[1] → …; no units: the identity.

    Args:
      input_dim: width of x.
      units: width of each block.
      block: a name of `BLOCKS`.
      initializer: as `Linear`.
      first: `items` and `by_rows` of the first block, as `Linear`.
    """

    def __init__(self, input_dim: int, units: Sequence[int], block: str, initializer: str = "he", **first: Any):
        super().__init__(**_layer_arguments(first))
        widths = [input_dim, *units]
        self.blocks = [
            BLOCKS[block](*pair, initializer, **({} if i else first), name=f"block_{i}")
            for i, pair in enumerate(itertools.pairwise(widths))
        ]
        self.output_dim = widths[-1]
        self.built = True

    def call(self, x: Any) -> tf.Tensor:
        return self.after_first(self.first(x)) if self.blocks else x

    def first(self, x: Any) -> tf.Tensor:
        """What the first block makes of x."""
        return self.blocks[0](x)

    def after_first(self, h: tf.Tensor) -> tf.Tensor:
        """What the other blocks make of `first`."""
        for block in self.blocks[1:]:
            h = block(h)
        return h


@keras.saving.register_keras_serializable("vae_cf_tf")
class DenseStack(Stack):
    """Blocks in a row with dense skips and LayerNorm (RecVAE's encoder, Shenbin et al. 2020).

    Differs from `Stack` in that each block also receives the sum of all earlier blocks' outputs, and LayerNorm follows
    each block. A block of another width than the one before receives no sum, and the sum starts anew with its output.
    The ε of the norm, .1, is that of RecVAE's code.
    """

    def __init__(self, input_dim: int, units: Sequence[int], block: str, initializer: str = "he", **first: Any):
        super().__init__(input_dim, units, block, initializer, **first)
        self.norms = [keras.layers.LayerNormalization(epsilon=0.1, name=f"norm_{i}") for i in range(len(units))]
        for norm, width in zip(self.norms, units, strict=True):
            norm.build((None, width))

    def first(self, x: Any) -> tf.Tensor:
        return self.norms[0](self.blocks[0](x))

    def after_first(self, h: tf.Tensor) -> tf.Tensor:
        total = h
        for block, norm in zip(self.blocks[1:], self.norms[1:], strict=True):
            fits = total.shape[-1] == norm.gamma.shape[0]
            h = norm(block(h, skipped=total if fits else 0.0))
            total = total + h if fits else h
        return h


STACKS = {"none": Stack, "dense": DenseStack}


@keras.saving.register_keras_serializable("vae_cf_tf")
class GaussianHeads(keras.layers.Layer):
    """Mean and log-variance of a diagonal Gaussian, the latter clipped to [−12, 4] as in Kim & Suh's code.

    Returns:
      A pair of float [batch, latent_dim].
    """

    def __init__(self, input_dim: int, latent_dim: int, initializer: str = "he", **kwargs: Any):
        super().__init__(**kwargs)
        self.mean = Linear(input_dim, latent_dim, initializer, fan_out=2 * latent_dim, name="mean")
        self.log_variance = Linear(input_dim, latent_dim, initializer, fan_out=2 * latent_dim, name="log_variance")
        self.built = True

    def call(self, h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.mean(h), tf.clip_by_value(self.log_variance(h), -12.0, 4.0)
