"""The users of a training step that one of several replicas computes.

Training on several devices (`vae_cf_tf.training.distributed`) gives every replica the global batch, of which it cuts
its own users. What a step draws at random is drawn for the global batch, from the step's seed, and cut in the same way.
So any number of replicas computes the same step, up to the rounding of sums. Code of a model asks `current` for the
users at hand. On one device these are the whole batch.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.distributions import standard_noise

tfd = tfp.distributions


def local(variable: tf.Variable) -> tf.Variable:
    """The copy of a variable that the replica at hand holds; on one device the variable itself.

    To gather rows: `tf.gather` of a variable with copies reads it whole.
    """
    context, copies = tf.distribute.get_replica_context(), getattr(variable, "values", None)
    if copies is None or context is None:
        return variable
    return copies[int(tf.get_static_value(context.replica_id_in_sync_group)) % len(copies)]


Draw = Callable[[tf.Tensor], tf.Tensor]
"""From a number of rows, int32 [], to that many rows of random numbers."""


class Whole:
    """All users of the batch are here. `Share` differs in that it has some of them."""

    def of_items(self, draw: Draw, items: tf.Tensor) -> tf.Tensor:
        """Rows of random numbers by `draw`, one for each of the `items` (int32 []) items of the users at hand."""
        return draw(items)

    def sample(self, posterior: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
        """A sample for each user at hand, float [users, latent]."""
        return posterior.sample(seed=seed)

    def all_items(self, items: tf.Tensor) -> tf.Tensor:
        """The items of all users of the batch, given those of the users at hand; int32 [items of the batch]."""
        return items

    def own_items(self, values: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """The values of the `items` (int32 []) items at hand. `values` begins with those of `all_items`, in order."""
        return values[:items]

    def all_users(self, values: tf.Tensor) -> tf.Tensor:
        """Rows of all users of the batch, given those of the users at hand. Passes on gradients."""
        return values

    def places(self, users: tf.Tensor) -> tf.Tensor:
        """The place of each user at hand among all users of the batch, int32 [users]."""
        return tf.range(users)

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """The part of the users at hand in the mean over the batch, float [], of values float [users]."""
        return tf.reduce_mean(values)

    def once(self, value: tf.Tensor) -> tf.Tensor:
        """The part of the users at hand in a term of the loss that does not depend on users."""
        return value

    def by_rows(self, function: Callable[..., Any], *inputs: tf.Tensor) -> Any:
        """`function(*inputs)`, for inputs that all replicas have. The results have a row for each row of the inputs.
        Each replica computes a part of the rows, and every replica gets all of them."""
        return function(*inputs)


class Share(Whole):
    """The users of one replica: replica r of R has those from r·B // R up to (r + 1)·B // R of the batch's B.

    Differs from `Whole` in these two: numbers drawn at random are cut out of those of the global batch, and what needs
    all users is exchanged between the replicas. To be made in a replica's context.

    Args:
      histories: int32 [B, (items)], the global batch.
    """

    def __init__(self, histories: tf.RaggedTensor):
        self._context = tf.distribute.get_replica_context()
        self._histories = histories
        self._users = tf.cast(histories.nrows(), tf.int32)
        self._first, self._end = self._part(self._users)
        self._splits = tf.cast(histories.row_splits, tf.int32)[self._first : self._end + 1]
        self._items = slice(self._splits[0], self._splits[-1])

    def _part(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The first of this replica's rows, and the first of the next replica's."""
        replica = tf.cast(self._context.replica_id_in_sync_group, tf.int32)
        replicas = self._context.num_replicas_in_sync
        return replica * rows // replicas, (replica + 1) * rows // replicas

    def cut(self, weights: tf.Tensor | None = None) -> tuple[tf.RaggedTensor, tf.Tensor | None]:
        """Histories and weights, float [items], of this replica's users."""
        own = tf.RaggedTensor.from_row_splits(
            self._histories.values[self._items], self._splits - self._splits[0], validate=False
        )
        return own, None if weights is None else weights[self._items]

    def of_items(self, draw: Draw, items: tf.Tensor) -> tf.Tensor:
        return draw(tf.size(self._histories.values))[self._items]

    def sample(self, posterior: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
        """As `Whole.sample`, of a Gaussian with a diagonal covariance."""
        noise = standard_noise(self._users, posterior.event_shape[-1], seed)
        return posterior.mean() + posterior.stddev() * tf.transpose(noise[:, self._first : self._end])

    def all_items(self, items: tf.Tensor) -> tf.Tensor:
        return self._histories.values

    def own_items(self, values: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return values[self._items]

    def all_users(self, values: tf.Tensor) -> tf.Tensor:
        return self._joined(values, self._first, self._users)

    def places(self, users: tf.Tensor) -> tf.Tensor:
        return tf.range(self._first, self._end)

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(values) / tf.cast(self._users, values.dtype)

    def once(self, value: tf.Tensor) -> tf.Tensor:
        return value / self._context.num_replicas_in_sync

    def by_rows(self, function: Callable[..., Any], *inputs: tf.Tensor) -> Any:
        rows = tf.shape(inputs[0])[0]
        first, end = self._part(rows)
        computed = function(*(x[first:end] for x in inputs))
        return tf.nest.map_structure(lambda x: self._joined(x, first, rows), computed)

    def _joined(self, values: tf.Tensor, first: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """The rows of all replicas, of which this one's begin at `first`: a sum of tensors that are zero elsewhere.

        `all_gather` would send half as much, but it needs two exchanges where the replicas' numbers of rows differ.
        """
        around = [[first, rows - first - tf.shape(values)[0]]] + [[0, 0]] * (len(values.shape) - 1)
        padded = tf.pad(values, around)
        return self._context.all_reduce(tf.distribute.ReduceOp.SUM, padded)


class _Current(threading.local):
    """Of a thread, since `MirroredStrategy` traces replicas in threads that take turns."""

    batch: Whole = Whole()


_current = _Current()


def current() -> Whole:
    """The users that the code at hand computes: a replica's within `computing`, else all."""
    return _current.batch


@contextlib.contextmanager
def computing(share: Share) -> Iterator[None]:
    """Within, `current` is this share."""
    before, _current.batch = _current.batch, share
    try:
        yield
    finally:
        _current.batch = before


def shared_out(function: Callable[[tf.RaggedTensor], Any]) -> Callable[[tf.RaggedTensor], Any]:
    """A function that returns what `function` does, but each replica of the present strategy computes its share of the
    histories. `function` returns tensors with a row for each history. Without a strategy: the function itself."""
    if not tf.distribute.has_strategy():
        return function
    strategy = tf.distribute.get_strategy()

    def on_replica(histories: tf.RaggedTensor) -> Any:
        share = Share(histories)
        return tf.nest.map_structure(share.all_users, function(share.cut()[0]))

    def on_all(histories: tf.RaggedTensor) -> Any:
        results = strategy.run(tf.autograph.experimental.do_not_convert(on_replica), args=(histories,))
        return tf.nest.map_structure(lambda x: strategy.experimental_local_results(x)[0], results)

    return on_all
