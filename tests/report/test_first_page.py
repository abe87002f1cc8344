"""The first page: three questions, answered in numbers that are never rounded in their favour."""

import dataclasses
import html.parser

import numpy as np
import pandas as pd
import pytest

from jaxfair.fairness.delong import auroc_estimate, logit_interval
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.table import fairness_table, fit_thresholds
from jaxfair.files import write_json, write_table
from jaxfair.report.answers import answers_of, mean_auroc
from jaxfair.report.cells import at_least, at_most
from jaxfair.report.content import Answers, Table, Text
from jaxfair.report.headline import headline_table
from jaxfair.report.html import as_html
from jaxfair.report.loading import load_run
from jaxfair.report.sections import sections
from jaxfair.report.views import run_views
from tests.made_runs import make_run

RATES = {"true_positive_rates": {"0.01": 0.1381, "0.001": 0.0393}}
DRAWS = 39


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = tmp_path_factory.mktemp("first") / "run"
    return load_run(make_run(made, epsilon=7.99961, maps=False, **RATES))


@pytest.fixture(scope="module")
def views(run):
    return run_views(run, 199)


@pytest.fixture(scope="module")
def page(run):
    return sections([run], n_draws=DRAWS)


def test_the_first_page_begins_with_the_phantom_the_guarantee_and_the_three_questions(page):
    title, blocks = page[0].title, page[0].blocks
    assert title.startswith("PHANTOM data.")
    phantom, covered, not_covered, asked = blocks[:4]
    assert isinstance(phantom, Text) and phantom.loud and phantom.text.startswith("PHANTOM")
    assert covered.text.startswith("The guarantee covers each patient among the training patients")
    assert not_covered.text.startswith("Validation and test patients, thresholds, tables and data")
    assert isinstance(asked, Answers)
    assert [one.key for one in asked.answers] == ["good", "fair", "private"]


def test_rates_are_people_of_100_and_err_against_the_model(run, views):
    good = answers_of(run, views)[0]
    row = views[0].headline.iloc[0]
    found, alarms = 100 * row["sensitivity"], 100 * (1 - row["specificity"])
    assert f"Of 100 images with the finding {int(np.floor(found))} are found" in good.verdict
    assert f"of 100 without it {int(np.ceil(alarms))} raise a false alarm" in good.verdict
    assert good.verdict.startswith(f"AUROC {row['auroc']:.3f} [")
    assert "Tested on 300 patients, 600 images." in good.lines


def test_who_is_worse_is_named_with_the_missed_of_100(run, views):
    fair = answers_of(run, views)[1]
    (row,) = (
        views[0].contrasts.query("group == 'F' and statistic == 'sensitivity'").to_dict("records")
    )
    more = at_most(-100 * row["difference"])
    ends = f"[{at_least(-100 * row['ci_high'])}, {at_most(-100 * row['ci_low'])}]"
    told = f"More missed of 100 with the finding than among the rest: sex: F {more} {ends}."
    assert fair.verdict.startswith(told) and fair.warn
    assert int(more) >= -100 * row["difference"]


def test_the_risk_of_a_member_and_epsilon_are_rounded_up(run, views):
    private = answers_of(run, views)[2]
    assert "1 in 100 innocent patients finds at most 14 of 100 members" in private.verdict
    assert any("If 1 in 1,000: at most 40 of 1,000" in line for line in private.lines)
    assert "Epsilon 8, delta 1e-05, rounded up." in private.lines and not private.warn


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epsilon": None}, "No. It was trained without differential privacy"),
        ({"grade": "research"}, "No, research grade: the noise comes from a known seed."),
        ({"unit": "image"}, "Each training image is protected"),
        ({"true_positive_rates": None}, "epsilon 8, delta 1e-05 (what that lets an attacker find"),
    ],
)
def test_what_weakens_a_claim_stands_in_the_answer(run, views, change, words):
    other = dataclasses.replace(run, privacy={**run.privacy, **change})
    private = answers_of(other, views)[2]
    assert words in private.verdict
    assert private.warn == (change.get("epsilon", 8) is None or "grade" in change)


def test_predictions_from_elsewhere_promise_nothing(run, views):
    private = answers_of(dataclasses.replace(run, privacy=None), views)[2]
    assert private.verdict.startswith("Not known") and private.warn


