"""e08_mitigation: trainings, arms, tables and pages, on made numbers."""

import dataclasses
import functools
import math

import numpy as np
import pandas as pd
import pytest

from experiments.e08_mitigation import arms, cost, page, plan
from experiments.e08_mitigation import tables as e08_tables
from experiments.gaps import report, runs, sets, trainings
from experiments.gaps.runs import Kept
from jaxfair.config import settings_from_config
from jaxfair.methods.mitigations.catalog import MITIGATIONS
from tests.made_gaps import people, placed, scored

PLAIN = math.inf


@functools.cache
def whole_plan():
    return plan.make("default")


def test_every_arm_tries_as_many_settings_and_every_mitigation_is_there_or_says_why_not():
    for part in (part for part in whole_plan().parts if len(part.arms) > 1):
        budget = trainings.budget_of(part.method, "default")
        assert {len(arm.mitigation) for arm in part.arms} == {budget}
        assert {len(arm.changes) for arm in part.arms} == {budget}
        named = [arm.name for arm in part.arms] + [line.split(":")[0] for line in part.left_out]
        assert sorted(set(named) - {arms.BASE, arms.CONTROL}) == sorted(MITIGATIONS)
        for arm in part.arms:
            tried = {
                str((m, sorted(c.items())))
                for m, c in zip(arm.mitigation, arm.changes, strict=True)
            }
            assert len(tried) == budget, "settings differ"


def test_a_private_run_counts_the_settings_that_were_compared():
    part = next(part for part in whole_plan().parts if part.method == "classifier")
    for run in plan.runs_of(part, part.arms[0], 8.0, (0, 1)):
        assert run.config.dp.tuning_runs == trainings.budget_of("classifier", "default") == 2


def test_all_detectors_of_a_table_try_as_many_settings():
    for size in ("quick", "default", "full"):
        assert len({trainings.budget_of(name, size) for name in trainings.DETECTORS}) == 1


