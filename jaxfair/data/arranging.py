"""A prepared table with its labels and splits, by the rules of a config."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data import composing, curation, splits
from jaxfair.data.config import DataConfig
from jaxfair.data.sources.catalog import SOURCES

__all__ = ["arrange", "moved_rates"]


def arrange(table: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """Adds `label_<task>`, `split` and `also_test` to a prepared table by the config's rules.

    An image has no split where none of the config's tasks was asked, or where its view is not
    among `data.views`, or where the curation drops it. One that would train has
    none either where the composition lets it go.

    Raises:
      InputError: the rule cannot be applied to this table.
    """
    table = table.drop(columns=["split", "also_test"], errors="ignore")
    table = SOURCES[config.source].label(table, config.options)
    split, also_test = splits.assign(table, config.splits)
    asked = table[[f"label_{task}" for task in config.tasks]].notna().any(axis=1)
    if config.views:
        asked &= table["view"].isin(config.views)
    split = np.where(asked, split, "").astype(object)
    split = curation.curated(table, split, config.curation)
    table.insert(2, "split", composing.composed(table, split, config.composition, config.listed))
    return table.assign(also_test=also_test)


def moved_rates(rows: pd.DataFrame, table: pd.DataFrame, config: DataConfig) -> dict[str, Any]:
    """Positive rates before and after the curation, for the data card.

    Args:
      rows: the prepared table.
      table: what `arrange` made of it.
      config: with the curation.

    Returns:
      {"curation": {"before": lines, "after": lines}} of `curation.positive_rates`; {} where nothing
      is dropped.
    """
    how = config.curation
    if not how.curate:
        return {}
    whole = arrange(rows, dataclasses.replace(config, curation=curation.CurationConfig()))
    tables = {"before": whole, "after": table}
    return {"curation": {name: curation.positive_rates(t, how) for name, t in tables.items()}}
