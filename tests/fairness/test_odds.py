"""Gaps of decisions: fairlearn as oracle, slow truths, refits in draws and null, their level."""

import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest

from jaxfair.fairness import metrics
from jaxfair.fairness.areas import auroc_levels
from jaxfair.fairness.counted import clustered_rates
from jaxfair.fairness.gaps import max_min_gap
from jaxfair.fairness.levels import gap_table, range_intervals, spreads, with_null
from jaxfair.fairness.odds import decisions
from jaxfair.fairness.permutation import Switches
from jaxfair.fairness.predictions import patient_codes
from jaxfair.fairness.resamples import Resamples
from jaxfair.fairness.thresholds import fit_thresholds, group_thresholds, row_thresholds
from tests.fairness.conftest import make_predictions

WORST, MEAN = "delta-EO, worst case", "delta-EO, mean"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    table = make_predictions(3000, gap=0.5)
    return table.assign(y_score=table["y_score"].round(1))


@pytest.fixture(scope="module")
def resamples(rows) -> Resamples:
    return Resamples(rows, n_draws=60)


@pytest.mark.parametrize("per_group", [False, True])
@pytest.mark.parametrize("rule", ["min_gap", "youden", "g_means", "fixed@0.5"])
def test_both_conventions_of_equalized_odds_equal_fairlearn(rows, resamples, rule, per_group):
    found = decisions(
        resamples, "sex", rule=rule, per_group=per_group, n_permutations=0, min_cases=50
    )
    validation, test = (rows[rows["split"] == name] for name in ("validation", "test"))
    known = {g: t for g, (t, _) in group_thresholds(validation, "sex", rule, 50).items()}
    if not per_group:
        known = dict.fromkeys(known, group_thresholds(validation, "overall", rule)["all"][0])
    called = test["y_score"] >= test["sex"].map(known)  # rounded: many scores are at a threshold
    spread = spreads(found.levels)
    for name, agg in ((WORST, "worst_case"), (MEAN, "mean")):
        oracle = fairlearn.metrics.equalized_odds_difference(
            test["y_true"], called, sensitive_features=test["sex"], agg=agg
        )
        assert spread[name].value == pytest.approx(oracle, abs=1e-12)
    assert found.levels.overall == pytest.approx((called == test["y_true"]).mean())
    assert found.thresholds == pytest.approx(known)


def test_eopp1_is_the_gap_among_positives_and_eopp0_that_among_negatives(rows, resamples):
    spread = spreads(decisions(resamples, "sex", n_permutations=0).levels)
    at = fit_thresholds(rows)["anomaly"]["min_gap"]
    test = rows[rows["split"] == "test"]
    parts = [test[test["sex"] == sex] for sex in ("F", "M")]
    tpr, tnr = (
        abs(np.diff([f(p["y_true"], p["y_score"], at) for p in parts])[0])
        for f in (metrics.sensitivity, metrics.specificity)
    )
    assert spread["EOpp1 (TPR gap)"].value == pytest.approx(tpr)
    assert spread["EOpp0 (TNR gap)"].value == pytest.approx(tnr)
    assert tpr > 5 * tnr
    assert spread[MEAN].value == pytest.approx((tpr + tnr) / 2)


def test_a_group_below_200_cases_decides_at_the_pooled_threshold(rows, resamples):
    found = decisions(resamples, "age_group", per_group=True, n_permutations=0)
    pooled = decisions(resamples, "age_group", n_permutations=0)
    assert found.own == () and found.thresholds == pooled.thresholds
    by_sex = decisions(resamples, "sex", per_group=True, n_permutations=0, min_cases=150)
    assert by_sex.own == ("F", "M") and len(set(by_sex.thresholds.values())) == 2


