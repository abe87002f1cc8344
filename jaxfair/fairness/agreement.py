"""Rows and runs that contradict each other are refused before anything is computed of them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.schema import ATTRIBUTES, UNKNOWN

__all__ = ["check_images", "check_runs"]

_OF_AN_IMAGE = ("patient_id", *ATTRIBUTES)


def check_images(tables: Sequence[pd.DataFrame], runs: Sequence[str] = ("",)) -> None:
    """Refuses images of which two rows say different things.

    An image has one patient, sex, age group and view, and one label for each task, in whatever
    split, table or run it stands; unknown contradicts nothing.

    Args:
      tables: checked rows, one table or one per run.
      runs: their names, for the sentence.

    Raises:
      InputError: with the image, the column and both values.
    """
    if len(tables) == 1 and tables[0]["image_id"].is_unique:
        return
    _one_value(tables, runs, ["image_id", "task"], "y_true")
    for column in _OF_AN_IMAGE:
        _one_value(tables, runs, ["image_id"], column)


def check_runs(tables: Sequence[pd.DataFrame], runs: Sequence[str]) -> None:
    """Refuses runs that contradict each other, and one run given as two.

    Args:
      tables: checked rows of each run.
      runs: their names, for the sentence.

    Raises:
      InputError: as `check_images`; or two runs have the same scores for all test images of a
        task. Scores that are all equal are those of a model that learned nothing, and may be.
    """
    check_images(tables, runs)
    seen: dict[tuple, str] = {}
    for table, run in zip(tables, runs, strict=True):
        for task, rows in table[table["split"] == "test"].groupby("task"):
            rows = rows.sort_values("image_id")
            key = (task, tuple(rows["image_id"]), rows["y_score"].to_numpy(float).tobytes())
            if key in seen and np.ptp(rows["y_score"]) > 0:
                raise InputError(
                    f"{seen[key]} and {run} have the same score for every image of task {task!r}:"
                    " they are one run; give each run, or seed, once."
                )
            seen[key] = run


def _one_value(
    tables: Sequence[pd.DataFrame], runs: Sequence[str], key: list[str], column: str
) -> None:
    parts = [
        table[[*key, column]].drop_duplicates().assign(_run=run)
        for table, run in zip(tables, runs, strict=True)
        if column in table
    ]
    if not parts:
        return
    both = pd.concat(parts, ignore_index=True)
    both = both[both[column].ne(UNKNOWN) & both[column].notna()]
    both = both.drop_duplicates([*key, column])
    twice = both[both.duplicated(key)]
    if twice.empty:
        return
    last = twice.iloc[0]
    first = both[(both[key] == last[key]).all(axis=1)].iloc[0]
    task = f" for task {last['task']!r}" if "task" in key else ""
    one, other = (
        f"{_plain(row[column])}{f' in {row._run}' if row._run else ''}" for row in (first, last)
    )
    raise InputError(
        f"Image {last['image_id']!r} has {column} {one} and {other}{task} ({len(twice)} such"
        " images); an image has one, so mend the table, or name different images differently."
    )


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
