"""All settings of a run: sections by concern, and the flat names that flags and files have for them."""

import dataclasses
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_cf_tf.errors import UserError, did_you_mean
from vae_cf_tf.registries import LATENT, LIKELIHOODS, PRIORS
from vae_cf_tf.settings.data import OF_USERS, DataSettings, SplitSettings
from vae_cf_tf.settings.fields import Changes, contradiction, facts_of
from vae_cf_tf.settings.model import ItemItemSettings, ModelSettings
from vae_cf_tf.settings.run import EvaluationSettings, RunSettings
from vae_cf_tf.settings.training import TrainingSettings

VERSION = 2
"""Of a workdir's files. Version 1 had no such number."""


ADDED = {"turns": "epoch", "average_weights": 0.0, "initial_items": "random"}
"""Values of these settings for files of versions without them: what those versions did, unlike today's defaults."""


class OldVersion(ValueError):
    """Settings that an earlier version of the package wrote, which had other files too."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Examples:
      >>> settings = Settings.of(latent="flat", beta_cap=0.2)
      >>> settings.model.latent, settings.training.beta_cap
      ('flat', 0.2)
    """

    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    split: SplitSettings = dataclasses.field(default_factory=SplitSettings)
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    item_item: ItemItemSettings = dataclasses.field(default_factory=ItemItemSettings)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    run: RunSettings = dataclasses.field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        model, training = self.model, self.training
        contradiction(
            f"--kl=analytic is known for one latent variable with --prior={PRIORS.plainest} and --prior_own=0 only; "
            "use --kl=sample",
            training.kl == "analytic"
            and not (
                model.has_latent_variable
                and not LATENT.has(model.latent, "sampled KL only")
                and PRIORS.has(model.prior, "closed-form KL")
                and not model.prior_own
            ),
        )
        split = self.split
        contradiction(
            "--also_time_split adds what --split=time does by itself", self.run.also_time_split and self.by_time
        )
        contradiction(
            "--cut is for --split=time or --also_time_split",
            split.cut != SplitSettings.cut and not (self.by_time or self.run.also_time_split),
        )
        weights = [f"--{name}" for name in ("weight_column",) if self.data.weight_column]
        weights += ["--repeats=sum"] * (split.repeats == "sum") + ["--half_life_days"] * (split.half_life_days > 0)
        contradiction(
            f"{' and '.join(weights)} weighs items, and --likelihood={model.likelihood} knows no weights",
            bool(weights) and not LIKELIHOODS.has(model.likelihood, "weights"),
        )
        contradiction(
            "--weight_scale and --weight_cap need weights: --weight_column, --repeats=sum or --half_life_days",
            not weights and (split.weight_scale != "none" or split.weight_cap > 0),
        )
        contradiction(
            "--softmax_samples updates few rows in a step, and --weight_decay all of them",
            model.softmax_samples > 0 and training.weight_decay > 0,
        )
        contradiction(
            f"--best_by=elbo needs a latent variable, and --latent={model.latent} has none",
            training.best_by == "elbo" and not model.has_latent_variable,
        )
        contradiction(
            f"--encoder_passes needs a latent variable, and --latent={model.latent} has none",
            training.encoder_passes > 0 and not model.has_latent_variable,
        )

    @property
    def by_time(self) -> bool:
        return self.split.split == "time"

    def of_time_split(self) -> "Settings":
        """Those of the run that --also_time_split makes beside this one."""
        of_users = {name: field_of(name).default for name in OF_USERS}
        folder = str(Path(self.run.workdir) / "time_split")
        return self.replaced(**of_users, split="time", also_time_split=False, workdir=folder, export_dir="")

    @classmethod
    def of(cls, **values: Any) -> "Settings":
        """Settings by their flat names; those that are not named have their defaults.

        Raises:
          UserError: there is no such setting, it does not take the value, or values contradict each other.
        """
        return cls().replaced(**values)

    def replaced(self, **values: Any) -> "Settings":
        """The settings with other values, by their flat names. Raises UserError as `of`."""
        sections: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            sections.setdefault(section_of(name), {})[name] = value
        return dataclasses.replace(
            self, **{name: dataclasses.replace(getattr(self, name), **found) for name, found in sections.items()}
        )

    def flat(self) -> dict[str, Any]:
        """Every value by its flat name."""
        return {name: getattr(getattr(self, section), name) for name, (section, _) in _FIELDS.items()}

    def __getitem__(self, name: str) -> Any:
        """The value of a setting by its flat name."""
        return getattr(getattr(self, section_of(name)), name)

    def to_dict(self) -> dict[str, Any]:
        """All settings by flat name, and the version of their meaning, for a file."""
        return {"version": VERSION} | self.flat()

    @classmethod
    def from_dict(cls, values: Any) -> "Settings":
        """The settings of what `to_dict` gave.

        A setting that an earlier version of the package did not have yet takes the value in ADDED, or its default,
        which is what that version did.

        Raises:
          OldVersion: an earlier version of the package wrote it.
          ValueError: it is no such thing, or a later version of the package wrote it.
          UserError: values that do not go together.
        """
        if not isinstance(values, dict):
            raise ValueError("no settings")
        values = dict(values)
        version = values.pop("version", 1)
        if version == 1:
            raise OldVersion
        if version != VERSION:
            raise ValueError(f"version is {version!r}")
        for name, value in values.items():
            if name not in _FIELDS:
                raise ValueError(f"unknown setting {name}")
            default = field_of(name).default
            if type(value) is not type(default) and not (isinstance(default, float) and type(value) is int):
                raise ValueError(f"{name} is {value!r}")
        return cls.of(**ADDED | values)

    def figures_depend_on(self) -> dict[str, Any]:
        """The settings that change the trained weights or what is made of them."""
        return {name: value for name, value in self.flat().items() if changes(name) != Changes.NOTHING}

    def differences(self, other: "Settings") -> list[str]:
        """Names of the settings that make `other` a run of other weights."""
        return [name for name in _FIELDS if changes(name) == Changes.WEIGHTS and self[name] != other[name]]