def test_rates_and_variances_of_exchanged_patients_equal_a_loop():
    rng = np.random.default_rng(0)
    people = np.sort(rng.integers(0, 60, 200))
    people = np.unique(people, return_inverse=True)[1]
    y = (rng.random(200) < 0.4).astype(float)
    assigned, right = rng.integers(0, 3, (4, people.max() + 1)), rng.random((4, 200)) < 0.7
    values, variances = clustered_rates(y, people, right, assigned, 3)
    for i, line, g in np.ndindex(4, 2, 3):
        use = (assigned[i][people] == g) & (y == 1 - line)
        hits, n = (np.bincount(people[use], w) for w in (right[i][use], np.ones(use.sum())))
        rate, m = hits.sum() / n.sum(), (n > 0).sum()
        near = (hits.sum() + 0.5) / (n.sum() + 1)
        spread = ((hits - rate * n) ** 2).sum() / n.sum() ** 2 * m / (m - 1)
        assert values[i, line, g] == pytest.approx(rate)
        assert variances[i, line, g] == pytest.approx(max(spread, near * (1 - near) / n.sum()))


def test_draws_count_whole_patients_and_fit_thresholds_again(rows):
    resamples = Resamples(rows, n_draws=5)
    found = decisions(resamples, "sex", per_group=True, n_permutations=0, min_cases=50)
    parts = (
        (resamples.test, resamples.weights),
        (
            resamples.validation,
            resamples.validation_weights,
        ),
    )
    for draw in range(5):
        test, validation = (
            part.table.loc[np.repeat(np.arange(len(part)), weights[draw][part.people])]
            for part, weights in parts
        )
        # A threshold between two scores decides the redrawn validation patients alike, but not
        # all test patients: so both are compared at the threshold that the draw has found.
        known = {g: t for g, (t, _) in group_thresholds(validation, "sex", "min_gap", 50).items()}
        for g, name in enumerate(found.levels.groups):
            own = test[test["sex"] == name]
            steps = np.array([0.0, -0.1])  # the same cut between rounded scores
            rates = [
                [f(own["y_true"], own["y_score"], known[name] + step) for step in steps]
                for f in (metrics.sensitivity, metrics.specificity)
            ]
            drawn = found.levels.draws[draw, :, g]
            assert any(np.allclose(drawn, pair) for pair in zip(*rates, strict=True))


@pytest.mark.parametrize("per_group", [False, True])
def test_the_null_fits_thresholds_again_for_validation_patients_who_changed_groups(rows, per_group):
    resamples = Resamples(rows, seed=4, n_draws=20)
    found = decisions(
        resamples, "sex", per_group=per_group, n_permutations=6, min_cases=50
    ).levels.null
    rng = np.random.default_rng([4, 2])
    moved = {}
    for part in (resamples.test, resamples.validation):
        codes = part.codes("sex", ["F", "M"])
        switches = Switches.of(part.y, part.people, codes, 2)
        moved[part] = [
            np.array(["F", "M"])[a[part.people]] for a in switches.drawn(6, rng)
        ]  # the order of the draws: test patients, then validation patients
    for i in range(6):
        test = resamples.test.table.assign(sex=moved[resamples.test][i])
        validation = resamples.validation.table.assign(sex=moved[resamples.validation][i])
        fitted = group_thresholds(validation, "sex", "min_gap", 50)
        pooled = group_thresholds(validation, "overall", "min_gap")["all"]
        rates = []
        for sex, part in test.groupby("sex", sort=True):
            at = (fitted[sex] if per_group else pooled)[0]
            rates.append([f(part["y_true"], part["y_score"], at)
                          for f in (metrics.sensitivity, metrics.specificity)])  # fmt: skip
        assert found[i] == pytest.approx(np.ptp(rates, axis=0))


