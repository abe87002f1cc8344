"""The section on who is in the tables, and who is not."""

import numpy as np
import pandas as pd

from jaxfair.fairness.groups import group_labels, natural
from jaxfair.files import slug
from jaxfair.report.content import Block, Section, Table, Text
from jaxfair.report.curated import curation_blocks
from jaxfair.report.single import Run
from jaxfair.schema import UNKNOWN

__all__ = ["population"]


def population(run: Run) -> Section:
    """Returns who was scored, by split and group, who is unknown, and who was set aside."""
    rows = run.predictions
    keys = ["task", "split", "y_true"]
    counts = rows.groupby(keys).agg(images=("image_id", "size"), patients=("patient_id", "nunique"))
    table = counts.reset_index().rename(columns={"y_true": "label"})
    table["label"] = np.where(table["label"] == 1, "positive", "negative")
    blocks: list[Block] = [
        Table(f"{slug(run.name)}.flow", table, "Scored images and patients", heads=3)
    ]
    blocks += [Text(line) for line in (*run.remarks, *_unknown(run))]
    for attribute in run.attributes:
        if " x " not in attribute and attribute in rows:
            shares = _by_split(rows, attribute)
            blocks.append(
                Table(f"{slug(run.name, attribute)}.by_split", shares, f"Patients by {attribute}")
            )
    blocks.extend([*_card(run), *curation_blocks(run)])
    return Section(f"{run.title()}: population and flow", blocks, folded=True)


def _by_split(rows: pd.DataFrame, attribute: str) -> pd.DataFrame:
    labels = pd.Series(group_labels(rows, attribute), rows.index, dtype=object)
    counts = rows.groupby([labels, rows["split"]])["patient_id"].nunique().unstack(fill_value=0)
    return (
        counts.add_prefix("patients, ").rename_axis("group").sort_index(key=_natural).reset_index()
    )


def _natural(groups: pd.Index) -> pd.Index:
    order = sorted(groups, key=natural)
    return pd.Index([order.index(group) for group in groups])


def _unknown(run: Run) -> list[str]:
    """How many images have no group, for each attribute that is a column."""
    images = run.predictions.drop_duplicates("image_id")
    counts = {
        name: int((group_labels(images, name) == UNKNOWN).sum())
        for name in run.attributes
        if " x " not in name
    }
    return [
        f"{name} is {UNKNOWN} for {n} of {len(images)} images, which are a group of their own."
        for name, n in counts.items()
        if n
    ]


def _card(run: Run) -> list[Block]:
    """Who was excluded and why, and what is missing, from data_card.json."""
    if not run.card:
        return [Text("No data card lies in the run folder: exclusions are not known here.")]
    rejected = run.card.get("rejected", {})
    rows = [(f"set aside: {why}", n) for why, n in rejected.get("by_reason", {}).items()]
    rows += [(f"{what} unknown", n) for what, n in run.card.get("missing", {}).items()]
    head = [("images kept", run.card.get("images")), ("patients", run.card.get("patients"))]
    table = pd.DataFrame([*head, *rows], columns=["what", "count"])
    title = "From the data card; not covered by privacy"
    return [Table(f"{slug(run.name)}.card", table, title)]
