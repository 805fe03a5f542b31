"""From measured times to the figures that the benchmark prints."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainers.benchmark.phases import Phase
from trainers.benchmark.work import PRODUCTS, SMALLEST, MatrixProduct, Work

HIGHEST_UTILISATION = 1.03
"""A step that is faster than its floor shows that one of the two is measured wrong. Three percent may be noise."""
SPREAD = 1.15
"""Above this ratio of the median step to the best one, other work on the machine disturbed the measurement."""


@dataclasses.dataclass
class Times:
    """What was measured, and the figures that follow from it.

    Attributes:
      phases: those of an epoch.
      works: what a step of each phase has to do.
      users: training users.
      users_per_step: training users in a step.
      seconds: of each timed call. The keys are (phase.learns, "step"); (phase.learns, name) for a name of `parts_of`,
        such as "forward"; each `MatrixProduct`; "refresh"; "input pipeline"; each of `FORMS` that was timed.
      bandwidth: of memory, bytes a second.
    """

    phases: Sequence[Phase]
    works: Sequence[Work]
    users: int
    users_per_step: int
    seconds: Mapping[Any, list[float]]
    bandwidth: float = 0.0

    def utilisation(self) -> float:
        """The floor over the best step, means over an epoch."""
        return sum(self._floors().values()) / self._mean(self._by_phase("step"))

    def figures(self) -> dict[str, Any]:
        """What the benchmark prints. Times are means over the steps of an epoch; `remarks` says which are worthless."""
        best, median = self._by_phase("step"), self._by_phase("step", np.median)
        floors, products = self._floors(), self._means([work.products for work in self.works])
        rates = self._rates()
        at_best_rate = sum(n * product.operations / rates[product.dtype.name] for product, n in products.items())
        at_best_rate += sum(seconds for name, seconds in floors.items() if name != PRODUCTS)
        utilisation = self.utilisation()
        is_plausible = utilisation <= HIGHEST_UTILISATION
        steps_per_pass, passes = self.users / self.users_per_step, sum(phase.passes for phase in self.phases)
        refresh = min(self.seconds["refresh"])
        epoch = passes * steps_per_pass * self._mean(median) + refresh
        return {
            "remarks": self._remarks(),
            "users_per_second": round(self.users * passes / epoch),
            "users_per_step": self.users_per_step,
            "ms_per_step": ms(self._mean(median)),
            "ms_per_step_best": ms(self._mean(best)),
            "floor_ms": ms(sum(floors.values())),
            "utilisation": round(utilisation, 3) if is_plausible else None,
            "utilisation_at_best_rate": round(at_best_rate / self._mean(best), 3) if is_plausible else None,
            "phases": {
                phase.learns: {
                    "passes_per_epoch": phase.passes,
                    "ms_per_pass": ms(median[i] * steps_per_pass),
                    "ms_per_step": ms(median[i]),
                    "ms_per_step_best": ms(best[i]),
                    "floor_ms": ms(sum(self._floors_of(self.works[i]).values())),
                }
                for i, phase in enumerate(self.phases)
            },
            "refresh_ms_per_epoch": ms(refresh),
            "floors_ms": {name: ms(seconds) for name, seconds in floors.items()},
            "parts_ms": {name: None if seconds is None else ms(seconds) for name, seconds in self._parts().items()},
            "gflop_per_step": round(self._mean([work.operations for work in self.works]) / 1e9, 1),
            "gflop_per_second": {name: round(rate / 1e9) for name, rate in rates.items()},
            "bandwidth_gb_per_second": round(self.bandwidth / 1e9, 1),
            "products": [f"{n:g} × {p}: {1e3 * self._product(p):.3g} ms each" for p, n in products.items()],
        }

    def _remarks(self) -> list[str]:
        remarks, utilisation = [], self.utilisation()
        pairs = zip(self._by_phase("step", np.median), self._by_phase("step"), strict=True)
        spread = max(median / best for median, best in pairs)
        if spread > SPREAD:
            remarks.append(
                f"All times are worthless: the median step took {spread:.2f} times as long as the best one, because "
                "other work disturbed the measurement. Measure again on a quiet machine."
            )
        if utilisation > HIGHEST_UTILISATION:
            remarks.append(
                f"The floor is worthless: it is {utilisation:.2f} times the best step, because products took longer "
                "alone than within the step. Measure again on a quiet machine, or with more --steps."
            )
        noise = [name for name, seconds in self._parts().items() if seconds is None]
        return remarks + [
            f"The time of {name} is noise: it is a difference, which came out negative." for name in noise
        ]

    def _parts(self) -> dict[str, float | None]:
        """Seconds of each part of a step, run by itself; None for a difference that noise made negative."""
        forward, both = (self._mean(self._by_phase(name)) for name in ("forward", "forward and backward"))
        parts = {
            "input pipeline, if it ran alone": float(np.median(self.seconds["input pipeline"])),
            "forward": forward,
            "backward": both - forward if both > forward else None,
            "optimiser": self._mean(self._by_phase("optimiser")),
        }
        if (self.phases[0].learns, "prior") in self.seconds:
            parts["prior, within forward"] = self._mean(self._by_phase("prior"))
        return parts

    def _by_phase(self, name: str, choose: Callable[[list[float]], Any] = min) -> list[float]:
        """What `choose` makes of the seconds of a step, or of a part of it, in each phase."""
        return [float(choose(self.seconds[phase.learns, name])) for phase in self.phases]

    def _mean(self, by_phase: Sequence[float]) -> float:
        """The mean over the steps of an epoch."""
        return float(np.average(by_phase, weights=[phase.passes for phase in self.phases]))

    def _means(self, by_phase: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
        """Means over the steps of an epoch, by name; a name that a phase lacks counts as 0 there."""
        names = dict.fromkeys(name for values in by_phase for name in values)
        return {name: self._mean([values.get(name, 0.0) for values in by_phase]) for name in names}

    def _product(self, product: MatrixProduct) -> float:
        """Seconds of a product, without the cost of the call."""
        return max(min(self.seconds[product]) - min(self.seconds[SMALLEST]), 0.0)

    def _floors_of(self, work: Work) -> dict[str, float]:
        """Seconds of the least work by what it is for; their sum is the floor of a step."""
        products = sum(n * self._product(product) for product, n in work.products.items())
        return {PRODUCTS: products} | {name: size / self.bandwidth for name, size in work.bytes.items()}

    def _floors(self) -> dict[str, float]:
        """The same as means over the steps of an epoch."""
        return self._means([self._floors_of(work) for work in self.works])

    def _rates(self) -> dict[str, float]:
        """The best rate of any product, operations a second, by number format."""
        rates: dict[str, float] = {}
        for product in {product for work in self.works for product in work.products}:
            rate = product.operations / min(self.seconds[product])
            rates[product.dtype.name] = max(rate, rates.get(product.dtype.name, 0.0))
        return rates


def ms(seconds: float) -> float:
    """Milliseconds, as they are printed."""
    return round(1e3 * seconds, 2)
