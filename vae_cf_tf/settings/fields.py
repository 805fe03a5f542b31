"""What a setting is: a field with a default, a help text, the values it may take, and what it changes."""

import dataclasses
import enum
import math
from typing import Any, ClassVar

from vae_cf_tf.errors import UserError
from vae_cf_tf.files import home_expanded
from vae_cf_tf.registry import Registry


class Changes(enum.Enum):
    """What another value of a setting changes."""

    WEIGHTS = "the trained weights: a workdir belongs to one value"
    RESULT = "what is made of finished weights, which is made again"
    NOTHING = "none of the model's figures"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a setting beside its name and default.

    Args:
      help: its documentation.
      choices: the values that it may take; () for any.
      family: a registry whose names are further choices.
      low, high: bounds of a number.
      changes: see there.
      is_path: whether it is a file or a folder, so that `~` is the home folder.
    """

    help: str
    choices: tuple[str, ...] = ()
    family: Registry | None = None
    low: float = -math.inf
    high: float = math.inf
    changes: Changes = Changes.WEIGHTS
    is_path: bool = False

    def values(self) -> tuple[str, ...]:
        """All choices; () where the setting takes any text or number."""
        return self.choices + (self.family.names() if self.family else ())


def setting(default: Any, help: str, *choices: str, **facts: Any) -> Any:
    """A field of a `Section`; `facts` as those of `Facts`."""
    return dataclasses.field(default=default, metadata={"facts": Facts(help, choices, **facts)})


def facts_of(field: dataclasses.Field) -> Facts:
    return field.metadata["facts"]


class Section:
    """The settings of one concern: a base for frozen dataclasses whose fields are made by `setting`."""

    title: ClassVar[str]
    """The heading in --help."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if facts_of(field).is_path:
                object.__setattr__(self, field.name, home_expanded(getattr(self, field.name)))
            check(field, getattr(self, field.name))
        self.check()

    def check(self) -> None:
        """Raises UserError for values that do not go together."""


def check(field: dataclasses.Field, value: Any) -> None:
    """Raises UserError for a value that the field does not take."""
    facts = facts_of(field)
    if facts.values() and value not in facts.values():
        names = ", ".join(filter(None, facts.values()))
        own = f" ({facts.family.family.capitalize()}s of your own need --extension=MODULE.)" if facts.family else ""
        raise UserError(f"--{field.name} must be one of {names}. Received: {value!r}.{own}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{field.name} must be a finite number. Received: {value}.")
    if isinstance(value, int | float) and not facts.low <= value <= facts.high:
        bounds = f"at least {facts.low}" + (f" and at most {facts.high}" if facts.high < math.inf else "")
        raise UserError(f"--{field.name} must be {bounds}. Received: {value}.")


def contradiction(message: str, holds: bool) -> None:
    """Raises UserError where it holds."""
    if holds:
        raise UserError(f"Contradictory flags: {message}.")
