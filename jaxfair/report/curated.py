"""What a report says of a table whose disparity was made larger."""

import pandas as pd

from jaxfair.files import slug
from jaxfair.report.cells import Number
from jaxfair.report.content import Block, Table, Text
from jaxfair.report.single import Run

__all__ = ["curation_blocks"]

RATES = ("toward", "rest", "gap")


def curation_blocks(run: Run) -> list[Block]:
    """Positive rates before and after the curation, by split; [] where nothing was dropped."""
    rates, rule = run.card.get("curation"), run.card.get("split_rule", {})
    if not rates:
        return []
    lines = [{"when": when} | line for when in ("before", "after") for line in rates[when]]
    data = pd.DataFrame(lines)[["when", "split", "attribute", "images", *RATES]]
    shown = data.copy()
    for name in RATES:
        shown[name] = data[name].map(Number)
    told = (
        f"Images were dropped from {' and '.join(rule['curate_splits'])} so that"
        f" {rule['curate_label']} is more frequent in some groups (data.curate {rule['curate']!r})."
    )
    if "test" in rule["curate_splits"]:
        told += (
            " The scores are of this distribution: score the run again with data.curate='' for the"
            " original one."
        )
    title = "Positive rates before and after, from the data card; not covered by privacy"
    return [Text(told), Table(f"{slug(run.name)}.curation", shown, title, data=data, heads=3)]