def test_where_nobody_is_found_worse_it_is_said_what_is_not_ruled_out(run, views):
    calm = views[0].contrasts.assign(flagged=False)
    views[0].__dict__["contrasts"], kept = calm, views[0].contrasts
    try:
        fair = answers_of(run, views)[1]
    finally:
        views[0].__dict__["contrasts"] = kept
    assert fair.verdict == "No group was found worse than the rest." and not fair.warn
    most = at_most(-100 * calm.loc[calm["statistic"] == "sensitivity", "ci_low"].min())
    assert fair.lines[0].startswith(f"Not ruled out: {most} more missed of 100 (sex: F).")


def labels_of(folder, n=600):
    """A run of three labels, the last of which women's images hide."""
    made = make_run(folder, n=n, maps=False, **RATES)
    rows = pd.read_parquet(made / "predictions.parquet")
    rng = np.random.default_rng(3)
    parts = [rows.assign(task="label 10"), rows.assign(task="label 2")]
    parts[1]["y_score"] = rows["y_true"] + rng.normal(size=n)
    parts.append(parts[1].assign(task="label 3"))
    parts[2]["y_score"] -= 3 * rows["y_true"] * (rows["sex"] == "F")
    both = pd.concat(parts, ignore_index=True)
    fitted = fit_thresholds(both)
    write_table(made / "predictions.parquet", both)
    write_json(made / "thresholds.json", fitted)
    table = fairness_table(both, thresholds=fitted, attributes=["sex"], n_bootstrap=2)
    write_table(made / "fairness.csv", table)
    return load_run(made)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return labels_of(tmp_path_factory.mktemp("many") / "many")


@pytest.fixture(scope="module")
def many_page(many):
    return sections([many], n_draws=DRAWS)


def test_the_mean_of_the_labels_has_the_interval_of_one_label_where_all_are_one(many):
    two = next(view for view in run_views(many, DRAWS) if view.task == "label 2")
    mean = mean_auroc([two, two, two])
    codes = pd.factorize(two.rows["patient_id"])[0]
    alone = auroc_estimate(two.rows["y_true"], two.rows["y_score"], codes)
    assert mean.value == pytest.approx(alone.value)
    assert (mean.low, mean.high) == pytest.approx(logit_interval(alone))


def test_labels_stand_in_natural_order_and_the_gravest_first_in_the_overview(many, many_page):
    assert many.tasks == ["label 2", "label 3", "label 10"]
    (section,) = (one for one in many_page if "all labels at once" in one.title)
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert str(table.shown["label"].iloc[0]) == "label 3"
    women = table.shown["sex: F"].iloc[0]
    assert women.flagged and women.kind.startswith("w4") and str(women).endswith("worse")
    assert "Mean AUROC" in many_page[0].blocks[3].answers[0].verdict


def test_groups_stand_in_natural_order(run, views):
    (view,) = views
    names = {"group": {"F": "site 10", "M": "site 2"}}
    tables = [t.replace(names) for t in (run.fairness, view.contrasts, view.calibration)]
    assert headline_table(*tables, {})["group"].tolist() == ["all", "site 2", "site 10"]
    frame = GroupFrame(view.rows.replace({"sex": names["group"]}), "sex")
    assert frame.groups == ["site 2", "site 10"]


class _Page(html.parser.HTMLParser):
    """Ids, links, and of each table its caption and whether each row has a head."""

    def __init__(self, page):
        super().__init__()
        self.ids, self.links, self.tables, self.figures = set(), [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        if tag == "a":
            self.links.append(found["href"][1:])
        if tag == "table":
            self.tables.append({"caption": False, "rows": 0, "heads": 0})
        if tag == "svg" and "role" in found:
            self.figures.append(found["aria-label"])
        if self.tables and tag == "caption":
            self.tables[-1]["caption"] = True
        if self.tables and tag == "tr":
            self.tables[-1]["rows"] += 1
            self.first = True
        if tag in ("th", "td"):
            if self.first and found.get("scope") == "row":
                self.tables[-1]["heads"] += 1
            self.first = False


def test_every_table_has_a_caption_and_row_heads_and_every_link_a_place(many_page):
    found = _Page(as_html(many_page))
    assert len(found.tables) > 20 and set(found.links) <= found.ids
    for table in found.tables:
        assert table["caption"] and table["heads"] == table["rows"] - 1
    assert all(any(c.isdigit() for c in alt) or "no group" in alt for alt in found.figures)


def test_what_follows_the_first_pages_is_folded_and_provenance_comes_last(page, many_page):
    for found in (page, many_page):
        assert [one.folded for one in found].index(True) <= 4
        assert found[-1].title == "Provenance" and found[-1].folded
        assert all(one.folded for one in found if "by sex" in one.title)
