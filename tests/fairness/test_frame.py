import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest

from jaxfair.errors import InputError
from jaxfair.fairness import metrics, parity
from jaxfair.fairness.catalog import METRICS
from jaxfair.fairness.frame import GroupFrame
from tests.fairness.conftest import make_predictions


def _rows() -> pd.DataFrame:
    """Three groups of 60 + 60 patients, one image each; C has no positives."""
    rng = np.random.default_rng(0)
    group = np.repeat(["A", "B", "C"], 120)
    y = np.tile([0.0, 1.0], 180) * (group != "C")
    return pd.DataFrame({"y_true": y, "y_score": rng.normal(size=360) + y, "site": group})


def _threshold(y, s):
    return metrics.sensitivity(y, s, 0.5)


def test_values_and_gaps_equal_fairlearn_where_all_groups_are_defined():
    rows = _rows().query("site != 'C'")
    frame = GroupFrame(rows, "site")
    peer = fairlearn.metrics.MetricFrame(
        metrics=metrics.auroc,
        y_true=rows["y_true"],
        y_pred=rows["y_score"],
        sensitive_features=rows["site"],
    )
    assert frame.by_group(metrics.auroc).to_dict() == pytest.approx(peer.by_group.to_dict())
    assert frame.gap(metrics.auroc) == pytest.approx(peer.difference())
    assert frame.worst(metrics.auroc)[1] == pytest.approx(peer.group_min())
    called = (rows["y_score"] >= 0.5).astype(int)
    odds = fairlearn.metrics.equalized_odds_difference(
        rows["y_true"], called, sensitive_features=rows["site"]
    )
    assert parity.equalized_odds(frame, 0.5).value == pytest.approx(odds)
    shares = fairlearn.metrics.demographic_parity_difference(
        rows["y_true"], called, sensitive_features=rows["site"]
    )
    assert parity.demographic_parity(frame, 0.5).value == pytest.approx(shares)


def test_a_group_without_positives_is_undefined_and_listed_where_fairlearn_says_zero():
    rows = _rows()
    rows = pd.concat([rows, rows.query("site == 'C'").assign(site="D", y_true=1.0)])
    frame = GroupFrame(rows, "site", split="test")
    peer = fairlearn.metrics.MetricFrame(
        metrics=fairlearn.metrics.true_positive_rate,
        y_true=rows["y_true"],
        y_pred=(rows["y_score"] >= 0.5).astype(int),
        sensitive_features=rows["site"],
    )
    assert peer.by_group["C"] == 0
    found = parity.equal_opportunity(frame, 0.5)
    assert found.undefined == ("C",)
    assert np.isnan(frame.by_group(_threshold)["C"])
    values = frame.by_group(_threshold)[["A", "B"]]
    assert found.value == pytest.approx(values.max() - values.min())
    assert set(parity.equalized_odds(frame, 0.5).undefined) == {"C", "D"}


def test_groups_with_too_few_patients_are_shown_counted_and_never_the_worst():
    rows = pd.concat([_rows(), pd.DataFrame({"y_true": [0, 1], "y_score": [1, 0], "site": "E"})])
    frame = GroupFrame(rows, "site")
    assert frame.by_group(metrics.auroc)["E"] == 0
    assert frame.worst(metrics.auroc)[0] in ("A", "B")
    assert frame.too_few == ["C", "E"]
    assert frame.counts().loc["E", "patients"] == 2


def test_many_images_of_few_patients_are_too_few():
    rows = _rows().query("site == 'A'").reset_index(drop=True)
    rows["patient_id"] = [f"p{i % 30}" for i in range(120)]
    frame = GroupFrame(rows, "site")
    assert frame.counts().loc["A", "images"] == 120
    assert frame.too_few == ["A"]


def test_to_rest_is_the_group_minus_all_other_rows():
    rows = _rows()
    found = GroupFrame(rows, "site").to_rest(_accuracy)
    inside = rows["site"] == "A"
    expected = _accuracy(*rows[inside][["y_true", "y_score"]].to_numpy().T) - _accuracy(
        *rows[~inside][["y_true", "y_score"]].to_numpy().T
    )
    assert found["A"] == pytest.approx(expected)


def _accuracy(y, s):
    return metrics.accuracy(y, s, 0.5)


def test_accuracy_parity_is_dp_cxrs_formula_and_not_statistical_parity():
    rows = _rows()
    frame = GroupFrame(rows, "site")
    accuracy, n = frame.by_group(_accuracy), rows["site"].value_counts()
    others = ["B", "C"]
    expected = accuracy["A"] - (n[others] * accuracy[others]).sum() / n[others].sum()
    assert parity.accuracy_parity(frame, 0.5)["A"] == pytest.approx(expected)
    shares = frame.by_group(lambda y, s: metrics.positive_rate(y, s, 0.5))
    assert parity.accuracy_parity(frame, 0.5)["A"] != pytest.approx(shares["A"] - shares["B"])


