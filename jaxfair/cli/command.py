"""What a command is: its name, what it does, its flags, and the config that it takes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxfair.cli.fields import Section

__all__ = ["Command", "Flag", "Line"]


class Flag(NamedTuple):
    """An option of a command: `--name=VALUE`.

    Attributes:
      name: without the dashes.
      kind: str, int, float, bool, or list (words between commas).
      default: None where leaving it out means something of its own.
      meaning: for `--help`.
    """

    name: str
    kind: type
    default: Any
    meaning: str


class Command(NamedTuple):
    """What a command takes.

    Attributes:
      name: as in `jaxfair NAME`.
      about: what it does, and examples; its module's docstring.
      flags: its own options.
      words: what arguments without dashes are, such as "RUN"; '' where none are taken.
      sections: what describes the config for `--help`, called with the config or None; None
        where the command takes no config.
      needs_config: refuse a line without `--config`.
      base: what overrides change on a line that has some and no `--config`, called with the
        flags; None where they need `--config`.
    """

    name: str
    about: str
    flags: tuple[Flag, ...] = ()
    words: str = ""
    sections: Callable[[ConfigDict | None], list[Section]] | None = None
    needs_config: bool = True
    base: Callable[[dict[str, Any]], ConfigDict] | None = None


class Line(NamedTuple):
    """A parsed line.

    Attributes:
      config: with its overrides; None where none was given.
      flags: name -> value, for every flag of the command.
      given: names of the flags that stood on the line.
      words: the arguments without dashes.
      overrides: names of the fields of the config that stood on the line, as "data.root".
      named: what `--config` named; None where it was left out.
    """

    config: Any
    flags: dict[str, Any]
    given: frozenset[str]
    words: tuple[str, ...]
    overrides: frozenset[str] = frozenset()
    named: str | None = None
