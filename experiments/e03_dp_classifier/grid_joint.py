"""What a table of runs costs that share people: each column, and all that it publishes together.

    python -m experiments.e03_dp_classifier.grid_joint results/privacy.json [MORE/privacy.json]

reads the statements that `grid.py` writes, so that stored results can be priced again.
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from jaxfair.privacy.accounting import Event
from jaxfair.privacy.study import Fold, Trained, joint_cost

ALL = "all columns"


def joint_table(statements: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Returns columns epsilon, runs, own (the largest of its runs) and joint (of all of them).

    A row per epsilon that was asked for, and one of everything that is published together. Folds
    cut by a hash of the person leave each out of one training; seeds are runs like others. Runs
    without privacy have no price and protect nobody, and stand in no row.
    """
    private = [told for told in statements if told["epsilon"] is not None]
    asked = {told["run"]: _marks(told)["epsilon"] for told in private}
    names = sorted(set(asked.values()), key=float)
    rows = [_row(name, [told for told in private if asked[told["run"]] == name]) for name in names]
    if len(rows) > 1:
        rows.append(_row(ALL, private))
    return pd.DataFrame(rows, columns=["epsilon", "runs", "own", "joint"])


def markdown(table: pd.DataFrame) -> str:
    """Returns the table as text, with what it means."""
    lines = ["| epsilon | runs | of each run | of all of them |", "|---|---|---|---|"]
    lines += [
        f"| {row.epsilon} | {row.runs} | {row.own:.3g} | {row.joint:.3g} |"
        for row in table.itertuples()
    ]
    return "\n".join(lines)


def _row(name: str, told: Sequence[Mapping[str, Any]]) -> tuple[str, int, float, float]:
    delta = min(one["delta"] for one in told)
    joint = joint_cost([_trained(one) for one in told], delta)
    return name, len(told), max(one["epsilon"] for one in told), joint


def _trained(told: Mapping[str, Any]) -> Trained:
    event = Event(told["sampling_prob"], told["noise_multiplier"], told["steps"])
    folds, mark = told["folds"], _marks(told).get("fold")
    if folds is None or mark is None:
        return Trained((event,))
    return Trained((event,), Fold(("folds", folds), folds, int(mark)))


def _marks(told: Mapping[str, Any]) -> dict[str, str]:
    """epsilon, fold and seed from the name of a run."""
    return dict(part.split("-", 1) for part in told["run"].split("_"))


if __name__ == "__main__":
    read = [json.loads(pathlib.Path(path).read_text()) for path in sys.argv[1:]]
    print(markdown(joint_table([told for part in read for told in part])))
