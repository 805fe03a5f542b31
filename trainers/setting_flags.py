"""A flag for each setting, and the settings that the command line gives."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from absl import flags

from vae_cf_tf.cli import commands
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.fields import facts_of
from vae_cf_tf.settings.settings import field_of, names

_DEFINE: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
}


def define_flags(*sections: str) -> None:
    """A flag for each setting of these sections, or of all, with its default and its help text."""
    for field in map(field_of, names(*sections)):
        facts, default = facts_of(field), cast(Any, field.default)
        if facts.values():
            flags.DEFINE_enum(field.name, default, list(facts.values()), facts.help)
        elif facts.is_path:
            commands.define_path(field.name, default, facts.help)
        else:
            _DEFINE[type(default)](field.name, default, facts.help)


def settings_from_flags(defaults: Mapping[str, Any] = {}, *sections: str) -> Settings:
    """The settings that the flags give; `defaults` replace those of flags that are not given."""
    given = given_flags(*sections)
    values = {name: flags.FLAGS[name].value for name in names(*sections)}
    return Settings.of(**values | {name: value for name, value in defaults.items() if name not in given})


def given_flags(*sections: str) -> frozenset[str]:
    """The settings that the command line or a flagfile names."""
    return frozenset(name for name in names(*sections) if flags.FLAGS[name].present)
