"""Looks into folders again and again, and scores what comes."""

import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxfair.errors import InputError
from jaxfair.model_file.model import Model
from jaxfair.predict import output
from jaxfair.predict.cases import Case, cases_of
from jaxfair.predict.judged import AUTO
from jaxfair.predict.scoring import Session, check_choices, run

__all__ = ["LONGEST", "watch"]

LONGEST = 86_400.0
"""Seconds between two looks, at most: a day."""


def watch(
    model: Model,
    inputs: Sequence[str],
    out: pathlib.Path,
    *,
    columns: Mapping[str, str],
    every: float,
    polls: int | None = None,
    rule: str = "youden",
    by: str = AUTO,
    dicom: bool = False,
    **choices: Any,
) -> Session:
    """Scores what comes into folders, until it is interrupted; everything is written each time.

    A file is taken once it has kept its size and time from one look to the next, and what a table
    says of it, so that nothing half-written is read. One that changes later, or comes anew under an
    old name, is taken again, as a case of its own: it may be another patient's. One that was away
    is the same if nothing touched it (its change time), as when a share comes back.

    An interrupt between two looks is the end.

    Args:
      every: seconds between looks, up to LONGEST.
      polls: how many looks; None for no end.
      rule, by, dicom, choices: of `run`.

    Raises InputError at once where `every` is no such time, the model has not what is asked for,
    `out` has an earlier prediction, or an input is not there or cannot be read. What goes wrong
    with an input later (a share that is gone for a while) is said on stderr, and looked for again.
    """
    if not 0 < every <= LONGEST:
        raise InputError(f"--every is {every:g}; it takes seconds, above 0 and up to {LONGEST:g}.")
    check_choices(model, rule, by, dicom)
    look = _Look(model, columns)
    look.at(inputs)
    output.check_new(out)
    session, done, last = Session(), dict[_Key, _State](), dict[_Key, _State | None]()
    away = set[_Key]()
    while polls is None or polls > 0:
        now = {(case.path, case.where, case.wrong): case for case in look.again(inputs)}
        states = {key: _state(case) for key, case in now.items()}
        away |= {key for key in done if states.get(key) is None}
        away -= {key for key in away if states.get(key) == done[key]}
        still = {key: state for key, state in states.items()
                 if state is not None and last.get(key) == state
                 and not _is_same(done.get(key), state, key in away)}  # fmt: skip
        if still:
            cases = [now[key] for key in still]
            run(model, cases, out, before=session, rule=rule, by=by, dicom=dicom, **choices)
            done |= still
            away -= still.keys()
        last = states
        polls = None if polls is None else polls - 1
        if polls is None or polls > 0:
            try:
                time.sleep(every)
            except KeyboardInterrupt:
                break
    return session


_Key = tuple[str, str, str]


class _State(NamedTuple):
    """What a table says of a case; name, size and time of each of its files; their change times."""

    said: dict[str, str]
    files: list[tuple[str, int, int]]
    changed: list[int]


def _is_same(before: _State | None, state: _State, was_away: bool) -> bool:
    """Whether this was scored: a change of rights makes no other film, unless it was away."""
    return before is not None and (before == state if was_away else before[:2] == state[:2])


class _Look:
    """The cases that are in inputs now."""

    def __init__(self, model: Model, columns: Mapping[str, str]) -> None:
        self._kind, self._groups, self._columns = (
            model.about["images"]["kind"],
            model.groups,
            columns,
        )
        self._said: set[str] = set()

    def at(self, inputs: Sequence[str]) -> list[Case]:
        """Returns them. Raises InputError as `cases_of`, but for empty folders."""
        return cases_of(inputs, self._kind, self._groups, self._columns, none_yet=True)

    def again(self, inputs: Sequence[str]) -> list[Case]:
        """Returns them without what cannot be read now, which is said once, until that changes."""
        good, said = [], set[str]()
        for given in inputs:
            try:
                self.at([given])
                good.append(given)
            except (InputError, OSError) as error:
                said.add(f"{str(error).rstrip('.')}.")
        for sentence in sorted(said - self._said):
            print(f"{sentence} Looked for again.", file=sys.stderr, flush=True)
        self._said = said
        try:
            return self.at(good)
        except (InputError, OSError):  # of what went in this moment; the next look says so
            return []


def _state(case: Case) -> _State | None:
    """That of a file, or of all files of a folder; None where it is not there now."""
    place = pathlib.Path(case.path)
    try:
        inside = sorted(place.iterdir()) if place.is_dir() else [place]
        found = [(str(one), one.stat()) for one in inside]
    except (OSError, ValueError):  # it went between two looks, or its name is none
        return None
    files = [(name, told.st_size, told.st_mtime_ns) for name, told in found]
    return _State(dict(case.texts), files, [told.st_ctime_ns for _, told in found])
