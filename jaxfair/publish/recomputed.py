"""Whether the tables of a release are what its noisy histograms say."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.files import read_json
from jaxfair.privacy.publication import STATEMENT
from jaxfair.privacy.queries import Query
from jaxfair.privacy.strategy import covariance
from jaxfair.publish.asking import Histogram, question
from jaxfair.publish.release import histogram_rows, tables

__all__ = ["check_tables"]

_SLACK = {"patients": 0.11, "noise_sd_patients": 0.11}
_SLACK_OF_OTHERS = 1.1e-4
"""By how much a number may differ: one of its last digit, which is rounded."""
_TOLD = 3
"""Cells that are named, of those that differ."""


def check_tables(folder: pathlib.Path) -> list[str]:
    """Returns what in tables.csv does not follow from histograms.csv, one sentence each.

    Nothing in a table is drawn: every value, interval, correction and reason is computed again from
    the noisy counts, the noise and the minimum of the statement, and compared to one of its last
    digit; so is what histograms.csv says of the noise. The page is not read: its numbers are those
    of tables.csv, rounded once more.

    Args:
      folder: of a release in which `check_release` finds no fault.
    """
    try:
        told = read_json(folder / STATEMENT)
        histograms = _histograms(folder, told)
        wanted = {
            "histograms.csv": histogram_rows(histograms),
            "tables.csv": tables(histograms, minimum=told["minimum"]),
        }
        faults = [f for name, table in wanted.items() for f in _faults(folder / name, table)]
    except InputError as error:
        return [str(error)]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return [f"what follows from histograms.csv cannot be computed again: {error!r}"]
    more = [f"{len(faults) - _TOLD} further cells differ"]
    return faults[:_TOLD] + (more if len(faults) > _TOLD else [])


def _read(path: pathlib.Path) -> pd.DataFrame:
    """A table as text, since a group may be called NA."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _numbers(column: pd.Series) -> np.ndarray:
    return column.replace("", "nan").to_numpy(float)


def _histograms(folder: pathlib.Path, told: Mapping[str, Any]) -> dict[str, dict[str, Histogram]]:
    """label -> attribute -> noisy histogram, with the noise that the statement names."""
    asked = [Query(q["name"], q["sensitivity"], q["noise_multiplier"])
             for q in told["queries"]["tests"]]  # fmt: skip
    noise = {query.name: query.noise_stddev for query in asked}
    found: dict[str, dict[str, Histogram]] = {}
    rows = _read(folder / "histograms.csv")
    for names, part in rows.groupby(["task", "attribute"], sort=False):
        task, attribute = map(str, names)
        groups = tuple(part["group"].unique())
        counts = _numbers(part["patients"]).reshape(len(groups), 2, -1)
        first = part.iloc[: counts.shape[2]]
        at = int((first["positive"] != "True").sum())
        spread = noise[question(task, attribute)] ** 2 * covariance(counts.shape[2])
        made = Histogram(counts, spread, groups, _numbers(first["low"])[1:], at)
        found.setdefault(task, {})[attribute] = made
    return found


def _faults(path: pathlib.Path, wanted: pd.DataFrame) -> Iterator[str]:
    """A sentence for each cell of a file that is another."""
    found = _read(path)
    if list(found) != list(wanted) or len(found) != len(wanted):
        yield f"{path.name} has other rows or columns than follow from its noisy counts"
        return
    for name in map(str, wanted):
        mine, theirs = found[name], wanted[name].to_numpy()
        if theirs.dtype.kind in "if":
            slack = _SLACK.get(name, _SLACK_OF_OTHERS)
            same = np.isclose(_numbers(mine), theirs, rtol=1e-9, atol=slack, equal_nan=True)
        else:
            same = mine.to_numpy(str) == theirs.astype(str)
        for place in np.flatnonzero(~same):
            row = wanted.iloc[place]
            what = row["metric"] if "metric" in wanted else f"label {row['label']} bin {row['bin']}"
            yield (
                f"{path.name}: {name} of {what} of {row['attribute']} {row['group']} is "
                f"{mine.iloc[place]!r}, recomputed {theirs[place]}"
            )
