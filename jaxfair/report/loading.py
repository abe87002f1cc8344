"""Runs from where they lie: a run folder, or anyone's table of predictions."""

import os
import pathlib
from typing import Any

import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness import questions
from jaxfair.fairness import table as fairness
from jaxfair.fairness.groups import attribute_names
from jaxfair.fairness.predictions import ATTRIBUTES
from jaxfair.fairness.reading import Reading, open_predictions
from jaxfair.files import read_json
from jaxfair.report.single import Run
from jaxfair.tables import numbers, read_table
from jaxfair.tables.values import text_of

__all__ = ["load_run", "run_from_predictions"]


def load_run(path: str | os.PathLike[str]) -> Run:
    """Reads a run folder.

    Raises:
      InputError: if the folder, privacy.json or predictions.parquet is missing: no header, no
        table.
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}; give the --workdir of a run.")
    for name, maker in (("privacy.json", "train"), ("predictions.parquet", "evaluate")):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} has no {name}, without which there is no report; run"
                f" `python -m jaxfair.{maker}` on it first."
            )
    read = open_predictions(folder / "predictions.parquet", one_label=True)
    predictions = read.rows
    thresholds = _read(folder / "thresholds.json") or fairness.fit_thresholds(predictions)
    stored, site = folder / "fairness.csv", _read(folder / "site.json")
    return Run(
        name=text_of(folder.resolve().name) or "run",
        path=folder,
        predictions=predictions,
        fairness=_stored(stored)
        if stored.is_file()
        else fairness.fairness_table(predictions, thresholds=thresholds),
        privacy=_read(folder / "privacy.json"),
        config=site.get("config") or _read(folder / "config.json"),
        env=site.get("env") or _read(folder / "env.json"),
        card=_read(folder / "data_card.json"),
        thresholds=thresholds,
        model=_read(folder / "model.json"),
        remarks=_remarks(read),
        site=site,
        leakage=_leakage(folder / "leakage.csv"),
        scales=_read(folder / "scales.json"),
    )


def run_from_predictions(
    path: str | os.PathLike[str],
    groups: list[str] | None = None,
    *,
    seed: int = 0,
    n_bootstrap: int = 2000,
) -> Run:
    """Reads anyone's predictions (see `predictions.checked` for the columns) as a run.

    Args:
      path: a table (see `tables.read_table`).
      groups: attributes to report on; None takes the usual ones that are there.
      seed, n_bootstrap: of the intervals.
    """
    read = open_predictions(path)
    table = read.rows
    if groups is None:
        groups = [a for a in ATTRIBUTES if set(a.split(" x ")) <= set(table.columns)]
    groups = attribute_names(groups, table)
    thresholds = fairness.fit_thresholds(table, attributes=groups)
    rows = fairness.fairness_table(
        table, thresholds=thresholds, attributes=groups, seed=seed, n_bootstrap=n_bootstrap
    )
    where = pathlib.Path(path)
    said = _remarks(read)
    return Run(text_of(where.name), where, table, rows, None, {}, {}, {}, thresholds, remarks=said)


def _remarks(read: Reading) -> tuple[str, ...]:
    aside = [f"Label {task!r} is left out: {reason}" for task, reason in read.aside.items()]
    return (*aside, *read.remarks)


def _stored(path: pathlib.Path) -> pd.DataFrame:
    """fairness.csv as it was written; an older one does not say what its intervals cover."""
    *older, covers = fairness.COLUMNS
    table = read_table(path, required=older)
    words = (*older[: older.index("value")], covers)
    for name in table.columns.difference(list(words)):
        table[name] = numbers(table[name], where=str(path))
    table = table.assign(**{covers: table.get(covers, "")})
    return table.astype(dict.fromkeys(("n", "n_images", "n_positive"), int))


def _leakage(path: pathlib.Path) -> pd.DataFrame | None:
    """leakage.csv as it was written; None where the run was not probed."""
    if not path.is_file():
        return None
    table = read_table(path, required=questions.COLUMNS)
    for name in questions.NUMBERS:
        table[name] = numbers(table[name], where=str(path))
    return table


def _read(path: pathlib.Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