_FIELDS: dict[str, tuple[str, dataclasses.Field]] = {
    field.name: (section.name, field)
    for section in dataclasses.fields(Settings)
    for field in dataclasses.fields(section.default_factory)  # type: ignore[arg-type]
}
"""By flat name: the section and the field."""


def names(*sections: str) -> list[str]:
    """Flat names of the settings of these sections; of all, where none is named."""
    return [name for name, (section, _) in _FIELDS.items() if section in sections or not sections]


def section_of(name: str) -> str:
    """The section that a setting is in. Raises UserError where there is no such setting."""
    if name not in _FIELDS:
        suggestion = did_you_mean(name, list(_FIELDS))
        raise UserError(f"There is no setting {name!r}.{suggestion} (python -m trainers.main --help lists them.)")
    return _FIELDS[name][0]


def field_of(name: str) -> dataclasses.Field:
    """The field of a setting. Raises UserError where there is no such setting."""
    section_of(name)
    return _FIELDS[name][1]


def changes(name: str) -> Changes:
    """What another value of the setting changes."""
    return facts_of(field_of(name)).changes


def parsed(name: str, text: str) -> Any:
    """The value of the setting `name` that `text` writes.

    Raises:
      UserError: there is no such setting, or the text is no number where it takes one.
    """
    kind: type = type(field_of(name).default)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"--{name} takes true or false. Received: {text!r}.")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as error:
        number = "a whole number" if kind is int else "a number"
        raise UserError(f"--{name} takes {number}. Received: {text!r}.") from error


def typed(name: str, value: Any) -> Any:
    """Converts a value from Python code to the type of the setting: text as in a flag, numbers (NumPy's too) or paths.

    Raises:
      UserError: there is no such setting, or it takes another kind of value.
    """
    kind: type = type(field_of(name).default)
    if isinstance(value, str):
        return parsed(name, value)
    if isinstance(value, os.PathLike) and facts_of(field_of(name)).is_path:
        return os.fspath(value)
    is_number = isinstance(value, numbers.Real) and isinstance(value, bool) == (kind is bool)
    if kind is not str and is_number and kind(value) == value:
        return kind(value)
    wanted = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}[kind]
    raise UserError(f"--{name} takes {wanted}. Received: {value!r}.")


def parsed_pairs(text: str, what: str = "setting") -> dict[str, Any]:
    """Settings written as "name=value,name=value". Raises UserError as `parsed`, and for a part that is no pair."""
    found = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise UserError(f"{pair!r} is no {what}; write NAME=VALUE.")
        found[name] = parsed(name, value)
    return found


def written(value: Any) -> str:
    """A setting's value as a flag takes it: a number in as few digits as tell it from every other."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def groups() -> Mapping[str, list[str]]:
    """Names of the settings by their heading in --help, after those that most runs give."""
    first = ["data", "workdir", "epochs", "batch_size", "seed"]
    found: dict[str, list[str]] = {"Most used": first}
    for section in dataclasses.fields(Settings):
        title = section.default_factory.title  # type: ignore[union-attr]
        found[title] = [name for name in names(section.name) if name not in first]
    return found
