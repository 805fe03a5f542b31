"""The kernels of a served model and its matrix products: a request takes no more memory than its answer needs."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from vae_cf_tf.models.base import Autoencoder
from vae_cf_tf.models.blocks import Linear, products_by
from vae_cf_tf.models.histories import Bags
from vae_cf_tf.models.hybrid import HybridModel

WEIGHTS = {"float32": tf.float32, "bfloat16": tf.bfloat16}
_CHUNK = 1024  # items whose rows are widened to float32 at once
_BLOCK, _BLOCKS = 256, 16  # columns that are widened at once, which fit a core's cache; and such blocks per iteration
_SOME = 4096  # columns that are gathered at once
_SHARE, _WIDE_SHARE, _ALWAYS = 256, 4, 8
"""The asked columns are computed alone if they are at most 1/_SHARE of all (1/_WIDE_SHARE if the kernel is held as Wᵀ),
or at most _ALWAYS. Measured for a row times 600 × 200,000 of float32: from W, whose columns are not contiguous, 2.3 ms
for 100 columns, 6 for 300, 19 for 1,000, 13 for all; from Wᵀ .3 ms for 100, .5 for 1,000, 14 for 50,000, 17 for all."""


class ServedKernel(tf.Module):
    """x W, with the kernel in its serving layout.

    Differs from `Linear.product` in that the rows of a history's items are summed without a gathered copy. Only a
    gradient needs that copy, which would be 5 GB for a request of a hundred histories of 20,000 items. The kernel is
    never read through the variable's own gather: after such a gather TensorFlow copies the variable at each further
    read.

    Kernels of bfloat16 are rounded once, at the export. The arithmetic stays float32, and no request widens a whole
    kernel.

    Args:
      linear: the trained layer.
      dtype: of the kernel in the SavedModel.

    Call arguments:
      x: as in `Linear`.
      units: int32 [n], the columns of x W that are computed; None: all. Only for dense x.
    """

    def __init__(self, linear: Linear, dtype: tf.DType):
        super().__init__()
        # Held as Wᵀ, whose blocks are no copies. A layer that reads items gathers rows of W instead.
        self.wide = dtype == tf.bfloat16 and linear.units > _BLOCK * _BLOCKS and not linear.items
        if dtype == tf.float32 and not linear.transposed:
            self.kernel = linear.kernel.value
        else:
            kernel = tf.cast(linear.kernel, dtype)
            kernel = tf.transpose(kernel) if linear.transposed else kernel
            self.kernel = tf.Variable(tf.transpose(kernel) if self.wide else kernel, name="kernel")

    def few(self) -> int:
        """Units up to which it is faster to compute them alone than the whole product."""
        units = self.kernel.shape[0 if self.wide else 1]
        return max(_ALWAYS, units // (_WIDE_SHARE if self.wide else _SHARE))

    def __call__(self, x: Any, units: tf.Tensor | None = None) -> tf.Tensor:
        kernel = self.kernel.read_value()
        if isinstance(x, Bags):
            return _summed(kernel, x)
        if isinstance(x, tuple) and isinstance(x[0], Bags):
            bags, rest = x
            return _summed(kernel, bags) + tf.matmul(rest, tf.cast(kernel[-rest.shape[-1] :], tf.float32))
        x = tf.concat(x, axis=-1) if isinstance(x, tuple) else x
        if units is not None:
            return _some_columns(x, kernel, self.wide, units)
        return _by_blocks(x, kernel) if self.wide else tf.matmul(x, tf.cast(kernel, tf.float32))

    def columns(self, units: tf.Tensor) -> tf.Tensor:
        """The columns `units`, int32 [n], of W: float32 [n, input_dim]."""
        kernel = self.kernel.read_value()
        columns = tf.gather(kernel, units) if self.wide else tf.transpose(tf.gather(kernel, units, axis=1))
        return tf.cast(columns, tf.float32)


class ServedKernels:
    """The kernels of a model as a server holds them; the model itself stays as it is.

    Args:
      model: trained.
      weights: a name of `WEIGHTS`, the type of the kernels.
    """

    def __init__(self, model: Autoencoder | HybridModel, weights: str):
        self._network = model.network if isinstance(model, HybridModel) else model
        self._dtype = WEIGHTS[weights]
        self._of_layer: dict[int, ServedKernel] = {}
        self._few_units = 0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model is traced with these products, over the items of a history and never over dense rows: a
        short history must not cost a row of the catalogue's length."""
        before, self._network.sparse_input = self._network.sparse_input, True
        try:
            with products_by(self._product):
                yield
        finally:
            self._network.sparse_input = before

    def _product(self, layer: Linear, x: Any, units: tf.Tensor | None = None) -> tf.Tensor:
        kernel = self.of(layer)
        if units is not None:
            self._few_units = kernel.few()
        return kernel(x, units)

    def few_items(self) -> int:
        """Up to so many items it is faster to score them alone than the catalogue. Call it after `scores` is traced."""
        return self._few_units // self._network.likelihood_class.outputs

    def of(self, layer: Linear) -> ServedKernel:
        """A layer's kernel."""
        if id(layer) not in self._of_layer:
            with tf.init_scope():  # its variable belongs to no graph
                self._of_layer[id(layer)] = ServedKernel(layer, self._dtype)
        return self._of_layer[id(layer)]


