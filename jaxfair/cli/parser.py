"""One parser for all commands: `--config FILE[:ARG]`, overrides of it, and a command's flags.

A command is a `Command` and a function of the parsed `Line`; `execute` joins them, answers
`--help`, and turns refused input into one sentence and exit status 2.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxfair.cli.command import Command, Line
from jaxfair.cli.page import help_page
from jaxfair.cli.sources import load_config
from jaxfair.errors import InputError, nearest, system_refusal

__all__ = ["execute", "parse"]

_HELP = ("--help", "-help", "-h")
_DEFINE: dict[type, Any] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
    list: flags.DEFINE_list,
}


def execute(command: Command, argv: Sequence[str], act: Callable[[Line], int]) -> int:
    """Parses `argv` (the program's name first), calls `act` and returns the exit status.

    `--help` prints a page instead and gives 0; an InputError, of the line or of `act`, is
    printed as one sentence and gives 2, and so is a disk that is full or a place that cannot be
    written or read. An interrupt from the keyboard gives 130.
    """
    rest = [argument for argument in argv if argument not in _HELP]
    try:
        if len(rest) < len(argv):
            line = parse(command._replace(needs_config=False), rest)
            _show(help_page(command, line.config))
            return 0
        return act(parse(command, rest))
    except KeyboardInterrupt:
        print(f"\nInterrupted: {command.name} did not finish.", file=sys.stderr, flush=True)
        return 130
    except InputError as error:
        sentence = _one_line(error)
    except Exception as error:
        said = system_refusal(error)
        if said is None:
            raise
        sentence = (
            f"{command.name} cannot write or read a file ({said}); make room, or name a place "
            "that may be written."
        )
    print(sentence, file=sys.stderr, flush=True)
    return 2


def _show(page: str) -> None:
    """Prints a page, of which `| head` may read the beginning alone."""
    try:
        print(page, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(command: Command, argv: Sequence[str]) -> Line:
    """Returns the parsed line. Raises InputError that names what is wrong and what is near."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may follow words
    for flag in command.flags:
        _DEFINE[flag.kind](flag.name, flag.default, flag.meaning, flag_values=values)
    path, rest = _take_config(list(argv))
    config = _config(command, path, rest, values)
    try:
        words = values(rest)[1:]
    except (flags.Error, ValueError, TypeError, SyntaxError) as error:
        said = _number_told(_one_line(error))
        if "does not accept dots" in said:
            said += " Write words with a point as pairs: {'name': [['a.b', 'value']]}."
        raise InputError(said) from error
    if words and not command.words:
        raise InputError(f"{command.name} takes no argument {words[0]!r}; options start with --.")
    names = [flag.name for flag in command.flags]
    given = frozenset(name for name in names if values[name].present)
    found = {name: values[name].value for name in names}
    return Line(config, found, given, tuple(words), frozenset(_overrides(rest)), path)


def _config(command: Command, path: str | None, rest: list[str], values: Any) -> ConfigDict | None:
    """Loads the config and defines its fields as flags, so that the line overrides them."""
    if path is None:
        if command.sections is not None and command.needs_config:
            _refuse_unknown_flags(rest, command)
        if command.sections is not None and command.needs_config:
            raise InputError(
                "Which experiment? Give --config FILE, or a name such as rsna_fae:phantom; "
                "`jaxfair configs` lists the names."
            )
        if command.base is None or not _overrides(rest):
            return None
        config = command.base(_flags_alone(command, rest))
    elif command.sections is None:
        raise InputError(f"{command.name} takes no --config; `jaxfair {command.name} --help`.")
    else:
        config = load_config(path)
    _refuse_unknown_overrides(rest, config)
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
    return config


def _refuse_unknown_flags(argv: list[str], command: Command) -> None:
    """Names a misspelt flag before a missing config is asked for: it may have been `--config`."""
    known = ["config", "help", *(flag.name for flag in command.flags)]
    negated = [f"no{flag.name}" for flag in command.flags if flag.kind is bool]
    for argument in argv[1:]:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("--") and name and name.partition(".")[0] not in known + negated:
            raise InputError(f"{command.name} has no flag --{name}.{nearest(name, known)}")


def _take_config(argv: list[str]) -> tuple[str | None, list[str]]:
    for place, argument in enumerate(argv[1:], start=1):
        if argument in ("--config", "-config"):
            if place + 1 == len(argv) or argv[place + 1].startswith("-"):
                raise InputError("--config needs a value: Give --config FILE, or a config's name.")
            return argv[place + 1], argv[:place] + argv[place + 2 :]
        if argument.startswith(("--config=", "-config=")):
            return argument.partition("=")[2], argv[:place] + argv[place + 1 :]
    return None, argv


def _refuse_unknown_overrides(argv: list[str], config: ConfigDict) -> None:
    known = _leaves(config)
    for name in _overrides(argv):
        if name not in known:
            _refuse_below_an_empty_section(name, known)
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f" Did you mean config.{close[0]}?" if close else ""
            raise InputError(f"config.{name} does not exist.{hint}")


def _refuse_below_an_empty_section(name: str, known: list[str]) -> None:
    """Says how a section that holds nothing yet is filled: on a line it takes a mapping."""
    inner = name.split(".")
    for count in range(len(inner) - 1, 0, -1):
        section = ".".join(inner[:count])
        if section in known:
            value = "..."
            for part in reversed(inner[count:]):
                value = f"{{'{part}': {value}}}"
            raise InputError(
                f"config.{name} does not exist: config.{section} is given as a whole, as "
                f'--config.{section}="{value}".'
            )


def _overrides(argv: list[str]) -> list[str]:
    """Names of the fields of the config that stand on the line."""
    found = [argument for argument in argv[1:] if argument.startswith(("--config.", "-config."))]
    return [argument.partition("config.")[2].partition("=")[0] for argument in found]


def _flags_alone(command: Command, argv: list[str]) -> dict[str, Any]:
    """The command's own flags on a line whose overrides have no config yet."""
    own = flags.FlagValues()
    own.set_gnu_getopt(True)
    for flag in command.flags:
        _DEFINE[flag.kind](flag.name, flag.default, flag.meaning, flag_values=own)
    own(argv, known_only=True)
    return {flag.name: own[flag.name].value for flag in command.flags}


def _leaves(config: ConfigDict, prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in config.items(preserve_field_references=True):  # which need no value
        is_section = isinstance(value, ConfigDict) and len(value)  # an empty one takes a mapping
        found += _leaves(value, f"{prefix}{name}.") if is_section else [prefix + name]
    return found


def _number_told(said: str) -> str:
    """What absl says of a value that is no number, in our words; anything else as it is."""
    what = r"flag --(\S+?)=(.*): (invalid literal for int|could not convert string to float)\b.*"
    if not (found := re.fullmatch(what, said)):
        return said
    kind = "a whole number" if "int" in found[3] else "a number"
    return f"--{found[1]}={found[2]} must be {kind}."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
