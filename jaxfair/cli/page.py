"""The page that `--help` prints."""

import textwrap
from collections.abc import Iterable
from typing import Any

from jaxfair.cli.command import Command, Flag
from jaxfair.cli.fields import LEFT_OUT, OPEN, Field, Section

__all__ = ["columns", "help_page"]

_WIDTH = 100
_LEFT = 30


def help_page(command: Command, config: Any = None) -> str:
    """Returns what a command does, its flags, and its config's fields, each with its meaning.

    Args:
      command: what is described.
      config: its values stand beside the fields; None shows the defaults.
    """
    page = [_usage(command), command.about.strip(), _flags(command)]
    if command.sections is not None:
        page.append(_head(config))
        page += [_section(section) for section in command.sections(config)]
    return "\n\n".join(page)


def columns(rows: Iterable[tuple[str, str]]) -> str:
    """Returns rows of a term and its meaning, the meaning wrapped beside or below the term."""
    return "\n".join(_row(term, meaning) for term, meaning in rows)


def _row(term: str, meaning: str) -> str:
    body = textwrap.wrap(meaning, _WIDTH - _LEFT)
    if len(term) + 4 > _LEFT:
        return "\n".join([f"  {term}", *(" " * _LEFT + line for line in body)])
    lines = body or [""]
    first = f"  {term}".ljust(_LEFT) + lines[0]
    return "\n".join([first.rstrip(), *(" " * _LEFT + line for line in lines[1:])])


def _usage(command: Command) -> str:
    config = "--config FILE[:VARIANT] [--config.FIELD=VALUE ...]"
    if not command.needs_config:
        config = f"[{config}]"
    shown = "" if command.sections is None else f" {config}"
    words = f" [{command.words} ...]" if command.words else ""
    return f"Usage: jaxfair {command.name}{words}{shown} [FLAGS]"


def _flags(command: Command) -> str:
    rows = [(_term(flag), _meaning(flag)) for flag in command.flags]
    return "Flags\n" + columns([*rows, ("--help", "show this page")])


def _term(flag: Flag) -> str:
    if flag.kind is bool:
        return f"--[no]{flag.name}"
    kinds = {str: "TEXT", int: "N", float: "X", list: "A,B,..."}
    return f"--{flag.name}={kinds[flag.kind]}"


def _meaning(flag: Flag) -> str:
    if flag.default is None or flag.kind is bool:
        return str(flag.meaning)
    shown = ",".join(flag.default) if flag.kind is list else flag.default
    return f"{flag.meaning} ({shown})"


def _head(config: Any) -> str:
    values = "their defaults" if config is None else f"the values of {config.get('name', 'FILE')}"
    text = (
        f"Fields of the config with {values}; --config.SECTION.FIELD=VALUE sets one, after "
        f"--config. {OPEN} is left to the program"
    )
    left = "" if config is None else f", {LEFT_OUT} stands in no line of the file and is set there"
    return "\n".join(textwrap.wrap(f"{text}{left}.", _WIDTH))


def _section(section: Section) -> str:
    name = f"config.{section.name}" if section.name else "config"
    return f"{name}: {section.summary}\n" + columns(_field(field) for field in section.fields)


def _field(field: Field) -> tuple[str, str]:
    return f"{field.name} = {field.value}", field.meaning
