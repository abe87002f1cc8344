"""Config files: found by path, or by name among those that ship with the package."""

import ast
import pathlib
import runpy
import traceback
from typing import Any

from ml_collections import ConfigDict

from jaxfair.errors import InputError, nearest

__all__ = ["load_config", "shipped_configs", "shipped_folder"]

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def shipped_folder() -> pathlib.Path:
    """Returns the folder of the shipped configs: of the wheel, or at the top of a checkout."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def shipped_configs() -> dict[str, str]:
    """Returns name -> first line of its docstring, in the order of the names."""
    files = sorted(shipped_folder().glob("*.py"))
    return {file.stem: first_line(file) for file in files if file.stem != "__init__"}


def first_line(file: pathlib.Path) -> str:
    """Returns the first line of a Python file's docstring without running it; '' if none."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def load_config(path: str) -> ConfigDict:
    """Returns `get_config(arg)` of `FILE.py:arg` (arg empty where there is none).

    Args:
      path: a file, or the name of a shipped config: "rsna_fae:phantom". A file goes first.

    Raises:
      InputError: there is no such file; it raises (the sentence names file and line); or it
        gives something else than a ConfigDict.
    """
    name, _, argument = path.partition(":")
    file = _found(name)
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
        if not callable(get_config):
            raise InputError(f"{name} has no function get_config(arg), so it is no config file.")
        config = get_config(argument)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(_failure(name, file, error)) from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{name}: get_config returned {type(config).__name__}; it must return a "
            "ml_collections.ConfigDict (does it end in `return config`?)."
        )
    return config


def _found(name: str) -> pathlib.Path:
    file = pathlib.Path(name)
    if file.is_file():
        return file
    if file.is_dir() and file.suffix:
        raise InputError(f"The config file {name} is a folder; name a file in it.")
    bare = pathlib.PurePath(name).name == name and not file.suffix
    shipped = shipped_folder() / f"{name}.py"
    if bare and shipped.is_file():
        return shipped
    near = [str(p) for p in sorted(file.parent.glob("*.py"))] if file.parent.is_dir() else []
    hint = nearest(name, [*shipped_configs(), *near] if bare else near)
    shown = ", ".join(shipped_configs())
    raise InputError(f"The config file {name} does not exist.{hint} By name there are {shown}.")


def _failure(name: str, file: pathlib.Path, error: BaseException) -> str:
    """One sentence: file, line, what was raised. A ValueError of the file's own is its words."""
    line: Any = None
    if isinstance(error, SyntaxError) and error.filename == str(file):
        line, said = error.lineno, f"SyntaxError: {error.msg}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if frame.filename == str(file)]
        line, said = own[-1] if own else None, f"{type(error).__name__}: {error}"
        if type(error) is ValueError and frames[-1].filename == str(file):
            said = str(error)
    place = name if line is None else f"{name}, line {line}"
    return " ".join(f"{place}: {said}".split())
