"""Made tables of predictions for the fairness tests."""

import numpy as np
import pandas as pd
import pytest


def make_predictions(
    n: int = 600, *, images_per_patient: int = 2, gap: float = 0.0, seed: int = 0
) -> pd.DataFrame:
    """Returns n images with sex, age and view; positives of F score `gap` lower."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // images_per_patient
    sex = rng.choice(["F", "M"], n)[patient]
    age = rng.integers(0, 100, n)[patient].astype(float)
    age[patient % 40 == 0] = np.nan
    y = (rng.random(n) < 0.4).astype(float)
    score = rng.normal(size=n) + y * np.where(sex == "F", 1.2 - gap, 1.2)
    return pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)],
            "patient_id": patient.astype(str),
            "split": np.where(patient % 3 == 0, "validation", "test"),
            "task": "anomaly",
            "y_true": y,
            "y_score": score,
            "sex": sex,
            "age": age,
            "view": rng.choice(["AP", "PA"], n),
        }
    )


@pytest.fixture
def predictions() -> pd.DataFrame:
    return make_predictions()
