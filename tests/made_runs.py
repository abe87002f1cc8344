"""Run folders made by hand, as train and evaluate would leave them, for the report's tests."""

import pathlib

import numpy as np
import pandas as pd

from jaxfair.fairness.table import fairness_table, fit_thresholds
from jaxfair.files import write_bytes, write_json, write_table

__all__ = ["PRIVACY", "make_run"]

PRIVACY = {
    "epsilon": 8.0,
    "epsilon_rdp": 8.9,
    "delta": 1e-5,
    "unit": "patient",
    "relation": "add_or_remove_one",
    "accountant": {"library": "dp_accounting", "name": "pld", "version": "0.6.0", "grid": 1e-4},
    "sampling_prob": 0.05,
    "noise_multiplier": 1.1,
    "l2_clip_norm": 0.01,
    "steps": 100,
    "expected_batch_size": 50,
    "public_size": 1000,
    "noise_source": "os",
    "grade": "private",
    "data": "phantom",
    "selection": "independent",
}
_PLAIN = {"epsilon": None, "epsilon_rdp": None, "delta": None, "grade": "none"}

# A grey 2x2 PNG.
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000002000000020800000000"
    "57dd52f80000000e49444154789c636068606868000003060181b5a2f8"
    "7d0000000049454e44ae426082"
)


def make_run(
    folder: pathlib.Path,
    *,
    seed: int = 0,
    n: int = 900,
    gap: float = 0.9,
    maps: bool = True,
    n_bootstrap: int = 2,
    attributes: tuple[str, ...] = ("sex",),
    config: dict | None = None,
    **privacy: object,
) -> pathlib.Path:
    """Writes a run folder with n images, whose abnormal women score `gap` too low.

    `privacy` replaces keys of PRIVACY; epsilon=None makes a plain run, whose scores are a
    little better.
    """
    statement = {**PRIVACY, **(_PLAIN if privacy.get("epsilon", 8.0) is None else {}), **privacy}
    rows = _rows(n, gap, seed, 1.3 if statement["epsilon"] is None else 1.0)
    write_table(folder / "predictions.parquet", rows)
    fitted = fit_thresholds(rows)
    write_json(folder / "thresholds.json", fitted)
    table = fairness_table(rows, thresholds=fitted, attributes=attributes, n_bootstrap=n_bootstrap)
    write_table(folder / "fairness.csv", table)
    write_json(folder / "privacy.json", statement)
    write_json(folder / "config.json", {"seed": seed, **(config or {})})
    write_json(folder / "env.json", {"commit": "0123abc"})
    if maps:
        write_bytes(folder / "maps" / "i7.png", _PNG)
    return folder


def _rows(n: int, gap: float, seed: int, signal: float) -> pd.DataFrame:
    rng, noise = np.random.default_rng(7), np.random.default_rng([7, seed])
    patient = np.arange(n) // 2
    sex = rng.choice(["F", "M"], n)[patient]
    age = rng.integers(0, 100, n)[patient].astype(float)
    age[patient % 40 == 0] = np.nan
    view = rng.choice(["AP", "PA"], n)
    y = (rng.random(n) < np.where(view == "AP", 0.5, 0.25)).astype(float)
    score = rng.normal(size=n) + noise.normal(size=n) / 3
    return pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)],
            "patient_id": patient.astype(str),
            "split": np.where(patient % 3 == 0, "validation", "test"),
            "task": "anomaly",
            "y_true": y,
            "y_score": score + y * signal * np.where(sex == "F", 1.4 - gap, 1.4),
            "sex": sex,
            "age": age,
            "view": view,
        }
    )
