import numpy as np
import pandas as pd
import pytest

from jaxfair.fairness import metrics
from jaxfair.fairness.comparable import mix_weights
from jaxfair.fairness.contrasts import (
    _DRAWS,
    COLUMNS,
    _affordable,
    group_contrasts,
    n_comparisons,
)
from jaxfair.fairness.multiplicity import balanced, bootstrap_sums, holm, romano_wolf
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


def _made(n: int = 1600, **columns: np.ndarray) -> pd.DataFrame:
    """Single images of men and women with risks that are true in both sexes."""
    rng = np.random.default_rng(3)
    risk = rng.beta(1, 3, n)
    y = (rng.random(n) < risk).astype(float)
    sex = rng.choice(["F", "M"], n)
    return pd.DataFrame({"y_true": y, "y_score": risk, "sex": sex, **columns})


def test_patients_who_share_no_view_with_the_rest_are_not_compared():
    rows = _confounded()
    rows["view"] = np.where(rows["sex"] == "F", "AP", "PA")
    table = group_contrasts(rows, ["sex"], seed=0, thresholds={"score": 0.5}, n_draws=39)
    assert (table["why"] == "no view in common with the rest").all()
    assert table["p"].isna().all() and not table["flagged"].any() and n_comparisons(table) == 0


def test_a_handful_at_a_view_in_common_is_too_few_to_compare():
    rows = _confounded()
    rows["view"] = np.where((rows["sex"] == "F") & (rows.index % 100 > 0), "AP", "PA")
    table = group_contrasts(rows, ["sex"], seed=0, n_draws=39)
    assert (table["why"] == "too few patients at a view in common with the rest").all()


def test_a_handful_of_each_sex_at_the_others_view_is_nobody_to_change_places_with():
    rows = _confounded(3000)
    swapped = rows.index % 50 == 0
    rows["view"] = np.where((rows["sex"] == "F") ^ swapped, "AP", "PA")
    table = group_contrasts(rows, ["sex"], seed=0, n_draws=39)
    assert (table["why"] == "too few patients alike enough to change places").all()


def test_patients_who_find_nobody_alike_are_not_compared():
    rows = make_predictions(1600, images_per_patient=2).assign(split="test")
    # Both sexes have both views, but each man has one of them alone and each woman both.
    place = np.arange(len(rows)) % 2
    man = rows["sex"] == "M"
    rows["view"] = np.where(np.where(man, rows["patient_id"].astype(int), place) % 2, "AP", "PA")
    table = group_contrasts(rows, ["sex"], seed=0, n_draws=39)
    assert (table["why"] == "too few patients alike enough to change places").all()
    assert table["difference"].notna().all() and table["p"].isna().all()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"y_score": 1.0}, "all scores are equal"),
        ({"sex": "F"}, "the only group"),
    ],
)
def test_what_cannot_differ_is_not_compared(change, why):
    table = group_contrasts(_made().assign(**change), ["sex"], seed=0, n_draws=39)
    assert set(table["why"]) == {why} and n_comparisons(table) == 0


def test_who_is_missed_and_who_is_alarmed_are_found_where_the_auroc_is_the_same():
    rows = make_predictions(3000, images_per_patient=1, seed=1)
    rows["y_score"] += 0.9 * (rows["sex"] == "M")
    table = group_contrasts(rows, ["sex"], seed=0, thresholds={"anomaly": 1.0}, n_draws=199)
    called = set(map(tuple, table.loc[table["flagged"], ["statistic", "group"]].to_numpy()))
    assert called == {("sensitivity", "F"), ("specificity", "M")}


@pytest.mark.parametrize("off", [0.12, -0.12])
def test_a_risk_that_is_stated_too_low_or_too_high_is_found(off):
    rows = _made()
    stated = np.clip(rows["y_score"] - off * (rows["sex"] == "F"), 0, 1)
    risks = {"score": stated.to_numpy()}
    table = group_contrasts(rows, ["sex"], seed=0, probabilities=risks, n_draws=199)
    worse = table[table["flagged"]]
    assert worse[["statistic", "group"]].to_numpy().tolist() == [["calibration", "F"]]
    assert np.sign(worse["value"].item()) == np.sign(off)


def test_a_group_with_true_risks_is_not_flagged_for_the_errors_of_the_rest():
    rows = _made()
    rows["site"] = np.random.default_rng(1).choice(["a", "b", "c"], len(rows))
    stated = np.clip(rows["y_score"] + 0.2 * (rows["site"] == "a"), 0, 1).to_numpy()
    table = group_contrasts(rows, ["site"], seed=0, probabilities={"score": stated}, n_draws=199)
    found = table[table["statistic"] == "calibration"].set_index("group")["flagged"]
    assert found.to_dict() == {"a": True, "b": False, "c": False}


def _labelled(rows: pd.DataFrame, names: str) -> pd.DataFrame:
    """The rows under the first name, and the same with labels and scores shuffled under others."""
    parts = [rows.assign(task=names[0])]
    rng = np.random.default_rng(0)
    for name in names[1:]:
        order = rng.permutation(len(rows))
        shuffled = {c: rows[c].to_numpy()[order] for c in ("y_true", "y_score")}
        parts.append(rows.assign(task=name, **shuffled))
    return pd.concat(parts, ignore_index=True)


def test_all_labels_and_statistics_are_one_family():
    rows = make_predictions(1500, gap=0.7).drop(columns="task")
    alone, among = (
        group_contrasts(
            _labelled(rows, names), ["sex"], seed=0, thresholds=dict.fromkeys(names, 0.8)
        )
        for names in ("a", "abcdefgh")
    )
    assert n_comparisons(alone) == 3 and n_comparisons(among) == 24
    kept = among[among["task"] == "a"].reset_index(drop=True)
    assert kept["p"].equals(alone["p"])
    ranked = alone.loc[0], kept.loc[0]
    assert ranked[0]["statistic"] == "auroc" and ranked[0]["p_corrected"] < 0.02
    middle = alone["p_corrected"].between(0.02, 0.9)
    assert middle.any() and (kept["p_corrected"] > alone["p_corrected"])[middle].all()


def test_no_flag_contradicts_its_interval():
    rng = np.random.default_rng(0)
    for seed in range(12):
        rows = make_predictions(900, gap=0.35, seed=seed)
        rows["site"] = rng.choice(["a", "b", "c"], len(rows))
        table = group_contrasts(
            rows, ["sex", "site"], seed=seed, thresholds={"anomaly": 0.8}, n_draws=79
        ).dropna(subset=["p"])
        below = table["ci_high"] < 0
        assert (below == (table["p"] <= 0.025)).all()
        assert below[table["flagged"]].all()
        inside = table["difference"].between(table["ci_low"], table["ci_high"])
        assert inside.all()


def test_columns_of_long_tails_do_not_set_the_bar_for_others():
    rng = np.random.default_rng(0)
    null = np.c_[rng.normal(size=(1999, 1)), 20 * rng.standard_t(2, size=(1999, 1))]
    as_they_are = romano_wolf([3.2, 0.0], null)
    fair = romano_wolf(*balanced([3.2, 0.0], null))
    assert as_they_are[0] > 0.3 and fair[0] < 0.01


def test_few_draws_suffice_for_many_rows_and_all_give_exact_levels():
    assert [_affordable(work) for work in (1000, 3_000_000, 10**9)] == [999, 399, 199]
    for draws in _DRAWS:
        assert (draws + 1) * 0.025 == int((draws + 1) * 0.025)
