"""Families of parts that a setting chooses by name. A part is imported when it is asked for: --help needs none."""

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from vae_cf_tf.errors import UserError

Part = TypeVar("Part")


class Registry:
    """The parts of one family, such as priors, by the name that a setting has for them.

    Args:
      family: what the parts are, for messages.
      parts: "module:name" by name. The first is the plainest of the family.
      traits: of some parts, what must be known without importing them.
      default: name of the part that a setting has unless it is given; "": the plainest.

    Examples:
      >>> numbers = Registry("number", {"tau": "math:tau"})
      >>> numbers["tau"] > 6
      True
      >>> numbers.names()
      ('tau',)
    """

    def __init__(
        self, family: str, parts: dict[str, str], traits: dict[str, set[str]] | None = None, default: str = ""
    ):
        self.family = family
        self.default = default or next(iter(parts))
        self._parts: dict[str, Any] = dict(parts)
        self._traits = dict(traits or {})

    def register(self, name: str, *traits: str) -> Callable[[Part], Part]:
        """A decorator that adds a part under `name`.

        Raises:
          ValueError: the name is taken.
        """
        if name in self._parts:
            raise ValueError(f"There is a {self.family} {name!r} already.")

        def add(part: Part) -> Part:
            self._parts[name], self._traits[name] = part, set(traits)
            return part

        return add

    def names(self) -> tuple[str, ...]:
        return tuple(self._parts)

    @property
    def plainest(self) -> str:
        """Name of the first part."""
        return next(iter(self._parts))

    def has(self, name: str, trait: str) -> bool:
        """Whether the part of this name has a trait."""
        return trait in self._traits.get(name, set())

    def __getitem__(self, name: str) -> Any:
        """The part of this name. Raises UserError where there is none."""
        part = self._parts.get(name)
        if part is None:
            raise UserError(
                f"There is no {self.family} {name!r} here. If a module of your own registers it, name that module with "
                "--extension=MODULE."
            )
        if not isinstance(part, str):
            return part
        module, _, attribute = part.partition(":")
        return getattr(importlib.import_module(module), attribute)
