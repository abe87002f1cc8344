"""Every public function that takes labels or scores refuses what is none, in one sentence.

The functions are found by their public names and their arguments, so that a new one is held too.
"""

import importlib
import inspect
import pkgutil

import numpy as np
import pandas as pd
import pytest

import jaxfair.fairness
from jaxfair.errors import InputError
from jaxfair.fairness.normal_scores import fit_scales
from tests.fairness.conftest import make_predictions

N = 40
Y = np.tile([0.0, 1.0], N // 2)
S = np.linspace(0.05, 0.95, N)
LABELS, SCORES = {"y_true"}, {"y_score", "scores", "probabilities"}
TABLES = {"predictions", "validation", "plain", "private"}
GOOD = {
    "y_true": Y,
    "y_score": S,
    "scores": S,
    "probabilities": S,
    "upper": Y == 1,
    "lower": Y == 0,
    "in_group": np.arange(N) < 20,
    "chosen": np.arange(N) < 20,
    "other": np.arange(N) >= 20,
    "groups": np.arange(N) % 2,
    "patients": np.arange(N),
    "partitions": [np.arange(N) % 2],
    "strata": np.zeros(N, dtype=np.int64),
    "threshold": 0.5,
    "rules": ("youden",),
    "fixed": [0.5],
    "edges": np.array([0.3, 0.6]),
    "predictions": make_predictions(120),
    "plain": [make_predictions(120)],
    "private": [make_predictions(120).assign(y_score=lambda t: t["y_score"] ** 2)],
    "name": "anomaly",
    "table": pd.DataFrame({"y_true": Y, "y_score": S, "patient_id": np.arange(N).astype(str)}),
    "control": None,
    "attribute": "sex",
    "attributes": ["sex"],
    "seed": 0,
    "low": 0.0,
    "high": 1.0,
    "right": np.ones((1, N), dtype=bool),
    "assigned": np.arange(N)[None] % 2,
    "own": np.arange(N) % 2,
    "n_groups": 2,
    "fitted": fit_scales(make_predictions(120), "sex"),
}
"""A good value of each argument, by name; what a new function needs besides is added here."""

ROWS_AND_NOT = {
    "TableBootstrap.validation",
    "group_contrasts.probabilities",
    "calibration_levels.probabilities",
}
"""Arguments with the name of a table that are none, of an array by task (which Task checks), or of
the rows of a Resamples (tests/fairness/test_miscalibration.py spoils those)."""

NOT_ROWS = {"loss_correlations", "two_source", "write_scales"}
"""Functions whose `plain` and `private` are no tables, but values or estimates, or which hand a
table to one that is held here."""


def public():
    """{module.name: function or class} of all public names of all files of the room."""
    found = {}
    for info in pkgutil.iter_modules(jaxfair.fairness.__path__):
        module = importlib.import_module(f"jaxfair.fairness.{info.name}")
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) and getattr(thing, "__module__", "") == module.__name__:
                found[f"{info.name}.{name}"] = thing
    return found


def cases():
    """(name, function, arguments, which argument is to be spoilt)."""
    for name, thing in public().items():
        short = name.split(".")[-1]
        try:
            parameters = inspect.signature(thing).parameters
        except ValueError:
            continue
        told = [p for p in parameters if p in LABELS | SCORES | TABLES]
        if info_only(name, thing) or short in NOT_ROWS or not told:
            continue
        needed = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
        for spoilt in told:
            if f"{short}.{spoilt}" not in ROWS_AND_NOT:
                yield pytest.param(thing, tuple(needed), spoilt, id=f"{name}-{spoilt}")


def info_only(name, thing):
    """The checks themselves, and tuples that only hold what they are given."""
    return name.startswith("values.") or (inspect.isclass(thing) and issubclass(thing, tuple))


def arguments(thing, needed):
    given = {name: GOOD[name] for name in needed if name != "validation"}
    if "validation" in needed:
        one = make_predictions(120)
        bootstrap = inspect.isclass(thing)
        given["validation"] = None if bootstrap else one
    return given


def spoil(value, bad, column):
    if isinstance(value, list):
        return [spoil(table, bad, column) for table in value]
    if isinstance(value, pd.DataFrame):
        last = {split: rows.index[-1] for split, rows in value.groupby("split")}
        return value.assign(**{column: value[column].where(~value.index.isin(last.values()), bad)})
    return np.where(np.arange(len(value)) == 7, bad, value)


def refused(thing, given):
    with pytest.raises(InputError) as caught:
        thing(**given)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 300


@pytest.mark.parametrize(("thing", "needed", "spoilt"), list(cases()))
def test_labels_and_scores_that_are_none_are_refused_by_every_public_function(
    thing, needed, spoilt
):
    given = arguments(thing, {*needed, spoilt})
    thing(**given)  # As they are they are accepted.
    tabular = spoilt in TABLES
    if tabular or spoilt in SCORES:
        for bad in (np.nan, np.inf, -np.inf):
            refused(thing, {**given, spoilt: spoil(given[spoilt], bad, "y_score")})
    if tabular or spoilt in LABELS:
        # An empty cell of a table is an unlabelled row, which is left out.
        for bad in (2.0, 0.5, -1.0, *([] if tabular else [np.nan, np.inf])):
            refused(thing, {**given, spoilt: spoil(given[spoilt], bad, "y_true")})


def test_the_functions_are_found():
    names = {case.id for case in cases()}
    assert {
        "metrics.auroc-y_true",
        "calibration.platt-y_score",
        "calibration.ece_null-probabilities",
        "delong.auroc_estimate-y_score",
        "gaps.max_min_gap-y_true",
        "thresholds.fit_thresholds-predictions",
        "table.fairness_table-predictions",
        "compare.private_against_plain-plain",
    } <= names
    assert len(names) > 60


@pytest.mark.parametrize(
    ("y", "s", "text"),
    [
        ([0, 1, 2], [0.1, 0.2, 0.3], "y_true is 2 in row 2; labels are 0"),
        ([0, 1, np.nan], [0.1, 0.2, 0.3], "y_true is nan in row 2"),
        ([0, 1, 1], [0.1, np.nan, np.inf], r"y_score is nan in row 1 \(2 of 3 rows"),
        ([0, 1], [0.1], "y_true has 2 rows and y_score has 1"),
        ([[0, 1]], [0.1], r"y_true has shape \(1, 2\)"),
        (["ill", "well"], [0.1, 0.2], "y_true is not made of numbers"),
    ],
)
def test_the_sentence_says_what_and_where(y, s, text):
    with pytest.raises(InputError, match=text):
        jaxfair.fairness.metrics.auroc(y, s)
