"""The report's sections, from runs: what is said, in which order."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxfair import plots
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.groups import OVERALL
from jaxfair.report_content import Block, Image, Plot, Section, Table, Text
from jaxfair.report_run import Run

__all__ = ["headline_table", "sections"]


def sections(runs: Sequence[Run], *, with_images: bool = False) -> list[Section]:
    """Returns the report of one run, or of several side by side."""
    first = [_heading(runs)]
    for run in runs:
        for task in run.tasks:
            first.append(_headline(run, task))
            first.extend(_plots(run, task))
        first.extend(_images(run, with_images))
    return first


def headline_table(run: Run, task: str) -> pd.DataFrame:
    """Returns the table that a clinician reads first, as numbers, one row per group."""
    rows = run.fairness[run.fairness["task"] == task]
    keys = ["attribute", "group"]
    wide = rows.pivot_table(
        index=keys,
        columns="metric",
        values=["value", "ci_low", "ci_high"],
        sort=False,
        dropna=False,
    )
    counts = rows.drop_duplicates(keys).set_index(keys)[["n", "n_images", "n_positive"]]
    table = counts.join(_flat(wide)).reset_index()
    return table.assign(too_few=[_too_few(run, task, *key) for key in table[keys].to_numpy()])


def _heading(runs: Sequence[Run]) -> Section:
    blocks: list[Block] = []
    for run in runs:
        if len(runs) > 1:
            blocks.append(Text(run.title(), strong=True))
        blocks.extend(Text(line, strong=i == 0) for i, line in enumerate(run.statement()))
    names = ", ".join(run.name for run in runs)
    title = f"Fairness report: {names}"
    return Section(f"PHANTOM data. {title}" if any(r.phantom for r in runs) else title, blocks)


def _headline(run: Run, task: str) -> Section:
    numbers = headline_table(run, task)
    shown = pd.DataFrame(
        {
            "group": [_name(a, g) for a, g in numbers[["attribute", "group"]].to_numpy()],
            "patients": numbers["n"],
            "positives": numbers["n_positive"],
            "prevalence": _cells(numbers, "prevalence"),
            "AUROC [95 %]": _cells(numbers, "auroc", interval=True),
            "sensitivity": _cells(numbers, "sensitivity", interval=True),
            "specificity": _cells(numbers, "specificity", interval=True),
            "missed per 1,000": _cells(numbers, "missed_per_1000", digits=0),
            "PPV": _cells(numbers, "ppv"),
            "note": np.where(numbers["too_few"], "too few", ""),
        }
    )
    name = f"{_slug(run.name)}_{_slug(task)}_headline"
    title = f"{run.title()}, {task}: results by group on the test patients"
    return Section(title, [Table(name, shown, data=numbers)])


def _plots(run: Run, task: str) -> list[Section]:
    rows, threshold = run.rows(task), run.thresholds.get(task, {}).get("youden")
    found = []
    for attribute in run.attributes:
        stem = f"{_slug(run.name)}_{_slug(task)}_{_slug(attribute)}"
        roc = plots.roc_by_group(rows, attribute)
        scores = plots.histogram_by_group(rows, attribute, threshold)
        blocks = [
            Plot(f"{stem}_roc", roc, f"ROC curves by {attribute}"),
            Plot(f"{stem}_scores", scores, f"Scores of normal and abnormal images by {attribute}"),
        ]
        found.append(Section(f"{run.title()}, {task}: by {attribute}", blocks))
    return found


def _images(run: Run, with_images: bool) -> list[Section]:
    maps = sorted((run.path / "maps").glob("*.png")) if run.path.is_dir() else []
    if not maps or not (with_images or run.phantom):
        return []
    kind = "PHANTOM images" if run.phantom else "Images of patients: do not pass on"
    blocks: list[Block] = [Text(kind, strong=True)]
    for path in maps:
        blocks.append(Image(f"{_slug(run.name)}_{path.stem}", path.read_bytes(), path.stem))
    return [Section(f"{run.title()}: anomaly maps", blocks)]


def _too_few(run: Run, task: str, attribute: str, group: str) -> bool:
    if attribute == OVERALL:
        return False
    return group in GroupFrame(run.rows(task), attribute).too_few


def _flat(wide: pd.DataFrame) -> pd.DataFrame:
    ends = {"value": "", "ci_low": "_low", "ci_high": "_high"}
    return wide.set_axis([f"{key[1]}{ends[key[0]]}" for key in wide.columns.tolist()], axis=1)


def _cells(
    table: pd.DataFrame, metric: str, *, interval: bool = False, digits: int = 3
) -> list[str]:
    found = []
    for _, row in table.iterrows():
        value = row.get(metric, np.nan)
        text = "undefined" if np.isnan(value) else f"{value:.{digits}f}"
        low, high = row.get(f"{metric}_low", np.nan), row.get(f"{metric}_high", np.nan)
        known = interval and np.isfinite([value, low, high]).all()
        found.append(f"{text} [{low:.{digits}f}, {high:.{digits}f}]" if known else text)
    return found


def _name(attribute: str, group: str) -> str:
    return "all" if attribute == OVERALL else f"{attribute}: {group}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