def test_thresholds_of_small_groups_alone_make_a_gap_that_the_null_knows():
    table = make_predictions(1600, images_per_patient=1)
    table = table[(table["split"] == "test") | (np.arange(len(table)) % 5 == 0)]
    resamples = Resamples(table, n_draws=20)
    one, own = (
        decisions(resamples, "sex", per_group=p, min_cases=5, n_permutations=99).levels
        for p in (False, True)
    )
    nulls = [spreads(levels)[WORST].null_mean for levels in (one, own)]
    assert nulls[1] > 1.5 * nulls[0]


def test_a_gap_that_chance_explains_has_an_interval_that_holds_0(resamples):
    levels = decisions(resamples, "sex").levels
    assert spreads(levels)[WORST].ci_low > 0
    as_large = levels._replace(null_t=levels.null_t + 100)
    assert spreads(as_large)[WORST].ci_low == 0 and spreads(as_large)[WORST].p_value == 1


def test_patients_exchange_groups_with_those_of_like_labels_and_number_of_images():
    people = np.repeat(np.arange(90), np.tile([1, 3, 9], 30))
    y = (people % 2 == 0).astype(float)
    switches = Switches.of(y, people, people % 5, 4)
    kinds = np.stack([np.bincount(people), np.arange(90) % 2, switches.own == 4])
    found = switches.drawn(50, np.random.default_rng(0))
    for kind in np.unique(kinds, axis=1).T:
        alike = (kinds == kind[:, None]).all(axis=0)
        own = np.sort(switches.own[alike])
        assert (np.sort(found[:, alike], axis=1) == own).all()
    assert (found[:, switches.own == 4] == 4).all()  # those of a group that is not compared
    assert (found != switches.own).any(axis=0).sum() > 60


def test_where_patients_are_in_several_groups_the_null_is_the_centred_bootstrap(resamples):
    spread = spreads(decisions(resamples, "view").levels)[WORST]
    assert spread.method == "bootstrap" and 0 < spread.null_mean < spread.null_95
    assert spreads(decisions(resamples, "sex").levels)[WORST].method == "permutation"


def test_what_cannot_be_compared_is_undefined_and_never_zero(rows, resamples):
    one = decisions(resamples, "sex", groups=["F"])
    assert np.isnan(spreads(one.levels)[WORST][:3]).all()
    assert one.levels.overall == decisions(resamples, "sex").levels.overall
    odd = rows.assign(sex=rows["sex"].where(rows["y_true"] == 1, "F"))  # no man without disease
    gap = spreads(decisions(Resamples(odd, n_draws=20), "sex", groups=["F", "M"]).levels)[WORST]
    assert np.isnan([gap.value, gap.ci_low, gap.p_value]).all() and gap.method == "undefined"


def test_stored_thresholds_decide_where_nothing_can_be_fitted(rows):
    stored = fit_thresholds(rows, attributes=["sex"])["anomaly"]
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    resamples = Resamples(test, n_draws=20)
    for per_group in (False, True):
        found = decisions(resamples, "sex", per_group=per_group, stored=stored)
        at = row_thresholds(test, stored, "sex" if per_group else None)
        right = (test["y_score"] >= at) == (test["y_true"] == 1)
        assert found.levels.overall == pytest.approx(right.mean())
        null = spreads(found.levels)[WORST].null_mean
        assert np.isnan(null) == per_group  # its thresholds cannot be fitted again
    nothing = decisions(resamples, "sex", per_group=True, stored={"min_gap": 0.3})
    assert np.isnan(nothing.levels.overall)


def test_the_order_of_rows_changes_no_number(rows):
    mixed = rows.sample(frac=1, random_state=1).reset_index(drop=True)
    tables = [
        gap_table({"sex": decisions(Resamples(t, n_draws=30), "sex", per_group=True).levels})
        for t in (rows, mixed)
    ]
    pd.testing.assert_frame_equal(*tables)


