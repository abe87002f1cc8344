"""The section on scores that were brought to one scale for all groups, from scales.json alone."""

import numpy as np
import pandas as pd

from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.normal_scores import on_one_scale
from jaxfair.fairness.rules import fit_threshold
from jaxfair.files import slug
from jaxfair.report.cells import Number, Quiet
from jaxfair.report.content import Section, Table, Text
from jaxfair.report.views import TaskView

__all__ = ["scale_section"]

_WORDS = (
    "False alarms: test images without the finding at or above one threshold, fitted on validation"
    " (Youden) before and after. A group's own AUROC is the same before and after."
)


def scale_section(view: TaskView) -> Section | None:
    """Returns what one scale does to the false alarms of each group; None without scales.json."""
    told = view.run.scales.get(view.task)
    if not told:
        return None
    table = _alarms(view, told)
    attribute = told["attribute"]
    what = (
        f"In calibrated.parquet the scores of each group of {attribute} stand on one scale, that of"
        " all images without the finding. Whoever uses it must know a patient's"
        f" {attribute} at test time, and then treats patients by it. It was fitted to validation"
        " images, whose patients the guarantee of training does not cover. Everything else in this"
        " report is of the scores as they were."
    )
    name = slug(view.run.name, view.task)
    return Section(
        f"{view.run.title()}, {view.task}: scores on one scale for each group of {attribute}",
        [Text(what), Table(f"{name}.one_scale", table, f"False alarms by {attribute}", _WORDS)],
        folded=True,
    )


def _alarms(view: TaskView, told: dict) -> pd.DataFrame:
    own = view.run.predictions[view.run.predictions["task"] == view.task]
    both = (own, on_one_scale(own, {view.task: told}))
    found = [_rates(table, told["attribute"]) for table in both]
    hidden = GroupFrame(view.rows, told["attribute"]).hidden
    rows = []
    for group, known in told["groups"].items():
        shown = [
            Quiet("too few") if group in hidden else Number(rates.get(group, np.nan))
            for rates in found
        ]
        scale = "its own" if known["own"] else "as it was: too few, or scores tie"
        rows.append((group, known["n"], scale, *shown))
    names = ["group", "validation images without the finding", "scale", "false alarms before"]
    return pd.DataFrame(rows, columns=[*names, "false alarms after"])


def _rates(table: pd.DataFrame, attribute: str) -> dict[str, float]:
    """The share of each group's test negatives at or above the threshold of validation."""
    held, test = (table[table["split"] == split] for split in ("validation", "test"))
    threshold = fit_threshold(held["y_true"], held["y_score"], "youden")
    if np.isnan(threshold):
        return {}
    frame = GroupFrame(test[test["y_true"] == 0].reset_index(drop=True), attribute)
    return {
        str(group): float((frame.rows["y_score"][frame.labels == group] >= threshold).mean())
        for group in frame.groups
    }
