"""Made runs of the studies of gaps: people, scores with a gap, folders as training leaves them."""

import math

import numpy as np
import pandas as pd

from experiments.gaps import runs
from jaxfair import files
from jaxfair.schema import age_groups

__all__ = ["people", "placed", "scored"]


def people(n=400, seed=0):
    """Test images of drawn people, one each, with a label that half of them have."""
    rng = np.random.default_rng(seed)
    age = rng.integers(5, 90, n)
    return pd.DataFrame({
        "image_id": [f"i{k:04d}" for k in range(n)], "patient_id": [f"p{k:04d}" for k in range(n)],
        "split": np.where(np.arange(n) % 4 == 0, "validation", "test"), "task": "anomaly",
        "sex": rng.choice(["F", "M"], n), "age": age, "age_group": age_groups(age),
        "view": rng.choice(["AP", "PA"], n), "y_true": rng.integers(0, 2, n).astype(float),
    })  # fmt: skip


def scored(table, gap=0.0, seed=1):
    """Scores that separate the labels, women's by `gap` standard deviations less."""
    rng = np.random.default_rng(seed)
    own = np.random.default_rng(99).normal(size=len(table))  # what every model sees of a patient
    strength = 1.5 - gap * (table["sex"] == "F")
    noise = 0.3 * rng.normal(size=len(table))
    return table.assign(y_score=strength * table["y_true"] + own + noise)


def placed(out, run, table, epsilon=8.0, faults=(), seconds=0.1):
    """Lays a run's predictions down as if it had been trained."""
    folder = runs.folder_of(out, run)
    folder.mkdir(parents=True)
    table.to_parquet(folder / "predictions.parquet")
    if math.isfinite(run.epsilon):
        promise = {"epsilon": epsilon, "faults": list(faults)}
        files.write_json(out / "verified" / f"{run.place}.json", promise)
    files.write_json(out / "seconds" / f"{run.place}.json", {"seconds": seconds})