def _summed(kernel: tf.Tensor, bags: Bags) -> tf.Tensor:
    """Sum of the kernel's rows of each bag, float32 [batch, units]."""
    items, rows, batch = bags.items, bags.rows, tf.size(bags.scale)
    if kernel.dtype == tf.float32:
        sums = tf.sparse.segment_sum(kernel, items, rows, num_segments=batch)
    else:
        sums = _summed_by_chunks(kernel, items, rows, batch)
    return sums * bags.scale[:, None]


def _summed_by_chunks(kernel: tf.Tensor, items: tf.Tensor, rows: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    """As tf.sparse.segment_sum, whose sums of bfloat16 rows would be rounded to bfloat16."""

    def add(start: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        part, owner = items[start : start + _CHUNK], rows[start : start + _CHUNK]
        part = tf.math.segment_sum(tf.cast(tf.gather(kernel, part), tf.float32), owner - owner[0])
        return start + _CHUNK, sums + tf.pad(part, [[owner[0], batch - 1 - owner[-1]], [0, 0]])

    first = (tf.constant(0), tf.zeros([batch, kernel.shape[1]]))
    return tf.while_loop(lambda start, _: start < tf.size(items), add, first, parallel_iterations=1)[1]


def _some_columns(x: tf.Tensor, kernel: tf.Tensor, transposed: bool, units: tf.Tensor) -> tf.Tensor:
    """The columns `units`, int32 [n], of x W, float32 [batch, n], at most _SOME at once; `transposed`: kernel is Wᵀ."""

    def columns(some: tf.Tensor) -> tf.Tensor:
        part = tf.cast(tf.gather(kernel, some, axis=0 if transposed else 1), tf.float32)
        return tf.matmul(x, part, transpose_b=transposed)

    count = tf.size(units)
    size = tf.clip_by_value(count, 1, _SOME)
    turns = tf.maximum(1, (count + size - 1) // size)  # also for no units: an empty list of unknown shapes fails
    padded = tf.reshape(tf.pad(units, [[0, turns * size - count]]), [turns, size])
    shape = tf.TensorSpec([None, None], tf.float32)
    products = tf.map_fn(columns, padded, fn_output_signature=shape, parallel_iterations=1)  # [turns, batch, size]
    return tf.reshape(tf.transpose(products, [1, 0, 2]), [tf.shape(x)[0], turns * size])[:, :count]


def _by_blocks(x: tf.Tensor, transposed: tf.Tensor) -> tf.Tensor:
    """x W, float32 [batch, columns], from Wᵀ in bfloat16: a block of columns after the other."""

    def blocks(start: Any, count: int, last: int = _BLOCK) -> tf.Tensor:
        starts = [start + i * _BLOCK for i in range(count)]
        parts = [transposed[s : s + (last if i == count - 1 else _BLOCK)] for i, s in enumerate(starts)]
        return tf.concat([tf.matmul(x, tf.cast(part, tf.float32), transpose_b=True) for part in parts], axis=1)

    columns, turn = transposed.shape[0], _BLOCK * _BLOCKS
    turns, rest = divmod(columns, turn)
    products = tf.TensorArray(tf.float32, turns, element_shape=[None, turn])
    _, products = tf.while_loop(
        lambda i, _: i < turns,
        lambda i, array: (i + 1, array.write(i, blocks(i * turn, _BLOCKS))),
        (tf.constant(0), products),
        parallel_iterations=1,
    )
    first = tf.reshape(tf.transpose(products.stack(), [1, 0, 2]), [tf.shape(x)[0], turns * turn])
    if not rest:
        return first
    count = -(-rest // _BLOCK)
    return tf.concat([first, blocks(turns * turn, count, rest - (count - 1) * _BLOCK)], axis=1)
