import numpy as np
import pandas as pd
import pytest

from jaxfair.fairness import metrics
from jaxfair.fairness.comparable import mix_weights
from jaxfair.fairness.contrasts import COLUMNS, group_contrasts
from jaxfair.fairness.multiplicity import bootstrap_sums, holm, romano_wolf
from jaxfair.fairness.predictions import checked
from tests.fairness.conftest import make_predictions


def _confounded(n: int = 2000) -> pd.DataFrame:
    """AP is harder and women are mostly AP; within a view the sexes are alike."""
    rng = np.random.default_rng(0)
    sex = rng.choice(["F", "M"], n)
    ap = rng.random(n) < np.where(sex == "F", 0.8, 0.2)
    y = (rng.random(n) < 0.4).astype(float)
    score = rng.normal(size=n) + y * np.where(ap, 0.4, 2.5)
    return pd.DataFrame(
        {"y_true": y, "y_score": score, "sex": sex, "view": np.where(ap, "AP", "PA")}
    )


def test_a_difference_that_is_only_view_mix_vanishes_when_standardised():
    rows = _confounded()
    raw = group_contrasts(rows, ["sex"], seed=0, control=None, n_draws=200)
    same_mix = group_contrasts(rows, ["sex"], seed=0, n_draws=200)
    assert raw["flagged"].sum() == 1 and raw["difference"].min() < -0.1
    assert not same_mix["flagged"].any() and abs(same_mix["difference"].min()) < 0.05
    assert same_mix["standardised"].all() and not raw["standardised"].any()


def test_weights_give_both_sides_the_pooled_mix_in_each_label():
    rows = checked(_confounded(500))
    y = rows["y_true"].to_numpy()
    strata = (rows["view"] == "AP").to_numpy().astype(np.int64)
    women = (rows["sex"] == "F").to_numpy()
    for chosen in (women, ~women):
        w = mix_weights(y, strata, chosen, ~chosen)
        for label in (0, 1):
            here = y == label
            share = w[here & chosen & (strata == 1)].sum() / w[here & chosen].sum()
            assert share == pytest.approx(strata[here].mean())


def test_strata_that_one_side_lacks_are_left_out_on_both():
    rows = _confounded(1500)
    rows.loc[(rows["sex"] == "F") & (rows.index % 50 == 0), "view"] = "lateral"
    kept = rows[rows["view"] != "lateral"]
    found, other = (group_contrasts(r, ["sex"], seed=0, n_draws=20) for r in (rows, kept))
    columns = ["value", "rest", "difference"]
    pd.testing.assert_frame_equal(found[columns], other[columns])


def test_without_control_the_values_are_the_plain_ones():
    rows = make_predictions(800)
    table = group_contrasts(rows, ["age_group"], seed=0, control=None, n_draws=50)
    assert tuple(table.columns) == COLUMNS
    test = checked(rows).query("split == 'test'")
    for _, row in table.iterrows():
        part = test[test["age_group"] == row["group"]]
        assert row["value"] == pytest.approx(metrics.auroc(part["y_true"], part["y_score"]))


def test_of_two_groups_only_the_lower_keeps_the_one_contrast():
    table = group_contrasts(make_predictions(2000, gap=1.0), ["sex"], seed=0, n_draws=200)
    by_group = table.set_index("group")
    assert by_group.loc["F", "flagged"] and by_group.loc["F", "difference"] < 0
    assert np.isnan(by_group.loc["M", "difference"]) and not by_group.loc["M", "flagged"]
    assert np.isfinite(by_group["value"]).all()


def test_a_better_group_is_never_flagged_however_large_the_difference():
    rows = make_predictions(3000, gap=-2.0)
    rows["site"] = np.where(rows["sex"] == "F", "a", np.where(rows["age"] < 50, "b", "c"))
    table = group_contrasts(rows, ["site"], seed=0, n_draws=200).set_index("group")
    assert table.loc["a", "difference"] > 0.1
    assert not table.loc["a", "flagged"] and table.loc["a", "p"] > 0.9


def test_groups_with_too_few_patients_are_shown_and_not_tested():
    rows = make_predictions(1500)
    rows.loc[rows["patient_id"].astype(int) < 30, "sex"] = "X"
    table = group_contrasts(rows, ["sex"], seed=0, n_draws=100).set_index("group")
    assert table.loc["X", "too_few"] and np.isnan(table.loc["X", "p"])
    assert np.isfinite(table.loc["X", "difference"])
    assert table["p"].notna().sum() == 1


def test_two_groups_that_are_not_each_others_rest_keep_both_contrasts():
    rows = make_predictions(3000)
    patients = rows["patient_id"].astype(int)
    rows["site"] = np.where(patients % 4 == 0, "a", np.where(patients % 4 == 1, "b", "small"))
    small = rows["site"] == "small"
    rows.loc[small, "site"] = "s" + (patients[small] % 60).astype(str)
    table = group_contrasts(rows, ["site"], seed=0, n_draws=50).set_index("group")
    assert table.loc[["a", "b"], "p"].notna().all()
    assert table["p"].notna().sum() == 2


def test_one_large_group_is_tested_against_many_small_ones_together():
    rows = make_predictions(1500)
    patients = rows["patient_id"].astype(int)
    rows["site"] = np.where(patients % 2 == 0, "a", "s" + (patients % 30).astype(str))
    table = group_contrasts(rows, ["site"], seed=0, n_draws=50).set_index("group")
    assert np.isfinite(table.loc["a", "p"]) and table["p"].notna().sum() == 1


def test_corrected_p_values_are_never_below_the_plain_ones():
    rows = make_predictions(3000, gap=0.3)
    table = group_contrasts(rows, ["sex", "age_group", "view"], seed=0, n_draws=999).dropna(
        subset=["p"]
    )
    assert (table["p_corrected"] >= table["p"] - 0.02).all()
    order = table.sort_values("p")
    assert order["p_corrected"].is_monotonic_increasing or table["p"].nunique() == 1


def test_holm_is_worked_by_hand_and_leaves_undefined_alone():
    found = holm([0.01, np.nan, 0.04, 0.02, 0.9])
    assert found == pytest.approx([0.04, np.nan, 0.08, 0.06, 0.9], nan_ok=True)


def test_romano_wolf_with_one_hypothesis_is_its_own_bootstrap_p():
    null = np.linspace(-3, 3, 999)[:, None]
    assert romano_wolf([2.0], null).item() == pytest.approx((1 + (null >= 2).sum()) / 1000)


def test_romano_wolf_gains_on_holm_where_statistics_are_copies():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(4999, 1))
    copies = romano_wolf([2.0] * 5, np.repeat(one, 5, axis=1))
    apart = romano_wolf([2.0] * 5, rng.normal(size=(4999, 5)))
    assert copies == pytest.approx(0.0228, abs=0.005)
    assert apart[0] == pytest.approx(1 - (1 - 0.0228) ** 5, abs=0.012)


def test_bootstrap_errors_equal_those_of_drawing_patients_by_hand():
    rng = np.random.default_rng(0)
    influence = rng.normal(size=(40, 2))
    influence -= influence.mean(axis=0)
    moved, errors = bootstrap_sums(influence, 300, np.random.default_rng(1))
    drawn = np.random.default_rng(1).integers(0, 40, (300, 40))
    assert moved == pytest.approx(influence[drawn].sum(axis=1))
    assert errors == pytest.approx(influence[drawn].std(axis=1) * np.sqrt(40))
