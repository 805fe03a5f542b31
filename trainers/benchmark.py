"""Measures training against what the machine could do: `python -m trainers.benchmark --preset=ml-20m [--flagfile=…]`.

In one process, on generated interactions of a data set's shape, it measures the machine (rate of matrix products at the
model's own shapes, memory bandwidth), counts the least work of a step from the model's shapes, and times warm steps of
real training, input pipeline and optimiser included. Prints JSON; `--compare` adds settings to run side by side.

The floor takes every product at the rate that was measured at its own shape, below the best for small ones;
`utilisation_at_best_rate` takes all of them at the best rate.
"""

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from trainers.main import config_from_flags, define_flags
from vae_cf_tf.cli import commands, quiet
from vae_cf_tf.settings.config import Config, groups, parsed

PRESETS = {  # training users, items, interactions
    "ml-1m": (4_834, 3_497, 462_827),
    "ml-20m": (116_677, 20_108, 8_500_000),
    "netflix": (383_435, 17_769, 47_000_000),
    "wide": (200_000, 1_000_000, 20_000_000),
}


def main(argv: list[str]) -> None:
    config = config_from_flags()
    variants = [_overridden(config, text) for text in ["", *flags.FLAGS.compare]]
    quiet.import_tensorflow()
    results = benchmark(variants, flags.FLAGS.preset, flags.FLAGS.steps, flags.FLAGS.items)
    print(json.dumps(results, indent=1))


def define_benchmark_flags() -> None:
    flags.DEFINE_enum("preset", "ml-1m", list(PRESETS), "Data set whose shape the interactions have.")
    flags.DEFINE_integer("items", 0, "Items in place of the preset's; 0: the preset's.", lower_bound=0)
    flags.DEFINE_multi_string("compare", [], "Settings of a further run, such as prior=hidden_vamp,batch_size=500.")
    flags.DEFINE_integer("steps", 20, "Steps that are timed.", lower_bound=3)


def _overridden(config: Config, text: str) -> tuple[str, Config]:
    """The configuration with `name=value,…` in place of its own values."""
    values = vars(config).copy()
    for pair in filter(None, text.split(",")):
        name, _, value = pair.partition("=")
        values[name] = parsed(name, value)
    return text or "as given", Config(**values)


def benchmark(variants: list[tuple[str, Config]], preset: str, steps: int, own_items: int = 0) -> list[dict[str, Any]]:
    """Times `steps` training steps of each variant on the preset's shape, one after the other.

    Args:
      variants: names and settings.
      preset: of PRESETS.
      steps: timed steps.
      own_items: items in place of the preset's; 0: the preset's.
    """
    from vae_cf_tf.data.synthetic import synthetic_matrix

    users, items, interactions = PRESETS[preset]
    items = own_items or items
    train = synthetic_matrix(users, items, interactions, seed=0)
    return [
        {"preset": preset, "items": items, "settings": name} | _measured(config, train, steps)
        for name, config in variants
    ]


def _measured(config: Config, train: Any, steps: int) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    from trainers import floor
    from vae_cf_tf import machine
    from vae_cf_tf.models import batches
    from vae_cf_tf.models.models import PRODUCT_DTYPES, build

    keras.utils.clear_session()  # what a variant before this one held
    gc.collect()
    machine.reset_peak_rss()
    model = build(config, train.shape[1], train).compile_for(batches.steps_per_pass(train, config.batch_size))
    stream = iter(batches.shuffled(train, config.batch_size, config.seed))
    model.make_train_function()
    step_ms = _median_ms(lambda: float(model.train_function(stream)["loss"]), steps)
    peak = machine.peak_rss(since_reset=True)
    batch, seed = next(stream), tf.constant([0, 1])
    bandwidth, rates = machine.bandwidth(), floor.product_rates(model, (config.batch_size, config.pseudo_inputs))
    parts = floor.parts(model, config, train.nnz / train.shape[0])
    dtype = PRODUCT_DTYPES[config.dtype_policy]
    floors = {p.name: 1e3 * max(p.products_seconds(dtype), p.bytes / bandwidth) for p in parts}
    at_best_rate = 1e3 * sum(max(p.operations / rates[dtype.name], p.bytes / bandwidth) for p in parts)
    return {
        "users_per_second": round(1e3 * config.batch_size / step_ms),
        "ms_per_step": round(step_ms, 1),
        "floor_ms": round(sum(floors.values()), 1),
        "utilisation": round(sum(floors.values()) / step_ms, 3),
        "utilisation_at_best_rate": round(at_best_rate / step_ms, 3),
        "products_alone_ms": round(1e3 * sum(p.products_seconds(dtype) for p in parts), 1),
        "floors_ms": {name: round(value, 1) for name, value in floors.items()},
        "parts_ms": {name: round(ms, 1) for name, ms in _parts(model, batch, stream, seed, step_ms, steps).items()},
        "gflop_per_step": round(sum(p.operations for p in parts) / 1e9, 1),
        "gflop_per_second": {name: round(value / 1e9) for name, value in rates.items()},
        "bandwidth_gb_per_second": round(bandwidth / 1e9, 1),
        "first_layer": "sparse" if model.sparse_input else "dense",
        "first_layer_ms": {name: round(ms, 1) for name, ms in _first_layer(model, batch, seed, steps).items()},
        "peak_rss_mb": round(peak),
        "parameters_mb": round(sum(4 * np.prod(v.shape) for v in model.trainable_variables) / 2**20),
        "interactions_mb": round((train.data.nbytes + train.indices.nbytes + train.indptr.nbytes) / 2**20),
    }


