"""The tables of README.md, made from results/study.csv.

The page holds each table between `<!-- NAME -->` and `<!-- end -->`; what stands there is
replaced, so no number is copied by hand.
"""

import re
from collections.abc import Mapping

import pandas as pd
from study_design import Scenario


def table(name: str, rows: pd.DataFrame, scenarios: Mapping[str, Scenario]) -> str:
    """Returns one table: scenarios down, outcomes across; bold misses its goal.

    A scenario without rows says so, so that no page looks finished that is not.
    """
    chosen = [key for key, scenario in scenarios.items() if scenario.table == name]
    rows = rows[rows["scenario"].isin(chosen)]
    outcomes = list(dict.fromkeys(rows["outcome"]))
    shares = rows.set_index(["scenario", "outcome"])["share"]
    lines = [["design", *outcomes, "repeats"], ["---"] * (len(outcomes) + 2)]
    for key in chosen:
        if key not in set(rows["scenario"]):
            lines.append([scenarios[key].title, *[""] * len(outcomes), "not run"])
            continue
        cells = [
            _cell(shares[key, outcome], scenarios[key].goal(outcome))
            if (key, outcome) in shares
            else ""
            for outcome in outcomes
        ]
        repeats = int(rows.loc[rows["scenario"] == key, "repeats"].iloc[0])
        lines.append([scenarios[key].title, *cells, f"{repeats:,}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def missed(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the outcomes whose share lies outside its goal."""
    outside = (rows["share"] < rows["goal_low"]) | (rows["share"] > rows["goal_high"])
    return rows[outside]


def filled(page: str, rows: pd.DataFrame, scenarios: Mapping[str, Scenario]) -> str:
    """Returns the text of a page with every table made anew."""

    def made(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{table(found[1], rows, scenarios)}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", made, page, flags=re.DOTALL)


def _cell(share: float, goal: tuple[float, float] | None) -> str:
    text = f"{share:.3f}".removeprefix("0")
    return f"**{text}**" if goal and not goal[0] <= share <= goal[1] else text
