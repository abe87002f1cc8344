"""Is a run above chance? Above the untrained model and above mean intensity, by paired intervals.

    python experiments/e01_rsna_fae/above_chance.py RUN [RUN ...] --out FILE.csv

The untrained model has the run's own initial parameters; all three scores are of the same
test images, and patients are the unit of the interval.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from jaxfair import evaluate, files
from jaxfair.config import method_from_settings, settings_from_config
from jaxfair.fairness import delong
from jaxfair.start import open_data


def baselines(run: pathlib.Path) -> pd.DataFrame:
    """Returns the run's test predictions with columns `untrained` and `intensity`."""
    settings = settings_from_config(ConfigDict(json.loads((run / "config.json").read_text())))
    dataset = open_data(settings)
    method = method_from_settings(settings)
    params, frozen = method.init(jax.random.key(settings.seed), dataset.spec)
    predictions = pd.read_parquet(run / "predictions.parquet")
    test = predictions[predictions["split"] == "test"].reset_index(drop=True)
    place = {name: row for row, name in enumerate(dataset.manifest["image_id"])}
    rows = np.array([place[name] for name in test["image_id"]])
    untrained = evaluate.score_rows(method, params, frozen, dataset, rows)["anomaly"]
    return test.assign(untrained=untrained, intensity=dataset.images(rows).mean(axis=(1, 2, 3)))


def compare(run: pathlib.Path) -> list[dict]:
    """Returns one row per baseline: both AUROCs, their difference and its 95 % interval."""
    table = baselines(run)
    people = table["patient_id"]
    trained = delong.auroc_estimate(table["y_true"], table["y_score"], people)
    rows = []
    for name in ("untrained", "intensity"):
        other = delong.auroc_estimate(table["y_true"], table[name], people)
        gain = delong.difference(trained, other)
        low, high = delong.t_interval(gain)
        rows.append(
            {
                "run": run.name,
                "auroc": trained.value,
                "baseline": name,
                "baseline_auroc": other.value,
                "difference": gain.value,
                "ci_low": low,
                "ci_high": high,
            }
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    found = pd.DataFrame([row for run in arguments.runs for row in compare(run)]).round(4)
    files.write_table(arguments.out, found)
    print(found.to_string(index=False))
