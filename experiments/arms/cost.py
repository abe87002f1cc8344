"""What a step of each method costs, over the step of ERM beside it.

    python -m experiments.arms.cost                        # prints a table
    python -m experiments.arms.cost --part resnet9 --out cost.csv --rounds 15

The arms of `e05_disentangle` and `e06_fairread`, as they train there on drawn films, without
privacy and at epsilon 8. Each round takes a step of ERM and one of every stage of an arm, on
made-up examples; a ratio is within a round, so that a neighbour's load falls on both alike. A
method with stages costs the mean of their steps, each weighed by its share of the run. The goal
is 1.6.
"""

import argparse
import itertools
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from experiments.arms.cells import PLAIN, Cell
from experiments.arms.sets import linked_phantom
from experiments.arms.study import config
from experiments.arms.tables import markdown
from experiments.e05_disentangle import study as disentangle
from experiments.e06_fairread import study as fairread
from jaxfair import files
from jaxfair.benchmark import stopwatch
from jaxfair.config import Settings, settings_from_config
from jaxfair.engine.assembly import assemble
from jaxfair.engine.compiling import keep_compilations
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.stages import ends_of, stages_of
from jaxfair.start import assembly_of

__all__ = ["Step", "beside", "compared", "main", "measured", "steps_of"]

BASE = "erm"
PARTS = ("heads", "resnet9")
STUDIES = {"e05_disentangle": disentangle.make, "e06_fairread": fairread.make}
ARMS = {"e05_disentangle": disentangle.ARMS, "e06_fairread": fairread.ARMS}
EPSILON = 8.0
SECONDS = 120.0
"""For each arm, after which no further round begins (but three there are)."""


class Step(NamedTuple):
    """A step on made-up examples.

    Attributes:
      share: of the run's steps that are of its stage.
      call: runs it once.
    """

    share: float
    call: Callable[[], None]


def measured(study: str, part: str, epsilon: float, *, rounds: int) -> pd.DataFrame:
    """Returns a row for each arm but ERM: study, part, epsilon, arm, and the columns of `beside`.

    Ratios are to the step of the study's own ERM, which is as wide as the other arms there. Arms
    are measured one after the other, each in turns with ERM: a process can hold the compiled
    steps of some stages, and not of all arms.

    Args:
      study: key of STUDIES.
      part: one of PARTS.
      epsilon: PLAIN is without privacy.
      rounds: of which each has a step of ERM and one of every stage of the arm.
    """
    (_, erm), *others = compared(study, part, epsilon)
    rows = []
    for name, settings in others:
        (base,), steps = steps_of(erm), steps_of(settings)
        calls = {BASE: base.call} | {f"{i}": step.call for i, step in enumerate(steps)}
        taken = stopwatch.interleaved(calls, rounds=rounds, seconds=SECONDS)
        whole = sum(step.share * taken[f"{i}"] for i, step in enumerate(steps))
        rows.append(beside({BASE: taken[BASE], name: np.asarray(whole)}, BASE).iloc[[1]])
        del base, steps, calls
        jax.clear_caches()
    table = pd.concat(rows, ignore_index=True).rename(columns={"name": "arm"})
    table.insert(0, "epsilon", epsilon)
    table.insert(0, "part", part)
    table.insert(0, "study", study)
    return table


def beside(taken: dict[str, np.ndarray], base: str) -> pd.DataFrame:
    """Returns a row for each name: seconds, and ratios to `base` within each round.

    Args:
      taken: name -> (r, 2), wall and processor seconds of r rounds (`stopwatch.interleaved`).
      base: the name that all are held against.

    Returns:
      Columns name, seconds (median), ratio, low, high (median and quartiles of wall time),
      cpu_ratio (median).
    """
    rows = []
    for name, each in taken.items():
        ratio, cpu = (stopwatch.summary(each[:, i] / taken[base][:, i]) for i in (0, 1))
        rows.append({
            "name": name, "seconds": float(np.median(each[:, 0])), "ratio": ratio["median"],
            "low": ratio["q25"], "high": ratio["q75"], "cpu_ratio": cpu["median"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def compared(study: str, part: str, epsilon: float) -> Iterator[tuple[str, Settings]]:
    """Yields every arm of a study that trains so, ERM first: its name, and how."""
    data = linked_phantom(quick=False)
    run = next(own for own in STUDIES[study](False).parts if own.name == part)
    for arm in ARMS[study]:
        if part in arm.skip or (arm.private and math.isfinite(epsilon)):
            continue
        cell = Cell(arm.name, epsilon, 0, 1)
        yield arm.name, settings_from_config(config(data, run, cell, arm, arm.settings[0]))


def steps_of(settings: Settings) -> list[Step]:
    """Returns a step of every stage of a run."""
    first = assembly_of(settings, make_mesh(1))
    ends = ends_of(first.method, settings.train.steps)
    lengths = np.diff([0, *ends])
    stages = stages_of(first, assemble)
    return [
        Step(length / settings.train.steps, stage.made_up_update())
        for length, stage in zip(lengths, stages, strict=True)
    ]


def main(argv: Sequence[str]) -> int:
    """Measures and prints; returns 0."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="a CSV file; left out: none is written")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--part", choices=PARTS, help="this alone; left out: both")
    chosen = parser.parse_args(list(argv))
    keep_compilations()
    parts = (chosen.part,) if chosen.part else PARTS
    tables = []
    for study, part, epsilon in itertools.product(STUDIES, parts, (PLAIN, EPSILON)):
        tables.append(measured(study, part, epsilon, rounds=chosen.rounds))
        print(markdown(tables[-1]), flush=True)
        if chosen.out is not None:
            files.write_table(chosen.out, pd.concat(tables, ignore_index=True).round(4))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
