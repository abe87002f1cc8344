"""Looks into folders again and again, and scores what comes."""

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxfair.errors import InputError
from jaxfair.model_file.model import Model
from jaxfair.predict.cases import Case, cases_of
from jaxfair.predict.scoring import Session, run

__all__ = ["watch"]


def watch(
    model: Model,
    inputs: Sequence[str],
    out: pathlib.Path,
    *,
    columns: Mapping[str, str],
    every: float,
    polls: int | None = None,
    **choices: Any,
) -> Session:
    """Scores what comes into folders, until it is interrupted; everything is written each time.

    A file is taken once it has kept its size and time from one look to the next, so that nobody's
    half-written file is read; one that changes later is not taken again.

    Args:
      every: seconds between looks.
      polls: how many looks; None for no end.
      choices: of `run`.
    """
    session, done, last = Session(), set[str](), dict[str, Any]()
    while polls is None or polls > 0:
        now = {case.path: (case, _state(case.path)) for case in _there(model, inputs, columns)}
        still = [case for path, (case, state) in now.items()
                 if path not in done and last.get(path) == state]  # fmt: skip
        if still:
            run(model, still, out, before=session, **choices)
            done |= {case.path for case in still}
        last = {path: state for path, (_, state) in now.items()}
        polls = None if polls is None else polls - 1
        if polls is None or polls > 0:
            time.sleep(every)
    return session


def _there(model: Model, inputs: Sequence[str], columns: Mapping[str, str]) -> list[Case]:
    """The cases, of which there may be none yet."""
    try:
        return cases_of(inputs, model.about["images"]["kind"], model.groups, columns)
    except InputError:
        return []


def _state(path: str) -> Any:
    """Sizes and times of a file, or of all files of a folder."""
    place = pathlib.Path(path)
    inside = sorted(place.iterdir()) if place.is_dir() else [place]
    return [
        (str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in inside if one.exists()
    ]