def test_accuracy_parity_of_the_worked_example():
    """Groups of 10, 30 and 60 patients with accuracies of 80, 85 and 90 %."""
    sizes, right = (100, 300, 600), (80, 255, 540)
    rows = pd.DataFrame({
        "site": np.repeat(["A", "B", "C"], sizes), "y_true": 1.0,
        "y_score": np.concatenate([np.arange(n) < k for n, k in zip(sizes, right)]).astype(float),
    })  # fmt: skip
    found = parity.accuracy_parity(GroupFrame(rows, "site"), 0.5)
    np.testing.assert_allclose(100 * found[["A", "B", "C"]], [-8.333, -3.571, 6.25], atol=1e-3)


def test_parity_by_chance_alone_is_what_random_groups_show():
    rows = _rows().query("site != 'C'").reset_index(drop=True)
    table = parity.parity_table(GroupFrame(rows, "site"), 0.5, seed=0, n_permutations=400)
    rng, seen = np.random.default_rng(1), []
    for _ in range(200):
        mixed = rows.copy()
        for label in (0, 1):
            here = rows["y_true"] == label
            mixed.loc[here, "site"] = rng.permutation(rows.loc[here, "site"])
        frame = GroupFrame(mixed, "site")
        seen.append([parity.equal_opportunity(frame, 0.5)[0], parity.equalized_odds(frame, 0.5)[0]])
    assert table["chance"][:2].to_numpy() == pytest.approx(np.mean(seen, axis=0), rel=0.12)


def test_parity_of_views_has_no_permutation_null_since_patients_have_both():
    table = parity.parity_table(GroupFrame(make_predictions(900), "view"), 0.5)
    assert table["chance"].isna().all() and table["difference"].notna().all()


def test_two_tasks_in_one_frame_are_refused():
    rows = pd.concat([make_predictions(50), make_predictions(50).assign(task="other")])
    with pytest.raises(ValueError, match="one task, got"):
        GroupFrame(rows, "sex")


def test_fate_is_worked_by_hand():
    assert parity.fate(0.88, 0.05, 0.80, 0.10) == pytest.approx(0.1 + 0.5)
    assert np.isnan(parity.fate(0.88, 0.05, 0.80, 0.0))


def test_loss_correlations_are_pearsons_r_and_need_four_points():
    level, plain = [0.8, 0.7, 0.9, 0.85, 0.6], np.array([0.81, 0.72, 0.88, 0.86, 0.62])
    private = plain - [0.05, 0.1, 0.02, 0.03, 0.15]
    table = parity.loss_correlations(level, plain, private, [10, 20, 30, 40, 50])
    assert table["r"][0] == pytest.approx(np.corrcoef(plain - private, level)[0, 1])
    assert (table["ci_low"] < table["r"]).all() and (table["r"] < table["ci_high"]).all()
    few = parity.loss_correlations(level[:3], plain[:3], private[:3], [1, 2, 3])
    assert few["r"].isna().all()


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_by_name_is_its_function_on_the_groups_rows(name):
    rows, metric = make_predictions(900), METRICS[name]
    thresholds = {"youden": 0.6, "fpr@0.05": 1.4, "sens@0.95": -0.2}
    frame = GroupFrame(rows, "sex", thresholds=thresholds)
    test = rows[rows["split"] == "test"]
    y, s = test["y_true"].to_numpy(), test["y_score"].to_numpy()
    for group in ("F", "M"):
        inside = (test["sex"] == group).to_numpy()
        more = {
            "scores": (y[inside], s[inside]),
            "all scores": (y, s, inside),
            "decisions": (y[inside], s[inside], thresholds.get(metric.rule)),
        }[metric.needs]
        assert frame.by_group(name)[group] == pytest.approx(metric.function(*more))


def test_which_end_is_worse_comes_from_the_catalog():
    frame = GroupFrame(make_predictions(3000, gap=1.0), "sex", thresholds={"youden": 0.6})
    assert frame.worst("auroc")[0] == frame.worst("sensitivity")[0] == "F"
    assert frame.worst("underdiagnosis")[0] == "F"
    assert frame.worst("underdiagnosis")[1] == frame.by_group("underdiagnosis").max()
    with pytest.raises(InputError, match="neither end is worse"):
        frame.worst("prevalence")


def test_a_metric_by_name_that_cannot_be_had_is_refused_with_the_cure():
    frame = GroupFrame(make_predictions(900), "sex")
    with pytest.raises(InputError, match=r"no metric 'aurocc'.* Did you mean 'auroc'"):
        frame.by_group("aurocc")
    with pytest.raises(InputError, match=r"give GroupFrame\(thresholds=\.\.\.\)"):
        frame.by_group("sensitivity")
    undefined = GroupFrame(make_predictions(900), "sex", thresholds={"youden": None})
    assert undefined.by_group("sensitivity").isna().all()
