import importlib.util
import pathlib

import numpy as np
import pytest

from jaxfair.fairness import delong, metrics
from jaxfair.fairness.gaps import max_min_gap

_STUDY = pathlib.Path(__file__).parents[2] / "experiments/e02_fairness_study/study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("fairness_study", _STUDY)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _case(seed: int, images: int, n: int = 240, n_groups: int = 3, digits: int = 1):
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // images
    groups = rng.integers(0, n_groups, n)[patients]
    y = (rng.random(n) < 0.4).astype(float)
    return y, np.round(rng.normal(size=n) + y, digits), groups, patients


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("digits", [1, 9])
def test_value_and_statistic_equal_those_of_the_plain_functions(images, digits):
    y, s, groups, patients = _case(0, images, digits=digits)
    found = max_min_gap(y, s, groups, patients, seed=0, n_replicates=5)
    parts = [groups == g for g in range(3)]
    estimates = [delong.auroc_estimate(y[i], s[i], patients[i]) for i in parts]
    values = [metrics.auroc(y[i], s[i]) for i in parts]
    errors = [
        abs(a.value - b.value) / np.sqrt(a.variance + b.variance)
        for k, a in enumerate(estimates)
        for b in estimates[k + 1 :]
    ]
    # Between clusters the null drops the small-sample factor of the cross term: below 1 %.
    assert found.value == pytest.approx(np.ptp(values))
    assert found.statistic == pytest.approx(max(errors), rel=1e-9 if images == 1 else 0.02)
    assert found.method == "permutation"


def test_the_null_keeps_each_group_at_its_number_of_positives():
    # All positives of the small group stay as many: no permutation may leave it without.
    y = np.r_[np.ones(2), np.zeros(50), np.ones(50), np.zeros(50)]
    groups = np.r_[np.zeros(52), np.ones(100)]
    s = np.random.default_rng(0).normal(size=152)
    found = max_min_gap(y, s, groups, seed=0)
    assert np.isfinite(found[:5]).all()


def test_same_seed_same_gap_and_a_shift_of_all_scores_changes_nothing():
    y, s, groups, patients = _case(1, 2)
    found = max_min_gap(y, s, groups, patients, seed=3, n_replicates=99)
    assert found == max_min_gap(y, 2 * s + 5, groups, patients, seed=3, n_replicates=99)
    assert found != max_min_gap(y, s, groups, patients, seed=4, n_replicates=99)


def test_patients_in_several_groups_take_the_cluster_bootstrap():
    y, s, _, patients = _case(2, 4)
    view = np.random.default_rng(0).choice(["AP", "PA"], len(y))
    found = max_min_gap(y, s, view, patients, seed=0, n_replicates=200)
    assert found.method == "bootstrap"
    assert 0 < found.null_mean < found.null_95 and 0 < found.p_value <= 1


def test_a_gap_that_control_explains_is_no_gap_within_its_strata(study):
    hits = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        view = rng.random(600) < 0.5
        groups = rng.random(600) < np.where(view, 0.9, 0.1)
        y = (rng.random(600) < 0.5).astype(float)
        s = rng.normal(size=600) + y * np.where(view, 0.5, 2.5)
        plain = max_min_gap(y, s, groups, seed=0, n_replicates=99)
        within = max_min_gap(y, s, groups, seed=0, control=view, n_replicates=99)
        assert plain.p_value <= 0.05
        hits += within.p_value <= 0.05
    assert hits <= 4


@pytest.mark.parametrize("groups", [np.zeros(60), np.arange(60) == 0])
def test_one_group_or_a_group_without_a_label_is_undefined(groups):
    rng = np.random.default_rng(0)
    found = max_min_gap(rng.integers(0, 2, 60), rng.normal(size=60), groups, seed=0)
    assert found.method == "undefined" and np.isnan(found.value)


@pytest.mark.parametrize(
    "name",
    [
        "two_groups",
        "unequal_prevalence",
        pytest.param("five_images_per_patient", marks=pytest.mark.slow),
        pytest.param("three_groups", marks=pytest.mark.slow),
        pytest.param("unequal_variance", marks=pytest.mark.slow),
        pytest.param("shifted_scores", marks=pytest.mark.slow),
    ],
)
def test_no_true_gap_is_called_significant_in_2_to_8_5_percent(study, name):
    share = study.run(400, [name], n=99)["share"].item()
    assert 0.02 <= share <= 0.085


def test_intervals_cover_the_truth_in_short_form(study):
    table = study.run(400, list(study.COVERAGE))
    assert table["share"].between(0.915, 0.98).all(), table


@pytest.mark.slow
def test_contrasts_find_the_planted_group_and_no_other(study):
    table = study.run(100, ["no_group_worse", "women_worse"])
    share = table.set_index(["scenario", "outcome"])["share"]
    assert share["no_group_worse"].max() <= 0.1
    assert share["women_worse", "F flagged"] > 0.7
    assert share["women_worse", "any other flagged"] <= 0.1


def test_a_gap_between_groups_that_share_no_view_has_no_p_value():
    rng = np.random.default_rng(0)
    sex = rng.integers(0, 2, 800)
    y = (rng.random(800) < 0.4).astype(float)
    s = rng.normal(size=800) + y * np.where(sex == 1, 0.2, 2.5)
    found = max_min_gap(y, s, sex, seed=0, control=sex, n_replicates=99)
    assert found.value > 0.3 and found.method == "undefined" and np.isnan(found.p_value)
    few = np.where(np.arange(800) % 50 == 0, 1 - sex, sex)
    found = max_min_gap(y, s, sex, seed=0, control=few, n_replicates=99)
    assert found.method == "undefined" and np.isnan(found.p_value)


def test_constant_scores_have_no_gap_and_no_p_value_in_overlapping_groups_either():
    y, _, _, patients = _case(2, 4)
    view = np.random.default_rng(0).choice(["AP", "PA"], len(y))
    found = max_min_gap(y, np.ones(len(y)), view, patients, seed=0, n_replicates=50)
    assert found.value == 0 and found.method == "undefined" and np.isnan(found.p_value)
