"""A study of gaps at the command line: what of it is run, and who writes its page."""

import argparse
import pathlib
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from experiments.gaps.runs import claimed
from jaxfair.engine.compiling import keep_compilations
from jaxfair.errors import InputError

__all__ = ["Command", "main", "some"]


class Command(NamedTuple):
    """What a study is at the command line.

    Attributes:
      about: its first line.
      default: where runs go if nobody says.
      results: folder to which the default size copies its tables.
      make: (size, root) -> what is to be run; size is "quick", "default" or "full", root a folder
        of RSNA or None for drawn films.
      only: (what is to be run, data, method) -> the part of it that is of both; "" is of all.
      run: (what is to be run, folder) trains what is missing.
      write: (what is to be run, folder) writes tables, plots and the page of what is there into
        folder/tables.
    """

    about: str
    default: str
    results: pathlib.Path
    make: Callable[[str, str | None], Any]
    only: Callable[[Any, str, str], Any]
    run: Callable[[Any, pathlib.Path], None]
    write: Callable[[Any, pathlib.Path], None]


def main(command: Command, argv: Sequence[str]) -> int:
    """Runs a study from the command line; returns 0, or 2 for refused input."""
    chosen = _parser(command).parse_args(list(argv))
    size = "quick" if chosen.quick else "full" if chosen.full else "default"
    out = chosen.out or pathlib.Path(f"{command.default}{'' if size == 'default' else f'-{size}'}")
    keep_compilations()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # runs are short
    part = bool(chosen.data or chosen.method)
    try:
        study = command.make(size, chosen.root)
        if not chosen.tables:
            command.run(command.only(study, chosen.data, chosen.method), out)
        if not part or chosen.tables:
            _write(command, study, out)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if part and not chosen.tables:
        print(f"A part is trained; --tables makes the page of all: {out}")
        return 0
    if size == "default" and chosen.out is None and chosen.root is None:
        shutil.copytree(out / "tables", command.results, dirs_exist_ok=True)
    print(out / "tables")
    return 0


def some(kept: list[Any], data: str, method: str) -> list[Any]:
    """Returns `kept` as it is. Raises InputError where there is nothing in it."""
    if not kept:
        raise InputError(
            f"No run is of --data {data!r} and --method {method!r}; the README lists both."
        )
    return kept


def _write(command: Command, study: Any, out: pathlib.Path) -> None:
    """Of several processes that end together one writes, and the others wait for it."""
    with claimed(out, "tables") as mine:
        if mine:
            command.write(study, out)
    if not mine:
        with claimed(out, "tables", wait=True):
            pass


def _parser(command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=command.about,
        epilog="Started several times, the processes share the runs; one core each is used well.",
    )
    parser.add_argument("--out", type=pathlib.Path, help=f"left out: {command.default}")
    parser.add_argument("--root", help="folder of RSNA; left out: drawn films")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the same code, less of everything")
    size.add_argument("--full", action="store_true", help="the whole grid; the page says how long")
    parser.add_argument("--tables", action="store_true", help="train nothing, write the tables")
    parser.add_argument("--data", default="", help="train on this alone; no page is written")
    parser.add_argument("--method", default="", help="train this alone; no page is written")
    return parser
