"""What a step costs under each clip rule, over the step of plain DP-SGD beside it.

    python -m experiments.e08_mitigation.cost                 # prints a table
    python -m experiments.e08_mitigation.cost --out cost.csv --rounds 15

Each round takes one step of every rule in turn, on made-up examples of the autoencoder and of the
classifier on features as the study trains them; a ratio is within a round, so that a neighbour's
load falls on all alike, and the second column is of processor time. Goals: 1.15, and 1.3 for
group_dro, which needs each loss once more.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from experiments.arms.cost import beside
from experiments.arms.tables import markdown
from experiments.e08_mitigation.arms import BASE, arms_of
from experiments.gaps.sets import drawn_films, drawn_findings
from experiments.gaps.trainings import config_of
from jaxfair import files
from jaxfair.benchmark import stopwatch
from jaxfair.config import Settings, settings_from_config
from jaxfair.engine.compiling import keep_compilations
from jaxfair.engine.mesh import make_mesh
from jaxfair.methods.mitigations.catalog import clip_rule
from jaxfair.start import assembly_of

__all__ = ["compared", "main", "measured"]

WORKS = {"fae": drawn_films, "classifier": drawn_findings}
SECONDS = 600.0
"""For each work, after which no further round begins (but three there are)."""


def measured(method: str, *, size: str = "default", rounds: int) -> pd.DataFrame:
    """Returns a row for each clip rule: work, rule, seconds of a step, ratio, low, high, cpu_ratio.

    Ratios to plain DP-SGD of the same round: median, quartiles, and the median of processor time.

    Args:
      method: key of WORKS.
      size: of the study.
      rounds: of which each has a step of every rule.
    """
    taken = stopwatch.interleaved(dict(_steps(method, size)), rounds=rounds, seconds=SECONDS)
    table = beside(taken, BASE).rename(columns={"name": "rule"})
    table.insert(0, "work", method)
    return table


def compared(method: str, size: str) -> Iterator[tuple[str, Settings]]:
    """Yields plain DP-SGD and every mitigation with a clip rule: its name, and how it trains."""
    source = WORKS[method](size)
    for arm in arms_of(source, method, size)[0]:
        config = config_of(
            "cost", method, source.section, epsilon=8.0, seed=1, size=size,
            mitigation=arm.mitigation[0], changes=arm.changes[0],
        )  # fmt: skip
        settings = settings_from_config(config)
        if arm.name == BASE or clip_rule(settings.mitigation_name, settings.mitigation) is not None:
            yield arm.name, settings


def _steps(method: str, size: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yields the same with a step on made-up examples."""
    for name, settings in compared(method, size):
        yield name, assembly_of(settings, make_mesh(1)).made_up_update()


def main(argv: Sequence[str]) -> int:
    """Measures and prints; returns 0."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="a CSV file; left out: none is written")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--method", choices=tuple(WORKS), help="this alone; left out: all")
    chosen = parser.parse_args(list(argv))
    keep_compilations()
    works = [chosen.method] if chosen.method else list(WORKS)
    table = pd.concat([measured(name, rounds=chosen.rounds) for name in works], ignore_index=True)
    print(markdown(table))
    if chosen.out is not None:
        files.write_table(chosen.out, table.round(4))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