def _parts(model: Any, batch: Any, stream: Any, seed: Any, step_ms: float, steps: int) -> dict[str, float]:
    """Milliseconds of a step's parts, each timed alone; what is left of the step is the optimiser's."""
    import tensorflow as tf

    from vae_cf_tf.models.blocks import products_in
    from vae_cf_tf.models.models import PRODUCT_DTYPES

    rate, dtype = model.config.input_dropout, PRODUCT_DTYPES[model.config.dtype_policy]
    variables = [v.value for v in model.trainable_variables]

    @tf.function
    def forward():
        with products_in(dtype):
            return tf.add_n([tf.reduce_sum(t) for t in model.terms(batch, seed, rate)])

    @tf.function
    def backward():
        with tf.GradientTape() as tape:
            loss = forward()
        gradients = [g for g in tape.gradient(loss, variables) if g is not None]
        values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
        return tf.add_n([tf.reshape(g, [-1])[0] for g in values])

    @tf.function
    def prior():
        with products_in(dtype):
            return model.prior.distribution(rate, seed).log_prob(tf.zeros([1, model.config.latent_dim]))[0]

    pipeline = _median_ms(lambda: next(stream), steps)
    ahead = _median_ms(lambda: float(forward()), steps)
    both = _median_ms(lambda: float(backward()), steps)
    parts = {"input pipeline, if it ran alone": pipeline, "forward": ahead, "backward": both - ahead}
    if hasattr(model, "prior"):
        parts["prior, within forward"] = _median_ms(lambda: float(prior()), steps)
    return parts | {"optimiser and metrics": step_ms - both}


def _first_layer(model: Any, batch: Any, seed: Any, steps: int) -> dict[str, float]:
    """Milliseconds of one product with the users' rows, forward and gradient, in either form where it fits."""
    import tensorflow as tf

    from vae_cf_tf.evaluation import ranking
    from vae_cf_tf.models import histories
    from vae_cf_tf.models.blocks import Linear, products_in
    from vae_cf_tf.models.models import PRODUCT_DTYPES

    layer = next(v for v in model.encoder._flatten_layers() if isinstance(v, Linear) and v.input_dim == model.num_items)

    def both(form: Callable[[Any], Any]) -> Callable[[], Any]:
        @tf.function
        def call():
            bags = histories.unit_norm(batch, model.config.input_dropout, seed)
            with products_in(PRODUCT_DTYPES[model.config.dtype_policy]), tf.GradientTape() as tape:
                total = tf.reduce_sum(layer.product(form(bags)))
            gradient = tape.gradient(total, layer.kernel.value)
            gradient = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
            return tf.reshape(gradient, [-1])[0]

        return lambda: float(call())

    found = {"sparse": _median_ms(both(lambda bags: bags), steps)}
    if model.config.batch_size * model.num_items <= ranking.SCORES:
        found["dense"] = _median_ms(both(lambda bags: histories.dense_rows(bags, model.num_items)), steps)
    return found


def _median_ms(call: Callable[[], Any], repeats: int) -> float:
    from vae_cf_tf import machine

    return 1e3 * float(np.median(machine.times(call, repeats)))


if __name__ == "__main__":
    define_flags()
    define_benchmark_flags()
    sys.exit(commands.run(main, groups=groups()))
