"""Measures the steps of training, their parts and their floor, in turns and in one process."""

import functools
import gc
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from trainers.benchmark.figures import HIGHEST_UTILISATION, Times, ms
from trainers.benchmark.phases import FORMS, Call, Phase, first_layer, parts_of, phases_of
from trainers.benchmark.progress import Progress
from trainers.benchmark.work import SMALLEST, MatrixProduct, work_of
from vae_cf_tf import machine
from vae_cf_tf.models import batches
from vae_cf_tf.models.build import build
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings
from vae_cf_tf.training.callbacks import interruptible
from vae_cf_tf.training.compiling import compile_for

ROUNDS = 10
"""Rounds of measurements; up to three times as many where the utilisation comes out too high. A round is short, so that
steps and products meet the same disturbances."""


def measured(
    variants: Sequence[tuple[str, Settings]], train: sp.csr_matrix, steps: int, progress: Progress
) -> list[dict[str, Any]]:
    """The figures of each variant, one variant after the other. Ctrl-C ends it between two measurements.

    Args:
      variants: names and settings.
      train: training users, [users, items].
      steps: timed steps of each.
      progress: is told what is being measured.
    """
    results = []
    with interruptible(lambda: "") as interrupt:

        def tick(share: float) -> None:
            interrupt.on_train_batch_end(0)
            progress.advance(share)

        for name, settings in variants:
            head = f"{name}: " if len(variants) > 1 else ""

            def say(stage: str, head: str = head) -> None:
                progress.begin(head + stage)

            figures = Measurement(settings, train, say, tick)
            results.append({"settings": name} | figures.run(steps))
    return results


class Measurement:
    """Trains a model for some steps, and times them in turns with their parts and with single matrix products.

    Args:
      settings: of the model and of the training.
      train: training users, [users, items].
      say: receives the name of each stage as it begins.
      tick: called between measurements with the share of the stage that is done; what it raises ends the measurement.
    """

    def __init__(self, settings: Settings, train: sp.csr_matrix, say: Say, tick: Callable[[float], None]):
        self.options, self.train, self.say, self.tick = settings.training, train, say, tick
        self.users_per_step = min(self.options.batch_size, train.shape[0])
        self.seconds: defaultdict[Any, list[float]] = defaultdict(list)

        say("building the model and tracing its step")
        keras.utils.clear_session()  # what a model before this one held
        gc.collect()
        machine.reset_peak_rss()
        model = build(settings.model, train.shape[1], train, self.options.seed)
        self.model = compile_for(model, self.options, train)
        self.model.make_train_function()
        refresh = tf.function(self.model.refresh, autograph=False)
        refresh()
        self.stream, phases = self._full_batches(), phases_of(self.model)
        for phase in phases:
            for _ in range(3):
                self._step(phase)()
                tick(0.0)
        self.peak_rss = machine.peak_rss()  # of training; what follows takes more

        say("counting the work of a step and tracing its parts")
        batch, works = next(self.stream), []
        for phase in phases:
            tick(0.0)
            self.model.optimizer.iterations.assign(phase.step)
            works.append(work_of(lambda: self.model.train_step(batch)))
        self.calls: dict[Any, Callable[[], Any]] = {
            (p.learns, name): call for p in phases for name, call in parts_of(self.model, p, batch).items()
        }
        self.calls |= first_layer(self.model, batch) | {"refresh": refresh}
        self.calls["input pipeline"] = functools.partial(next, self._full_batches())
        self.times = Times(phases, works, train.shape[0], self.users_per_step, self.seconds)

    def run(self, steps: int) -> dict[str, Any]:
        """Times at least `steps` steps of each phase, their parts and their products; returns the figures."""
        rounds = min(ROUNDS, steps)
        for i in range(3 * rounds):
            if i >= rounds and self.times.utilisation() <= HIGHEST_UTILISATION:
                break
            planned, reason = rounds, ""
            if i >= rounds:
                planned, reason = 3 * rounds, f" at most, because the utilisation is {self.times.utilisation():.2f}"
            self.say(f"measuring, round {i + 1} of {planned}{reason}")
            self._round(-(-steps // rounds))
        variables, train = self.model.trainable_variables, self.train
        return self.times.figures() | {
            "first_layer": "sparse" if self.model.sparse_input else "dense",
            "first_layer_ms": {form: ms(min(self.seconds[form])) for form in FORMS if form in self.seconds},
            "peak_rss_mb": round(self.peak_rss),
            "parameters_mb": round(sum(4 * np.prod(v.shape) for v in variables) / 2**20),
            "interactions_mb": round((train.data.nbytes + train.indices.nbytes + train.indptr.nbytes) / 2**20),
        }

    def _round(self, steps: int) -> None:
        products = dict.fromkeys([SMALLEST, *(p for work in self.times.works for p in work.products)])
        jobs: list[Callable[[], None]] = []
        for phase in self.times.phases:
            jobs += [functools.partial(self._time_step, phase, is_warm=i > 0) for i in range(1 + steps)]
        jobs += [functools.partial(self._time, name, call) for name, call in self.calls.items()]
        jobs += [functools.partial(self._time_product, product) for product in products]
        for i, job in enumerate(jobs):
            self.tick(i / len(jobs))
            job()
        self.times.bandwidth = max(self.times.bandwidth, machine.bandwidth(repeats=5))

    def _time_step(self, phase: Phase, is_warm: bool) -> None:
        """Times a training step of this phase, input pipeline included."""
        (seconds,) = machine.times(self._step(phase), 1, warm=0)
        if is_warm:
            self.seconds[phase.learns, "step"].append(seconds)

    def _time_product(self, product: MatrixProduct) -> None:
        self._time(product, product.call())

    def _time(self, name: Any, call: Call) -> None:
        """Times one to twenty calls, about 20 ms of them, after one that does not count."""

        def waited() -> None:
            call()
            tf.test.experimental.sync_devices()

        repeats = int(np.clip(0.02 / machine.times(waited, 1, warm=0)[0], 1, 20))
        self.seconds[name] += machine.times(waited, repeats, warm=0).tolist()

    def _full_batches(self) -> Iterator[tf.RaggedTensor]:
        """Batches as training has them, without the smaller one at the end of a pass."""
        stream = batches.shuffled(self.train, self.options.batch_size, self.options.seed)
        return iter(stream.filter(lambda batch: tf.cast(batch.nrows(), tf.int32) == self.users_per_step))

    def _step(self, phase: Phase) -> Call:
        """The next training step, as one of this phase."""
        self.model.optimizer.iterations.assign(phase.step)
        return lambda: float(self.model.train_function(self.stream)["loss"])
