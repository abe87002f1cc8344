"""Published numbers that ours stand beside, as printed, from `published.csv`.

FairREAD (Gao et al., arXiv 2412.16373v2): table 2, CheXpert, mean and SD of five models on one
test set; table 3, thresholds, mean of four targets; table 4, scored on MIMIC-CXR. Thesis: "Towards
Fair and Accurate Medical Image Embeddings" (TUM 2024), its one table, which has no calibration.
"""

import pathlib

import pandas as pd

__all__ = ["COLUMNS", "MISPRINTS", "published"]

COLUMNS = ("accuracy", "AUROC", "delta-AUC", "delta-EO", "FATE (EO)", "FATE (AUC)")
"""Measures of tables 2 and 4, in their order."""

MISPRINTS = (
    "Three printed FATEs do not follow from their own columns: of FCRO on fracture (table 2) these "
    "give -.019 and +.161, where -.066 and .229 are printed, and of AL on cardiomegaly (table 4) "
    "-.196 for the AUROC, where -.076 is printed."
)
"""The averages of table 2 are means of four FATEs, not FATEs of the means."""


def published(table: str) -> pd.DataFrame:
    """Returns target, method, measure, value and sd (NaN: none printed) of one printed table.

    Args:
      table: "fairread-2", "fairread-3", "fairread-4" or "thesis".
    """
    rows = pd.read_csv(pathlib.Path(__file__).with_suffix(".csv"))
    return rows[rows["table"] == table].drop(columns="table").reset_index(drop=True)