def test_the_area_of_each_group_its_interval_and_its_null(rows, resamples):
    levels = auroc_levels(resamples, "sex")
    test = rows[rows["split"] == "test"]
    expected = [metrics.auroc(p["y_true"], p["y_score"]) for _, p in test.groupby("sex", sort=True)]
    assert levels.values[0] == pytest.approx(expected)
    assert levels.overall == pytest.approx(metrics.auroc(test["y_true"], test["y_score"]))
    gap = max_min_gap(
        test["y_true"], test["y_score"], test["sex"], patient_codes(test)[0], seed=0,
        n_replicates=99,
    )  # fmt: skip
    spread = with_null(spreads(levels)["delta-AUC"], gap)
    assert spread.value == pytest.approx(gap.value) and spread.p_value == gap.p_value
    assert spread.excess == pytest.approx(gap.value - gap.null_mean)
    assert 0 < spread.ci_low < spread.value < spread.ci_high


def test_the_interval_of_a_range_covers_it_also_where_there_is_none():
    rng, held = np.random.default_rng(0), np.zeros(3)
    truths = (np.zeros(4), np.array([0, 0, 0, 0.1]), np.array([0, 0.02, 0.05, 0.06]))
    for _ in range(400):
        noise = rng.normal(size=4) * [0.01, 0.02, 0.03, 0.02]
        draws = rng.normal(size=(100, 1, 4)) * [0.01, 0.02, 0.03, 0.02]
        for i, truth in enumerate(truths):
            values = (truth + noise)[None]
            (low,), (high,) = range_intervals(values, values + draws, np.zeros((1, 4)))
            held[i] += 0 <= low <= np.ptp(truth) <= high
    assert (held >= 0.93 * 400).all(), held


def drawn(seed: int, gap: float = 0.0, n_patients: int = 900) -> pd.DataFrame:
    """A rare disease in 8 subgroups of unequal size, prevalence and images per patient."""
    rng = np.random.default_rng([2026, seed])
    share = 0.75 ** np.arange(8)
    group = rng.choice(8, n_patients, p=share / share.sum())
    images = 1 + rng.poisson(0.5 + group / 8)
    patient = np.repeat(np.arange(n_patients), images)
    g = group[patient]
    y = (rng.random(len(g)) < 0.1 + 0.02 * g).astype(float)
    noise = 0.7 * rng.normal(size=n_patients)[patient] + 0.7 * rng.normal(size=len(g))
    return pd.DataFrame(
        {
            "image_id": [f"{i:05d}" for i in range(len(g))],
            "patient_id": [f"{i:05d}" for i in patient],
            "split": np.where(patient % 2 == 0, "validation", "test"),
            "y_true": y,
            "y_score": noise + y * (1.4 - gap * (g == 0)),
            "group": [f"g{i}" for i in g],
        }
    )


def _rejected(seeds: range, per_group: bool) -> tuple[float, np.ndarray]:
    groups, found, excess = [f"g{i}" for i in range(8)], [], []
    for seed in seeds:
        resamples = Resamples(drawn(seed), seed=seed, n_draws=20)
        spread = spreads(
            decisions(
                resamples, "group", per_group=per_group, groups=groups, n_permutations=99,
                min_cases=12,
            ).levels
        )[WORST]  # fmt: skip
        if np.isfinite(spread.p_value):
            found.append(spread.p_value <= 0.05)
            excess.append(spread.excess)
    assert len(found) > 0.8 * len(seeds)
    return float(np.mean(found)), np.array(excess)


@pytest.mark.parametrize("per_group", [False, True])
def test_no_true_gap_of_decisions_is_called_one_in_short_form(per_group):
    """Rare disease, 8 unequal subgroups, several images each; all of it is in the slow one."""
    rejected, excess = _rejected(range(40), per_group)
    assert rejected <= 0.15
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(excess))


@pytest.mark.slow
@pytest.mark.parametrize("per_group", [False, True])
def test_no_true_gap_of_decisions_is_called_one_in_2_to_8_5_percent(per_group):
    rejected, excess = _rejected(range(400), per_group)
    assert 0.02 <= rejected <= 0.085
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(excess))