def test_a_new_mitigation_appears_by_itself_with_its_number_smaller_and_larger(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Dimming:
        """Losses are dimmed."""

        strength: float = 2.0

    entry = MITIGATIONS["group_weights"]._replace(config=Dimming, apply=lambda config, m: m)
    monkeypatch.setitem(MITIGATIONS, "dimming", entry)
    made, _ = arms.arms_of(sets.drawn_findings("quick"), "classifier", "full")
    (arm,) = [arm for arm in made if arm.name == "dimming"]
    assert [m.get("strength") for m in arm.mitigation] == [None, 2.0 / 3, 6.0]
    assert arm.title == "Losses are dimmed"


def test_constants_of_groups_are_declared_and_their_mean_weight_is_one():
    groups = sets.Groups("sex", (0.2, 0.8), (0.1, 0.3), least=0)
    (weights,) = [own["weights"] for own in arms.KNOWN["group_weights"](groups)[:1]]
    assert 0.2 * weights[0] + 0.8 * weights[1] == pytest.approx(1, abs=1e-3)
    assert weights[0] / weights[1] == pytest.approx(4, rel=1e-3)
    assert groups.cells == pytest.approx((0.18, 0.02, 0.56, 0.24))


def test_every_detector_has_a_training_of_its_own_and_none_is_called_otherwise():
    assert set(trainings.DETECTORS) == set(trainings.detectors())
    for method in trainings.DETECTORS[1:]:
        for size in ("quick", "default", "full"):
            tried = trainings.tried_of(method)
            assert len({str(fields) for fields in tried}) == trainings.budget_of(method, "full")
            for epsilon in (PLAIN, 8.0, 1.0):
                config = trainings.config_of(
                    "t", method, sets.rsna(size, None) | {"public_size": 500},
                    epsilon=epsilon, seed=1, size=size, changes=tried[0],
                )  # fmt: skip
                assert config.data.phantom.seed != 0, "settings were chosen on those of seed 0"
                if method in trainings.SUMS:
                    assert config.train.expected_batch_size == 500, "q = 1"
                    settings = settings_from_config(config)
                    assert "moment" in settings.optim.parts
                    assert config.train.steps < 20
                else:
                    assert config.train.expected_batch_size < 500


def test_sums_have_fewer_numbers_where_epsilon_is_smaller():
    counts = [
        trainings.config_of(
            "t", "pca", sets.rsna("quick", None) | {"public_size": 500}, epsilon=epsilon, seed=1,
            size="quick",
        ).method
        for epsilon in (PLAIN, 8.0, 1.0)
    ]  # fmt: skip
    assert [c.dims for c in counts] == sorted((c.dims for c in counts), reverse=True)
    assert all(c.directions == c.dims // 2 for c in counts) and counts[2].dims < counts[0].dims


def small_part(seeds=range(1, 6)):
    part = whole_plan().parts[0]
    few = [a for a in part.arms if a.name in (arms.BASE, arms.CONTROL, "group_weights")]
    few = tuple(a._replace(mitigation=2 * a.mitigation, changes=2 * a.changes) for a in few)
    return part._replace(arms=few, seeds=tuple(seeds))


def laid(tmp_path, helps, epsilons=None):
    """A base with a gap, its control with half of it, and weights that take `helps` of it."""
    part, table = small_part(), people(1_600)
    gaps = {arms.BASE: 1.0, arms.CONTROL: 0.5, "group_weights": 1.0 - helps}
    for place, arm in enumerate(part.arms):
        for setting in range(len(arm.changes)):
            for run in plan.runs_of(part, arm, 8.0, [setting]):
                if run.seed > 1 and setting:
                    continue
                number = 1_000 * place + 10 * run.seed + setting
                worse = 0.3 * setting  # the first setting is the best on validation
                made = scored(table, gaps[arm.name], number)
                made["y_score"] -= worse * made["y_true"]
                claim = (epsilons or {}).get(arm.name, 7.9996)
                pace = 0.1 * (1 + place)
                placed(tmp_path, run, made, claim, seconds=pace)
    return part


def test_e08_names_what_closes_a_gap_and_its_control_has_power(tmp_path):
    part = laid(tmp_path, helps=0.8)
    rows = e08_tables.rows_of([part], 8.0, tmp_path)
    assert rows["arm"].tolist() == [arms.BASE, arms.CONTROL, "group_weights", arms.SCALED[0]]
    by = rows.set_index("arm")
    assert by.loc["group_weights", "gap_change_high"] < 0 < by.loc[arms.BASE, "gap_low"]
    assert by.loc["group_weights", "slower"] == pytest.approx(3.0)
    assert (by["setting"] == 0).all() and (by["seeds"] == 5).all()
    for name in (arms.CONTROL, arms.SCALED[0]):
        assert np.isnan(by.loc[name, "gap_holm"]), "no arm of the family"
    assert "closed by group_weights" in page.verdict(rows)
    told = e08_tables.control(part, 8.0, tmp_path)
    assert told.found.ci_high < 0 and told.benefit < 0 and told.power > 0.8
    page.write(plan.Plan((part,), ()), tmp_path)
    text = (tmp_path / "tables" / "tables.md").read_text()
    assert "equal within 0.001" in text and "Positive control" in text
    assert (tmp_path / "tables" / "films_fae_8.csv").is_file()


def test_e08_says_when_nothing_helps_and_when_epsilons_differ(tmp_path):
    part = laid(tmp_path, helps=0.0, epsilons={"group_weights": 7.99})
    rows = e08_tables.rows_of([part], 8.0, tmp_path)
    assert "None closes the gap beyond noise" in page.verdict(rows)
    assert "NOT EQUAL" in page._equal(rows)
    run = next(plan.runs_of(part, part.arms[0], 8.0, [0]))
    faulty = Kept(True, "", 0.1, 8.0, ("the ledger is short",))
    assert "FAULTS in 1 runs" in report.check_equal([(run, faulty)])


def test_a_gap_that_is_turned_round_is_not_closed():
    made = lambda arm, gap, p: {
        "method": "fae",
        "arm": arm, "gap": gap, "gap_low": gap - 0.1, "gap_high": gap + 0.1, "gap_holm": p,
        "gap_change": gap - 0.2, "gap_change_low": gap - 0.3, "gap_change_high": gap - 0.1,
        "whole_change": 0.0,
    }  # fmt: skip
    rows = [made(arms.BASE, 0.2, math.nan), made("turning", -0.4, 0.01)]
    assert "None closes the gap" in page.verdict(pd.DataFrame(rows))
    rows.append(made("closing", 0.05, 0.01))
    assert "closed by closing: -0.150" in page.verdict(pd.DataFrame(rows))


def test_a_method_alone_has_a_table_and_no_figure_of_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(e08_tables, "DETECTORS", ())  # whose table would have one scale beside it
    part = laid(tmp_path, helps=0.0)
    page.write(plan.Plan((part._replace(arms=part.arms[:1], epsilons=(8.0,)),), ()), tmp_path)
    assert (tmp_path / "tables" / "films_fae_8.csv").is_file()
    assert not list((tmp_path / "tables").glob("*.png"))


def test_a_table_of_the_control_alone_compares_no_mitigation(tmp_path):
    part = laid(tmp_path, helps=0.0)
    rows = e08_tables.rows_of([part._replace(arms=part.arms[:2])], 8.0, tmp_path)
    assert set(rows["arm"]) == {arms.BASE, arms.CONTROL, arms.SCALED[0]}
    found = page.verdict(rows)
    assert "the gap is" in found and found.endswith("No mitigation is compared at this epsilon.")


def test_one_scale_evens_out_false_alarms_and_leaves_every_groups_own_auroc(tmp_path):
    part = small_part(seeds=(1,))
    (run,) = plan.runs_of(part, part.arms[0], 8.0, [0])
    table = scored(people(4_000), 0.5)
    placed(tmp_path, run, table.assign(y_score=table["y_score"] + 1.0 * (table["sex"] == "F")))
    found = [e08_tables._measured(part, [run], tmp_path, scaled=scaled) for scaled in (False, True)]
    before, after = ([kept.alarms[0].value, kept.gap[0].value] for kept in found)
    assert before[0] > 0.15 and abs(after[0]) < 0.03
    assert before[1] == pytest.approx(after[1]) and before[1] > 0.05


def test_a_setting_is_chosen_by_validation_alone(tmp_path):
    part = laid(tmp_path, helps=0.5)
    base = part.arms[0]
    best = plan.runs_of(part, base, 8.0, [1])
    folder = runs.folder_of(tmp_path, next(iter(best)))
    table = pd.read_parquet(folder / "predictions.parquet")
    held = table["split"] == "validation"
    table.loc[held, "y_score"] = table.loc[held, "y_true"]  # perfect, on validation only
    table.to_parquet(folder / "predictions.parquet")
    assert plan.chosen(tmp_path, part, base, 8.0)[0].setting == 1


def test_mitigations_are_compared_at_8_and_the_control_is_there_at_every_epsilon():
    for part in whole_plan().parts:
        for arm in part.arms:
            trained = [e for e in part.epsilons if plan.tried(part, arm, e)]
            everywhere = arm.name in (arms.BASE, arms.CONTROL)
            assert trained == (list(part.epsilons) if everywhere else [8.0])
    part = whole_plan().parts[0]._replace(size="full")
    assert all(plan.tried(part, arm, 1.0) for arm in part.arms)


def test_a_page_of_nothing_says_what_is_not_at_hand(tmp_path):
    part = whole_plan().parts[0]
    page.write(plan.Plan((part,), ("lesions: get them",)), tmp_path)
    text = (tmp_path / "tables" / "tables.md").read_text()
    assert "**Not run.**" in text and "Not run: lesions: get them" in text


def test_a_page_written_anew_keeps_nothing_of_an_earlier_one(tmp_path):
    told = report.Told()
    told.figures, told.numbers = {"a": b"png", "b": b"png"}, {"a": pd.DataFrame({"x": [1.0]})}
    report.save(tmp_path, "First", told)
    told.figures.pop("b")
    told.numbers = {"c": pd.DataFrame({"x": [1.0]})}
    report.save(tmp_path, "Second", told)
    assert {p.name for p in (tmp_path / "tables").iterdir()} == {"a.png", "c.csv", "tables.md"}


def test_a_rate_above_one_is_no_setting_and_a_milder_one_is_tried():
    """On lesions the rarest age is a fiftieth: eight times the rate of the draws is no rate."""
    found, left_out = arms.arms_of(sets.lesions("quick"), "classifier", "quick")
    factors = next(a for a in found if a.name == "upsampling").mitigation[0]["factors"]
    assert 1 < max(factors) < 8 and not any(line.startswith("upsampling") for line in left_out)


@pytest.mark.parametrize("method", cost.WORKS)
def test_the_cost_of_a_step_is_that_of_every_clip_rule_and_of_nothing_else(method):
    names = {name for name, _ in cost.compared(method, "quick")}
    assert {arms.BASE, "quantile_clip", "group_clip", "group_dro"} <= names
    assert not {"group_norms", "jtt", "composition"} & names
