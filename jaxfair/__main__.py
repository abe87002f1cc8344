"""All commands by one name: `jaxfair train ...`, or `python -m jaxfair train ...`."""

import importlib
import pathlib
import sys
from collections.abc import Sequence

import jaxfair
from jaxfair.errors import nearest

__all__ = ["COMMANDS", "main"]

COMMANDS = ("train", "tune", "prepare", "evaluate", "leakage", "report", "account", "audit",
            "benchmark", "export", "predict", "pretrain")  # fmt: skip
"""Each is jaxfair/NAME.py, or jaxfair/NAME/__main__.py, with `main(argv)`."""


_HELP = ("--help", "-help", "-h")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv[1]` names, and returns its exit status; 2 for an unknown one.

    Only that command's modules are imported. None takes the line of this process.
    """
    words = list(sys.argv if argv is None else argv)[1:]
    if not words or words[0] in (*_HELP, "help"):
        print(_page())
    elif words[0] in ("--version", "version"):
        print(f"jaxfair {jaxfair.__version__}")
    elif words[0] == "configs" and (extra := [w for w in words[1:] if w not in _HELP]):
        print(f"configs takes no argument {extra[0]!r}; it lists all.", file=sys.stderr)
        return 2
    elif words[0] == "configs":
        print(_configs())
    elif words[0] in COMMANDS:
        module = importlib.import_module(_module(words[0]))
        return int(module.main([f"jaxfair {words[0]}", *words[1:]]))
    else:
        hint = nearest(words[0], [*COMMANDS, "configs"])
        known = ", ".join([*COMMANDS, "configs"])
        print(f"{words[0]!r} is not a command; known are {known}.{hint}", file=sys.stderr)
        return 2
    return 0


def _page() -> str:
    from jaxfair.cli.page import columns
    from jaxfair.cli.sources import first_line

    rows = [(name, first_line(_file(name))) for name in COMMANDS]
    rows += [("configs", "Lists the configs that ship, by name.")]
    parts = [
        f"jaxfair {jaxfair.__version__}: {(jaxfair.__doc__ or '').partition(': ')[2]}",
        "Usage: jaxfair COMMAND [...]\n" + columns(rows),
        "`jaxfair COMMAND --help` shows a command's flags and the fields of a config.",
    ]
    return "\n\n".join(parts)


def _configs() -> str:
    from jaxfair.cli.page import columns
    from jaxfair.cli.sources import shipped_configs, shipped_folder

    head = f"Configs by name, in {shipped_folder()}; NAME:phantom runs most of them on drawn data."
    return f"{head}\n{columns(shipped_configs().items())}"


def _module(name: str) -> str:
    return f"jaxfair.{name}.__main__" if _file(name).stem == "__main__" else f"jaxfair.{name}"


def _file(name: str) -> pathlib.Path:
    package = pathlib.Path(__file__).parent
    alone = package / f"{name}.py"
    return alone if alone.is_file() else package / name / "__main__.py"


if __name__ == "__main__":
    sys.exit(main())
