"""What a config class says about its fields: the `Attributes:` of its docstring, and defaults."""

import dataclasses
import inspect
import numbers
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from jaxfair.errors import InputError, nearest

__all__ = ["Field", "Section", "built", "checked", "meanings", "refuse_unknown", "section_of"]

OPEN = "(open)"
REQUIRED = "(required)"
LEFT_OUT = "[left out]"


class Field(NamedTuple):
    """A field of a section: its name, its value as text, and its meaning."""

    name: str
    value: str
    meaning: str


class Section(NamedTuple):
    """A section of a config: `dp`, `data.table`, or '' for the top; a line on it; its fields."""

    name: str
    summary: str
    fields: tuple[Field, ...]


def meanings(cls: type) -> dict[str, str]:
    """Returns field -> meaning, from the `Attributes:` of the docstrings of a class and its bases.

    Names of constants of a class's module, such as OPTIMIZERS, are written out.
    """
    kinds = [kind for kind in reversed(cls.__mro__) if kind is not object]
    return {name: text for kind in kinds for name, text in _own_meanings(kind).items()}


def _own_meanings(cls: type) -> dict[str, str]:
    _, _, tail = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in tail.splitlines():
        entry = re.fullmatch(r"  (\w+(?:, \w+)*): (.+)", line)
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith("    "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        elif line and not line.startswith(" "):
            break
    constants = vars(sys.modules[cls.__module__])
    return {name: _written_out(text, constants) for name, text in found.items()}


def _written_out(text: str, constants: Mapping[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        constant = constants.get(found[0])
        if isinstance(constant, tuple | Mapping):
            return ", ".join(map(str, constant))
        return str(constant) if isinstance(constant, int | float) else found[0]

    return re.sub(r"\b[A-Z][A-Z_]{2,}\b", value, text)


def section_of(
    cls: type, name: str, given: Mapping[str, Any] | None = None, *, prefix: str = ""
) -> list[Section]:
    """Returns the section `name` as `cls` describes it, and those of config classes inside it.

    Args:
      cls: a dataclass.
      name: of the section, for instance "dp".
      given: its values in a config; None shows the defaults, of inner sections too.
      prefix: only fields whose names begin so, shown without it; '' for all.
    """
    meaning, hints = meanings(cls), typing.get_type_hints(cls)
    fields, inner = [], []
    for field in sorted(dataclasses.fields(cls), key=lambda field: field.kw_only is True):
        if not field.name.startswith(prefix):
            continue
        shown, kind = field.name.removeprefix(prefix), _config_class(hints[field.name])
        values = None if given is None else given.get(shown)
        if kind is not None and (given is None or isinstance(values, Mapping)):
            inner += section_of(kind, f"{name}.{shown}", values)
        value = "a section" if isinstance(values, Mapping) else _value(field, shown, given)
        fields.append(Field(shown, value, meaning.get(field.name, "")))
    summary = (inspect.getdoc(cls) or "").partition("\n")[0]
    return [Section(name, summary, tuple(fields)), *inner]


def checked(cls: type, fields: Mapping[str, Any], section: str) -> Any:
    """Returns `cls(**fields)`; raises InputError for a field unknown, missing or of a wrong type.

    Args:
      cls: a config dataclass.
      fields: of a section.
      section: its name, for the sentence; '' for the top.
    """
    known = dataclasses.fields(cls)
    refuse_unknown(fields, [field.name for field in known], section)
    for field in known:
        bare = field.default is field.default_factory is dataclasses.MISSING
        if bare and field.name not in fields:
            meaning = meanings(cls).get(field.name, "it has no default.")
            raise InputError(f"config.{_dotted(section, field.name)} is missing: {meaning}")
    _refuse_broken_numbers(cls, fields, section)
    return built(cls, fields, section)


def _refuse_broken_numbers(cls: type, fields: Mapping[str, Any], section: str) -> None:
    """Raises InputError for a field of `int` that is given anything but a whole number."""
    hints = typing.get_type_hints(cls)
    for name, value in fields.items():
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole and (hints[name] is int or (hints[name] == int | None and value is not None)):
            where, meaning = _dotted(section, name), meanings(cls).get(name, "see --help.")
            raise InputError(f"config.{where} is {value!r}; it must be a whole number: {meaning}")


def built(make: Callable[..., Any], fields: Mapping[str, Any], section: str) -> Any:
    """Returns `make(**fields)`; raises InputError for a field of a wrong type."""
    try:
        return make(**fields)
    except TypeError as error:
        if isinstance(error, InputError):
            raise
        where = f"config.{section}" if section else "config"
        raise InputError(f"{where}: {' '.join(str(error).split())}.") from error


def refuse_unknown(fields: Mapping[str, Any], known: Iterable[str], section: str) -> None:
    """Raises InputError for a field of `section` that is not among the known ones."""
    for name in fields:
        if name not in known:
            hint = nearest(name, known)
            raise InputError(f"{_dotted(section, name)} is not a field.{hint}")


def _dotted(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _config_class(hint: Any) -> type | None:
    """The dataclass in `Class` or `Class | None`; None for other types."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = typing.get_args(hint) if union else (hint,)
    found = [kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    return found[0] if found else None


def _value(field: Any, name: str, given: Mapping[str, Any] | None) -> str:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if given is not None and name in given:
        default = given[name]
    text = REQUIRED if default is dataclasses.MISSING else OPEN if default is None else f"{default}"
    return f"{text} {LEFT_OUT}" if given is not None and name not in given else text
