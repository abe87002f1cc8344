"""Labels and splits of a prepared table, by the rule that the config names."""

from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data import manifest, subset
from jaxfair.data.config import SOURCES, DataConfig
from jaxfair.errors import InputError

__all__ = ["arrange", "split_rule"]


def arrange(table: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """Adds `label_<task>`, `split` and `also_test` to a prepared table by the config's rule.

    An image has no split where none of the config's tasks was asked, or where its view is not
    among `data.views`.

    Raises:
      InputError: the rule cannot be applied to this table.
    """
    table = table.drop(columns=["split", "also_test"], errors="ignore")
    table = SOURCES[config.source].label(table, config)
    split, also_test = _split(table, config)
    asked = table[[f"label_{task}" for task in config.tasks]].notna().any(axis=1)
    if config.views:
        asked &= table["view"].isin(config.views)
    table.insert(2, "split", np.where(asked, split, "").astype(object))
    return table.assign(also_test=also_test)


def split_rule(config: DataConfig) -> dict[str, Any]:
    """The options that decide labels and splits; an option with its default may be missing."""
    names = ["anomaly", "split"]
    if config.split == "thesis":
        names += ["protected_attr", "protected_attr_percent", "share_normals", "per_group",
                  "split_seed"]  # fmt: skip
    else:
        names.append("split_salt")
    if config.split == "folds":
        names += ["folds", "fold"]
    rule = {name: getattr(config, name) for name in names}
    if config.uncertain != "ignore":
        rule["uncertain"] = config.uncertain
    for name in ("labels", "views"):
        if getattr(config, name):
            rule[name] = list(getattr(config, name))
    return rule


def _split(table: pd.DataFrame, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    nowhere = np.zeros(len(table), bool)
    patient = table["patient_id"]
    if config.split == "thesis":
        return subset.split_like_thesis(
            table,
            attribute=config.protected_attr,
            share=config.protected_attr_percent,
            share_normals=config.share_normals,
            per_group=config.per_group,
            seed=config.split_seed,
        )
    if config.split == "patient":
        abnormal, label = table["patient_abnormal"], table["label_anomaly"]
        split = manifest.split_by_patient(patient, abnormal, label, salt=config.split_salt)
    elif config.split == "random":
        split = manifest.split_at_random(patient, salt=config.split_salt)
    elif config.split == "folds":
        split = manifest.split_in_folds(
            patient, folds=config.folds, fold=config.fold, salt=config.split_salt
        )
    else:
        split = _published(table, config)
    return split, nowhere


def _published(table: pd.DataFrame, config: DataConfig) -> np.ndarray:
    if "source_split" not in table:
        raise InputError(
            f"data.split is 'source', and this prepared set of {config.source} holds no split "
            "(data.table.split names the column of a table); use 'random' or 'folds'."
        )
    return manifest.split_as_published(
        table["patient_id"], table["source_split"], salt=config.split_salt
    )
