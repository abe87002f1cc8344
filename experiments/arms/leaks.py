"""What fresh probes read of an attribute from the embedding of a run, on both test sets.

Probes are fitted on the run's validation images and asked within each label value (protocol S10);
on the second test set attribute and label are independent too.
"""

import pathlib

import numpy as np
import pandas as pd

from experiments.arms.cells import Cell, Data
from experiments.arms.train import CORRELATED, INDEPENDENT, Scored, scored
from jaxfair import files
from jaxfair.fairness.leakage import Embedding, leakage_table

__all__ = ["leaks_of"]


def leaks_of(folder: pathlib.Path, data: Data) -> pd.DataFrame:
    """Returns the leakage of a run's embeddings, and keeps it in its folder.

    Columns: those of the cell, on, and those of `fairness.leakage.leakage_table`. A Method without
    an embedding has no rows.
    """
    kept = folder / "leakage.csv"
    if not kept.is_file():
        own = scored(folder, CORRELATED, data.independent)
        found = [_probed(own, own, data).assign(on=CORRELATED)]
        if data.independent:
            there = scored(folder, INDEPENDENT, data.independent)
            found.append(_probed(own, there, data).assign(on=INDEPENDENT))
        files.write_table(kept, pd.concat(found, ignore_index=True))
    return pd.read_csv(kept).assign(**Cell.named(folder.name)._asdict())


def _probed(own: Scored, there: Scored, data: Data) -> pd.DataFrame:
    """Probes of the validation images of `own`, scored on the test images of `there`."""
    embed = own.method.embed
    if embed is None:
        return pd.DataFrame()
    people, values = [], []
    for part, split in ((own, "validation"), (there, "test")):
        part = part._replace(rows=part.rows[part.rows["split"] == split].reset_index(drop=True))
        people.append(part.dataset.manifest.iloc[part.rows["row"]].assign(split=split))
        values.append(part.outputs(embed))
    table = pd.concat(people, ignore_index=True)
    embeddings = [
        Embedding(name, np.concatenate([part[name] for part in values])) for name in values[0]
    ]
    attributes = [name for name in data.attributes if " x " not in name]
    return leakage_table(table, embeddings[:1], attributes, (data.task,), seed=0)
