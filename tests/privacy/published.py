"""A run that has been evaluated, small and made by hand, for the tests of releases."""

import functools
import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.experiment import experiment
from jaxfair.files import write_json, write_table

PRIVACY = {
    "unit": "patient", "data": "phantom", "selection": "independent", "grade": "private",
    "epsilon": 8.0, "delta": 1e-5, "public_size": 5000,
}  # fmt: skip


def predictions(patients: int = 1500, *, images: int = 1, seed: int = 0) -> pd.DataFrame:
    """Scores in (0, 1) of patients with up to `images` images; one in three validates."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, images + 1, patients))
    y = (rng.random(patients) < 0.3)[patient].astype(float)
    return pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(len(patient))],
            "patient_id": [f"p{p}" for p in patient],
            "split": np.where(patient % 3 == 0, "validation", "test"),
            "task": "finding",
            "y_true": y,
            "y_score": 1 / (1 + np.exp(-rng.normal(1.2 * y - 1))),
            "sex": rng.choice(["F", "M"], patients)[patient],
            "age": rng.integers(20, 80, patients)[patient].astype(float),
        }
    )


@functools.cache
def config(tasks: tuple[str, ...] = ("finding",)) -> dict[str, Any]:
    """The config of a run whose table declares these labels."""
    made = experiment(
        "released",
        data={
            "source": "table",
            "table": {"file": "table.csv", "image": "image", "patient": "patient", "labels": tasks},
            "split": "random",
            "public_size": 5000,
        },
        method={"name": "linear_probe", "size": 64},
        optim={"name": "sgd", "learning_rate": 1.0},
        dp={"epsilon": 8.0, "l2_clip_norm": 1.0},
        train={"steps": 10, "expected_batch_size": 100},
    )
    return json.loads(made.to_json())


def evaluated(
    folder: pathlib.Path,
    rows: pd.DataFrame | None = None,
    tasks: tuple[str, ...] = ("finding",),
    **privacy,
) -> pathlib.Path:
    """Writes what a release reads of a run that declares `tasks`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "predictions.parquet", predictions() if rows is None else rows)
    write_json(folder / "privacy.json", PRIVACY | privacy)
    write_json(folder / "config.json", config(tasks))
    return folder
