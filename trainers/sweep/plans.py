"""Which runs a sweep is made of: settings that vary, each with its values, times seeds."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae_cf_tf.errors import UserError
from vae_cf_tf.settings import Settings, flagfiles
from vae_cf_tf.settings.fields import facts_of
from vae_cf_tf.settings.settings import field_of, names, parsed, parsed_pairs, written

MAIN, ELBO = facts_of(field_of("best_by")).values()
Choice = dict[str, Any]
"""Some settings by their flat names."""
Axis = list[Choice]
"""The choices of one thing that varies; a choice may be several settings."""

# A sweep compares on one split, and gives each run its folder and its seed.
OF_THE_DATA = names("data", "split")
_FIXED = [*OF_THE_DATA, "ease_l2", "ease_max_items", "workdir", "export_dir", "seed"]


def _as_in(flagfile: str, *names: str) -> Choice:
    """Some settings as a shipped flagfile has them."""
    path = next(path for path in flagfiles.shipped() if path.stem == flagfile)
    settings = Settings.of(**flagfiles.settings_in(path))
    return {name: settings[name] for name in names}


EVCF: list[Axis] = [  # Kim & Suh 2019: prior, gating, depth; and the likelihoods of Liang et al. 2018
    [_as_in(model, "likelihood") for model in ("multvae", "multvae_logistic")],
    [_as_in(model, "latent", "prior") for model in ("multvae", "vamp_flat", "hvamp")],
    [_as_in(model, "block") for model in ("multvae", "multvae_gated")],
    [{"layers": layers} for layers in (1, 2, 3)],
]
GROWTH: list[Axis] = EVCF[1:3]  # prior and gating, which improve the metrics in Kim & Suh 2019
PLANS: dict[str, list[Axis]] = {"evcf": EVCF, "grid": [], "growth": GROWTH}
FLAGFILES = {"evcf": "evcf.flags", "growth": "evcf.flags"}
"""The shipped flagfile whose settings a plan starts from, where no --flagfile is given."""
SETTINGS: dict[str, Choice] = {
    "growth": {
        "layers": 1,
        "initializer": "glorot",
        "pseudo_inputs": 300,
        "pseudo_init": "unit_users",
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "epochs": 100,
        "patience": 8,
        "beta_warmup": 200.0,
        "beta_unit": "step",
    },
}
"""Settings in which a plan differs from its flagfile."""
TUNED: dict[str, list[Axis]] = {
    # β = 1 is the ELBO itself: these runs are for the density, and their best epoch is chosen by it.
    "growth": [[
        {"beta_cap": 0.1, "best_by": MAIN}, {"beta_cap": 0.3, "best_by": MAIN}, {"beta_cap": 1.0, "best_by": ELBO},
    ]],
}  # fmt: skip
"""What a plan tunes for each of its configurations, on validation users with the first seed."""
CRITERIA = {"growth": (MAIN, ELBO)}
"""Metrics by which a plan tunes. Each metric makes a choice of its own. Plans not listed here use NDCG@100."""
REFERENCES = {
    **{"evcf": _as_in("multvae", "latent", "prior", "block", "layers"), "grid": {}},
    "growth": _as_in("multvae", "latent", "prior", "block"),
}
# A search of settings looks at validation users alone; test users are for the result.
PARTS = {"evcf": ("test", "validation"), "grid": ("validation",), "growth": ("test", "validation")}


class Configuration(NamedTuple):
    """A point of the plan."""

    name: str  # of its folder
    varied: Choice
    settings: Settings  # with the first seed
    tuned: frozenset[str] = frozenset()  # names of the settings in `varied` that are tuned

    @property
    def variant(self) -> str:
        """A name that is equal for configurations that differ only in tuned settings; tuning chooses one of these."""
        return described(self.untuned().varied)

    def untuned(self) -> "Configuration":
        """The same, known by what it is compared for: `varied` without the tuned settings."""
        return self._replace(varied={n: v for n, v in self.varied.items() if n not in self.tuned}, tuned=frozenset())

    def with_seed(self, sweep_dir: Path, seed: int) -> Settings:
        """The settings of its run with this seed."""
        workdir = sweep_dir / "runs" / self.name / f"seed={seed}"
        return self.settings.replaced(seed=seed, workdir=str(workdir), export_dir="")


def expand(
    plan: str,
    base: Settings,
    given: Iterable[str],
    vary: Sequence[str],
    where: Sequence[str],
    tune: Sequence[str] = (),
) -> list[Configuration]:
    """All configurations of a plan.

    Args:
      plan: a name of PLANS.
      base: settings of all that does not vary.
      given: the names of the settings that were given as flags: they override the plan's.
      vary: "name=value,value,…" each; replaces the plan's values of that setting, or adds it.
      where: "name=value,…:name=value,…" each; the settings after the colon go to the configurations that have all
        settings before it.
      tune: as `vary`, in place of what the plan tunes.

    Raises:
      UserError: no such setting or value, a contradiction, or nothing that varies.
    """
    axes = _axes(PLANS[plan], base, given, vary)
    tuned_axes = _axes(TUNED.get(plan, []), base, given, tune)
    tuned_names = frozenset(name for axis in tuned_axes for name in axis[0])
    rules = [_rule(text) for text in where]
    points = [
        dict(itertools.chain.from_iterable(c.items() for c in choice))
        for choice in itertools.product(*axes, *tuned_axes)
    ]
    if len(points) < 2:
        raise UserError(
            "The sweep has one configuration. Give --vary=SETTING=VALUE,VALUE"
            + (
                f", or fewer flags: --plan={plan} varies {_names(PLANS[plan])}, and they are all given."
                if axes
                else "."
            )
        )
    configurations = []
    for varied in points:
        settings = base.replaced(**varied)
        for condition, changed in rules:
            if all(settings[name] == value for name, value in condition.items()):
                settings = settings.replaced(**changed)
        configurations.append(Configuration(described(varied, "_"), varied, settings, tuned_names))
    return configurations


def parse(text: str) -> Choice:
    """Settings written as "name=value,name=value". Raises UserError for those that are the same in all runs."""
    choice = parsed_pairs(text)
    for name in choice:
        _check_may_vary(name)
    return choice


def reference_of(
    point: Configuration, points: Sequence[Configuration], settings: Mapping[str, Any]
) -> Configuration | None:
    """The configuration that `point` is compared with: `point` with these settings; None if the plan lacks it."""
    wanted = point.varied | {name: value for name, value in settings.items() if name in point.varied}
    fits = all(point.settings[n] == v for n, v in settings.items() if n not in point.varied)
    return next((other for other in points if other.varied == wanted), None) if fits else None


def usual_reference(plan: str, points: Sequence[Configuration]) -> Choice:
    """The plan's reference, as far as its settings have not been overridden by flags."""
    return {n: v for n, v in REFERENCES[plan].items() if any(point.varied.get(n) == v for point in points)}


