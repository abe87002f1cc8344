"""Does privacy widen gaps between groups in anomaly detection, and does composition explain it?

    make dp-gap          # python -m experiments.e01_dp_gap.study
    make dp-gap-quick    # the same code, less of everything
    python -m experiments.e01_dp_gap.study --tables      # trains nothing
    python -m experiments.e01_dp_gap.study --full [--root DIR]    # the whole grid; DIR holds RSNA

Each run trains a detector on normal films of which a public share is of group A (men; 61 and older;
PA), at one epsilon; the number of patients is the same for every share. Resumable: what is done is
not done again. Whole seeds come first, so that what is there after a part is a smaller study.
"""

import itertools
import math
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from experiments.e01_dp_gap import page
from experiments.gaps.command import Command, main, some
from experiments.gaps.levels import PAIRS
from experiments.gaps.runs import Run, train_runs
from experiments.gaps.sets import FILMS, rsna
from experiments.gaps.trainings import config_of, detectors, same_for_all_seeds
from jaxfair.data.examples import VALUES

__all__ = ["COMMAND", "GRIDS", "Grid", "keep_of", "make", "only"]

PLAIN = math.inf
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

PEOPLE = {"sex": (0.0932, 0.0703), "age": (0.0393, 0.0305), "view": (0.108, 0.071)}
"""Declared: patients of groups A and B who may train, over all films. Public constants, of the
published joint counts of RSNA and the split's 70 %; they fix the rates of `data.keep`."""

_OF = {  # attribute -> column, values of A, values of B
    "sex": ("sex", ("M",), ("F",)),
    "age": ("age_group", ("61-75", "76-110"), ("0-17", "18-30")),
    "view": ("view", ("PA",), ("AP",)),
}


class Grid(NamedTuple):
    """What is trained of a detector: every combination."""

    epsilons: Sequence[float]
    shares: Sequence[float]
    splits: Sequence[int]
    seeds: Sequence[int]
    attributes: Sequence[str] = tuple(PAIRS)


EPSILONS = (PLAIN, 8.0, 4.0, 2.0, 1.0, 0.5)
WHOLE = Grid(EPSILONS, SHARES, (1, 2, 3), range(1, 6))
THREE = (0.0, 0.5, 1.0)
SEEDS = range(1, 6)
REST = ("age", "view")
GRIDS: dict[str, dict[str, tuple[Grid, ...]]] = {
    "quick": {
        "": (Grid((PLAIN, 8.0), (0.5,), (1,), (1,), ("sex",)),),
        "gaussian": (Grid((PLAIN, 8.0), THREE, (1,), (1, 2)),),
        "fae": (Grid((PLAIN, 8.0), THREE, (1,), (1, 2), ("sex",)),),
    },
    "default": {
        "": (Grid((PLAIN, 8.0), THREE, (1,), SEEDS, ("sex",)),),
        "gaussian": (
            Grid(EPSILONS, SHARES, (1, 2), SEEDS, ("sex",)),
            Grid((PLAIN, 8.0, 1.0), SHARES, (1, 2), SEEDS, REST),
        ),
        "fae": (
            Grid((PLAIN, 8.0, 1.0), THREE, (1,), SEEDS, ("sex",)),
            Grid((PLAIN, 8.0), THREE, (1,), SEEDS, REST),
        ),
    },
    "full": {"": (WHOLE,)},
}
"""Size -> detector -> its grids; "" is of all that are not named."""


def keep_of(attribute: str, share: float) -> dict[str, Any]:
    """Returns the fields of `data` by which group A is a share of the training patients.

    Both groups are thinned by public rates so that the expected number of patients is that of the
    smaller group at every share; others do not train.
    """
    column, *values = _OF[attribute]
    least = min(PEOPLE[attribute])
    rates = [part * least / own for part, own in zip((share, 1 - share), PEOPLE[attribute])]
    rate = {value: rates[side] for side in (0, 1) for value in values[side]}
    return {
        "keep_by": (column,),
        "keep": tuple(round(rate.get(v, 0.0), 6) for v in VALUES[column]),
    }


def make(size: str, root: str | None = None) -> list[Run]:
    """Returns the runs of a size, whole seeds first."""
    films = FILMS["full"] if root else FILMS[size]
    runs = []
    for method in detectors():
        for grid in GRIDS[size].get(method, GRIDS[size][""]):
            runs += _runs_of(method, grid, size, rsna(size, root), films)
    return sorted(runs, key=lambda run: (run.seed, run.split))


def _runs_of(
    method: str, grid: Grid, size: str, films: dict[str, Any], count: int
) -> Iterator[Run]:
    """Yields every combination of a grid; films are the section `data`, `count` of them."""
    cells = itertools.product(grid.seeds, grid.splits, grid.attributes, grid.shares, grid.epsilons)
    for seed, split, attribute, share, epsilon in cells:
        if seed != grid.seeds[0] and same_for_all_seeds(method, epsilon):
            continue
        data = films | keep_of(attribute, share)
        data |= {"split_salt": f"gaps-{split}", "groups": ()}
        data["public_size"] = int(round(min(PEOPLE[attribute]) * count, -1))
        config = config_of("e01_dp_gap", method, data, epsilon=epsilon, seed=seed, size=size)
        yield Run(f"{attribute}-{share:g}", method, "plain", 0, epsilon, split, seed, config)


def only(runs: Sequence[Run], data: str, method: str) -> list[Run]:
    """Returns the runs of one attribute and one detector; "" is every one.

    Raises InputError where there is none.
    """
    kept = [
        run for run in runs if data in ("", run.data.split("-")[0]) and method in ("", run.method)
    ]
    return some(kept, data, method)


def train(runs: Sequence[Run], out: pathlib.Path) -> None:
    """Trains what is missing."""
    train_runs(runs, out, what="gaps under privacy")


COMMAND = Command(
    about=str(__doc__).splitlines()[0],
    default="runs/e01_dp_gap",
    results=pathlib.Path(__file__).parent / "results",
    make=make,
    only=only,
    run=train,
    write=page.write,
)

if __name__ == "__main__":
    sys.exit(main(COMMAND, sys.argv[1:]))
