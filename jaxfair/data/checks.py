"""How an option of the section `data` is refused: one sentence with the value and the rule."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from jaxfair.errors import InputError, nearest

__all__ = ["as_tuples", "build_section", "check_choice", "check_rules", "field_names"]


def check_rules(options: Any, rules: Iterable[tuple[bool, str, str]]) -> None:
    """Raises InputError for the first of `rules`, (holds, field, what it must be), that fails."""
    for holds, name, rule in rules:
        if not holds:
            raise InputError(f"data.{name} is {getattr(options, name)!r}; it must be {rule}.")


def check_choice(options: Any, name: str, known: Iterable[str]) -> None:
    """Raises InputError, with the nearest known value, where a field is none of `known`."""
    value, known = getattr(options, name), tuple(known)
    if value not in known:
        raise InputError(
            f"data.{name} is {value!r}; it must be one of {', '.join(map(repr, known))}."
            f"{nearest(str(value), known)}"
        )


def as_tuples(options: Any, *names: str) -> None:
    """Turns the named fields of a frozen dataclass into tuples; None stays None.

    A text is one value, not its letters.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None:
            object.__setattr__(options, name, (value,) if isinstance(value, str) else tuple(value))


def build_section(cls: type, name: str, fields: Mapping[str, Any]) -> Any:
    """Makes the config class of data.<name> from a mapping; InputError for a field it has not."""
    known = field_names(cls)
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise InputError(
            f"data.{name}.{unknown[0]} is no option; known are {', '.join(known)}."
            f"{nearest(unknown[0], known)}"
        )
    return cls(**fields)


def field_names(cls: type) -> tuple[str, ...]:
    """The fields of a dataclass, in order."""
    return tuple(field.name for field in dataclasses.fields(cls))
