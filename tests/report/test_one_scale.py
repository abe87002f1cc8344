"""What one scale for all groups does to false alarms, as the report says it."""

import dataclasses

import numpy as np
import pandas as pd

from jaxfair.fairness.normal_scores import fit_scales
from jaxfair.report.loading import load_run
from jaxfair.report.one_scale import scale_section
from jaxfair.report.views import run_views
from tests.made_runs import make_run


def section_of(tmp_path, n):
    """Of a run whose women have higher scores, sick or not."""
    run = load_run(make_run(tmp_path / "run", n=n, gap=0.0, maps=False))
    rows = run.predictions
    women = (rows["sex"] == "F").to_numpy()
    rows = rows.assign(y_score=rows["y_score"] + np.where(women, 1.5, 0.0))
    run = dataclasses.replace(run, predictions=rows, scales=fit_scales(rows, "sex"))
    (view,) = run_views(run)
    return scale_section(view)


def test_a_section_says_what_false_alarms_become_and_what_it_takes_to_use_the_scale(tmp_path):
    found = section_of(tmp_path, 2_700)
    text, table = found.blocks
    assert "must know a patient's sex at test time" in text.text
    assert "whose patients the guarantee of training does not cover" in text.text
    shown = table.shown.set_index("group")
    assert (shown["scale"] == "its own").all()
    alarms = shown[["false alarms before", "false alarms after"]].map(str).apply(pd.to_numeric)
    before, after = (alarms.loc["F"] - alarms.loc["M"]).to_numpy()
    assert before > 0.3 and abs(after) < 0.08


def test_a_group_of_few_keeps_its_scores_and_its_rates_are_not_shown(tmp_path):
    table = section_of(tmp_path, 90).blocks[1].shown
    assert table["scale"].str.startswith("as it was").all()
    assert set(table["false alarms after"].map(str)) == {"too few"}


def test_a_run_that_was_not_calibrated_has_no_such_section(tmp_path):
    (view,) = run_views(load_run(make_run(tmp_path / "run", n=90, maps=False)))
    assert scale_section(view) is None
