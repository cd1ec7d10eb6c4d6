"""Store options as the command line takes them."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final

from crossdock.errors import ConfigError
from crossdock.store.api import StoreOptions

_BOOLS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def store_options(settings: Iterable[str]) -> StoreOptions:
    """Return options of "name=value" texts; names that are no option go to `extra`.

    Raises:
        ConfigError: a text has no "=", or a value is not of its option's kind.
    """
    values: dict[str, Any] = {}
    extra: dict[str, str] = {}
    kinds: dict[str, type] = {
        f.name: type(f.default) for f in fields(StoreOptions) if f.name != "extra"
    }
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"store option {text!r} is not NAME=VALUE")
        kind = kinds.get(name)
        if kind is None:
            extra[name] = value
            continue
        try:
            values[name] = _BOOLS[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            raise ConfigError(f"store option {name}={value!r} is no {kind.__name__}") from None
    return StoreOptions(**values, extra=extra)
