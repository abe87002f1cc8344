"""The frame of the fairness study: the same shares in any process, the page as measured."""

import pathlib
import sys

import pandas as pd
import pytest

EXPERIMENT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "e02_fairness_study"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENT)
    before = set(sys.modules)
    import study

    yield study
    for name in set(sys.modules) - before:
        if name.startswith("study"):
            sys.modules.pop(name)


def test_the_page_holds_what_was_measured(study):
    assert study.main(["--check"]) == 0, "run experiments/e02_fairness_study/study.py --only"


def test_every_scenario_has_a_table_on_the_page(study):
    page = study.PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- {s.table} -->\n" in page for s in study.SCENARIOS.values())


def test_the_shares_do_not_depend_on_the_number_of_processes(study, tmp_path):
    name = "1_images_50_patients"
    study.main(["--repeats", "9", "--only", name, "--processes", "2", "--out", str(tmp_path)])
    found, alone = pd.read_csv(tmp_path / "study.csv"), study.run(9, [name])
    assert found["share"].tolist() == pytest.approx(alone["share"].tolist(), rel=1e-12)
    assert (found["repeats"] == 9).all()


def test_scenarios_run_again_replace_their_rows_and_no_others(study):
    old = study.run(2, ["1_images_50_patients", "1_images_150_patients"])
    new = study.run(3, ["1_images_50_patients"])
    table = study.joined(old, new)
    repeats = table.groupby("scenario")["repeats"].unique().map(list).to_dict()
    assert repeats == {"1_images_50_patients": [3], "1_images_150_patients": [2]}


def test_a_share_outside_its_goal_is_bold_and_listed(study):
    rows = study.run(2, ["planted_gap"], n=19).assign(share=0.5)
    assert study.study_tables.missed(rows)["outcome"].tolist() == ["significant"]
    assert "**.500**" in study.study_tables.table("power", rows, study.SCENARIOS)


def test_unequal_patients_are_covered_in_short_form(study):
    """400 repeats of what covered .83 to .92 with plain degrees of freedom."""
    table = study.run(400, ["pareto", "giants_whole"], contrast=False)
    assert (table["share"] >= 0.915).all(), table


def test_exact_rates_are_covered_and_have_a_width_in_short_form(study):
    table = study.run(400, ["ten_90", "many_98", "giants_95"])
    shares = table.set_index("outcome")["share"]
    assert (shares["rate"] >= 0.915).all() and (shares["without width"] == 0).all()


def test_near_one_the_intervals_cover_in_short_form(study):
    table = study.run(400, ["area_99_60", "area_999_150"], contrast=False)
    assert (table["share"] >= 0.915).all(), table


def test_a_design_that_was_not_run_says_so_on_the_page(study):
    import study_tables
    from study_design import Scenario

    designs = {"new": Scenario(lambda *_: {}, "edge", "a new design", {})}
    rows = pd.DataFrame(columns=["scenario", "outcome", "share", "repeats"])
    page = study_tables.filled("<!-- edge -->\nold\n<!-- end -->", rows, designs)
    assert "| a new design | not run |" in page
