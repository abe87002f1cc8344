"""Do the tests and intervals of jaxfair.fairness hold what they promise? Measured by simulation.

    python experiments/e02_fairness_study/study.py                # 2,000 repeats, all scenarios
    python experiments/e02_fairness_study/study.py --repeats 400 --only two_groups

Every repeat r of scenario k draws from default_rng([2026, k, r]), fixed before any run, so that
the shares do not depend on the number of processes. Scenarios that are run replace their rows
in results/study.csv, others stay; then the tables of README.md are written from that file
(`--check` compares them and runs nothing).
"""

import argparse
import concurrent.futures
import itertools
import multiprocessing
import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import threadpoolctl

HERE = pathlib.Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

import study_contrasts  # noqa: E402
import study_gaps  # noqa: E402
import study_intervals  # noqa: E402
import study_tables  # noqa: E402
from study_design import Scenario, sample  # noqa: E402

from jaxfair.files import write_table, write_text  # noqa: E402

RESULTS, PAGE = HERE / "results", HERE / "README.md"

__all__ = ["COVERAGE", "SCENARIOS", "run", "sample"]

MODULES = (study_gaps, study_contrasts, study_intervals)
"""Each has SCENARIOS, {name: Scenario}; a new design is a module and its place here."""

SCENARIOS: dict[str, Scenario] = {k: s for module in MODULES for k, s in module.SCENARIOS.items()}
COVERAGE = study_intervals.EQUAL


def run(
    repeats: int, only: list[str] | None = None, processes: int = 1, **options: int
) -> pd.DataFrame:
    """Returns the share of repeats of each outcome, with its standard error and its goal.

    `only` names scenarios; `options` go to each of them, such as the number n of permutations.
    """
    names = [name for name in SCENARIOS if not only or name in only]
    if processes == 1:
        return pd.concat([_rows(n, [_some(n, 0, _of(n, repeats), options)]) for n in names])
    with concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn")
    ) as pool:
        jobs = {n: [pool.submit(_some, n, *part, options) for part in _cut(n, repeats, processes)]
                for n in names}  # fmt: skip
        return pd.concat([_rows(n, [job.result() for job in jobs[n]]) for n in names])


def _of(name: str, repeats: int) -> int:
    return max(int(repeats * SCENARIOS[name].part), 1)


def _cut(name: str, repeats: int, processes: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, _of(name, repeats), 4 * processes + 1).astype(int).tolist()
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b]


def _some(name: str, start: int, stop: int, options: dict[str, int]) -> tuple[pd.DataFrame, float]:
    """Repeats start..stop-1 of a scenario, and the seconds that they took."""
    begun, one = time.perf_counter(), SCENARIOS[name].one
    with threadpoolctl.threadpool_limits(1):
        found = [one(name, repeat, **options) for repeat in range(start, stop)]
    return pd.DataFrame(found).astype(float), time.perf_counter() - begun


def _rows(name: str, parts: list[tuple[pd.DataFrame, float]]) -> pd.DataFrame:
    drawn = pd.concat([part for part, _ in parts])
    seconds = round(sum(taken for _, taken in parts), 1)
    print(f"{name}: {drawn.mean().round(4).to_dict()} in {seconds} s", flush=True)
    goals = [SCENARIOS[name].goal(outcome) or (np.nan, np.nan) for outcome in drawn.columns]
    return pd.DataFrame(
        {
            "scenario": name,
            "outcome": drawn.columns,
            "share": drawn.mean().to_numpy(),
            "standard_error": drawn.std(ddof=0).to_numpy() / np.sqrt(len(drawn)),
            "repeats": len(drawn),
            "goal_low": [low for low, _ in goals],
            "goal_high": [high for _, high in goals],
            "seconds": seconds,
        }
    )


def joined(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Returns both, the new rows in place of the old of their scenarios, in SCENARIOS' order."""
    kept = old[old["scenario"].isin(SCENARIOS) & ~old["scenario"].isin(new["scenario"])]
    both = pd.concat([kept, new], ignore_index=True)
    order = {name: i for i, name in enumerate(SCENARIOS)}
    return both.sort_values("scenario", key=lambda names: names.map(order), kind="stable")


def main(argv: Sequence[str]) -> int:
    """Returns 0; with --check 1 where the page differs from the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--only", nargs="*", choices=list(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--check", action="store_true", help="compare the page alone, run nothing")
    chosen = parser.parse_args(list(argv))
    stored = chosen.out / "study.csv"
    if not chosen.check:
        table = run(chosen.repeats, chosen.only, chosen.processes)
        table = joined(pd.read_csv(stored), table) if stored.is_file() else table
        write_table(stored, table)
        late = study_tables.missed(table)[["scenario", "outcome", "share"]]
        print("Goals missed: " + ("none" if late.empty else "\n" + late.to_string(index=False)))
    return _page(chosen.check) if chosen.out == RESULTS else 0


def _page(check: bool) -> int:
    text = PAGE.read_text(encoding="utf-8")
    new = study_tables.filled(text, pd.read_csv(RESULTS / "study.csv"), SCENARIOS)
    if new != text:
        print(f"{PAGE.name} {'differs from the results' if check else 'is written'}")
        if not check:
            write_text(PAGE, new)
    return int(check and new != text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
