"""Metrics by group, with intervals over patients, of predictions that any program made.

python examples/own_predictions.py     # about 5 seconds on two cores
"""

import numpy as np
import pandas as pd

from jaxfair.fairness import GroupFrame, fairness_table, metrics

rng = np.random.default_rng(0)
n = 1200
sex = rng.choice(["F", "M"], n // 2).repeat(2)  # two images of each patient
y_true = rng.integers(0, 2, n)
helped = np.where(sex == "F", 0.5, 1.5)  # the model sees less in women
predictions = pd.DataFrame({
    "y_true": y_true,
    "y_score": rng.normal(size=n) + y_true * helped,
    "patient_id": (np.arange(n) // 2).astype(str),
    "split": np.where(np.arange(n) // 2 % 3 == 0, "validation", "test"),
    "sex": sex,
})  # fmt: skip

table = fairness_table(predictions, attributes=["sex"], n_bootstrap=200)
shown = table[table["metric"].isin(["auroc", "sensitivity"])]
print(shown[["group", "metric", "value", "ci_low", "ci_high", "n"]].round(3).to_string(index=False))

test = predictions[predictions["split"] == "test"]
frame = GroupFrame(test, "sex")
print(f"AUROC: worst group {frame.worst(metrics.auroc)[0]}, gap {frame.gap(metrics.auroc):.2f}")