def described(settings: Mapping[str, Any], between: str = ", ") -> str:
    return between.join(f"{name}={written(value)}" for name, value in settings.items())


def _axes(of_plan: list[Axis], base: Settings, given: Iterable[str], texts: Sequence[str]) -> list[Axis]:
    """A plan's axes with what flags give, and with "name=value,value,…" in place of the plan's values or added."""
    axes = [_overridden(axis, {n: base[n] for n in given if n in axis[0]}) for axis in of_plan]
    for text in texts:
        name, values = _varied(text)
        axes = [_without(axis, name) for axis in axes if set(axis[0]) != {name}]
        axes.append([{name: value} for value in values])
    return axes


def _overridden(axis: Axis, given: Choice) -> Axis:
    """The choices that agree with what was given; where none does, all with it put in."""
    agreeing = [choice for choice in axis if all(choice[name] == value for name, value in given.items())]
    return agreeing or _unique([choice | given for choice in axis])


def _without(axis: Axis, name: str) -> Axis:
    return _unique([{n: v for n, v in choice.items() if n != name} for choice in axis])


def _unique(axis: Axis) -> Axis:
    return [choice for i, choice in enumerate(axis) if choice not in axis[:i]]


def _varied(text: str) -> tuple[str, list[Any]]:
    name, _, texts = text.partition("=")
    _check_may_vary(name)
    values = [parsed(name, value.strip()) for value in texts.split(",") if value.strip()]
    if not values:
        raise UserError(f"--vary={text!r} names no values; write --vary=SETTING=VALUE,VALUE.")
    return name, list(dict.fromkeys(values))


def _rule(text: str) -> tuple[Choice, Choice]:
    fits, colon, settings = text.partition(":")
    if not colon or not parse(settings):
        raise UserError(f"--where={text!r} has no settings; write --where=NAME=VALUE:NAME=VALUE,NAME=VALUE.")
    return parse(fits), parse(settings)


def _check_may_vary(name: str) -> None:
    if name in _FIXED:
        raise UserError(f"--{name} is the same in all runs of a sweep; give it as a flag.")


def _names(axes: list[Axis]) -> str:
    return ", ".join(name for axis in axes for name in axis[0])
