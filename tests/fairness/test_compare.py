import numpy as np
import pandas as pd
import pytest

from jaxfair.errors import InputError
from jaxfair.fairness import metrics, selection
from jaxfair.fairness.compare import fairness_law, private_against_plain, two_source
from jaxfair.fairness.delong import Estimate, auroc_estimate, difference


def _arm(seeds, signal: float, n: int = 400, gap: float = 0.0, noise: float = 0.3):
    """Predictions of several training seeds on one set of test images."""
    rng = np.random.default_rng(0)
    y, sex = (rng.random(n) < 0.5).astype(float), rng.choice(["F", "M"], n)
    base = rng.normal(size=n)
    tables = []
    for seed in seeds:
        own = np.random.default_rng([1, seed])
        level = signal * (1 + 0.1 * own.normal()) - gap * (sex == "F")
        score = base + noise * own.normal(size=n) + y * level
        ids = [f"i{i}" for i in range(n)]
        table = pd.DataFrame({"image_id": ids, "y_true": y, "y_score": score, "sex": sex})
        tables.append(table.sample(frac=1, random_state=seed))
    return tables


def test_the_loss_is_the_difference_of_the_arms_means_by_group():
    plain, private = _arm(range(5), 2.0), _arm(range(9, 14), 1.5, gap=0.5)
    table = private_against_plain(plain, private, "sex").set_index("group")
    for group in ("F", "M"):
        means = []
        for arm in (plain, private):
            parts = [t[t["sex"] == group] for t in arm]
            means.append(np.mean([metrics.auroc(p["y_true"], p["y_score"]) for p in parts]))
        assert table.loc[group, "value"] == pytest.approx(means[0] - means[1])
    assert table.loc["F", "disparity"] == pytest.approx(
        table.loc["F", "value"] - table.loc["M", "value"]
    )
    assert table.loc["F", "disparity_low"] > 0
    assert table.loc["F", "disparity_low"] == pytest.approx(-table.loc["M", "disparity_high"])


def test_below_five_seeds_there_is_a_value_and_no_interval():
    table = private_against_plain(_arm(range(3), 2.0), _arm(range(9, 14), 1.5))
    assert np.isfinite(table["value"]).all() and table["ci_low"].isna().all()
    assert np.isfinite(table["sd_patients"]).all()


def test_runs_on_other_test_images_are_refused():
    other = [t.assign(image_id="x" + t["image_id"]) for t in _arm([1], 1.5)]
    with pytest.raises(InputError, match=r"not tested on the same images \(800 are in one only"):
        private_against_plain(_arm([0], 2.0), other)


def test_one_seed_per_arm_leaves_the_paired_patient_variance():
    (a,), (b,) = _arm([0], 2.0), _arm([1], 1.5)
    a, b = a.sort_values("image_id"), b.sort_values("image_id")
    paired = difference(
        auroc_estimate(a["y_true"], a["y_score"]), auroc_estimate(b["y_true"], b["y_score"])
    )
    table = private_against_plain([a], [b])
    assert table["sd_patients"].item() == pytest.approx(paired.se)


def _seeds(rng, n_seeds: int, shared: np.ndarray, sd_seed: float):
    """Estimates of a mean over 200 patients, that move by seed."""
    n = len(shared)
    found = []
    for _ in range(n_seeds):
        value = shared.mean() + sd_seed * rng.normal()
        part = (shared - shared.mean()) / n
        parts = np.stack([part, np.zeros(n)])
        members = np.stack([np.ones(n, dtype=bool), np.zeros(n, dtype=bool)])
        variance = float((part**2).sum() * n / (n - 1))
        found.append(Estimate(value, variance, n - 1.0, parts, members))
    return found


@pytest.mark.parametrize("seeds", [(5, 5), (5, 8)])
def test_the_interval_covers_when_both_seeds_and_patients_vary(seeds):
    hits, repeats = 0, 600
    for repeat in range(repeats):
        rng = np.random.default_rng([3, repeat])
        patients = rng.normal(size=(2, 200))
        common = patients[0]
        arms = (common + 0.5 * rng.normal(size=200), common + 0.5 * rng.normal(size=200))
        plain = _seeds(rng, seeds[0], arms[0], 0.05)
        private = _seeds(rng, seeds[1], arms[1], 0.10)
        found = two_source(plain, private)
        hits += found.ci_low <= 0 <= found.ci_high
    assert 0.92 <= hits / repeats <= 0.975


def test_a_straight_line_is_predicted_from_its_ends():
    shares = np.array([0, 0.25, 0.5, 0.75, 1])
    law = fairness_law(shares, [0.6 + 0.2 * shares, 0.62 + 0.18 * shares])
    assert law.mae == pytest.approx(0) and law.r == pytest.approx(1)
    assert law.slope == pytest.approx(0.19)
    assert law.predicted == pytest.approx(0.61 + 0.19 * shares)


def test_a_bent_line_misses_by_its_bend():
    law = fairness_law([0, 0.5, 1], [[0.6, 0.8, 0.8], [0.6, 0.6, 0.8]])
    assert law.mae == pytest.approx(0.1)


@pytest.mark.parametrize("shares", [[0, 1], [0, 0.5, 0.5], [1, 0.5, 0]])
def test_a_law_needs_three_ascending_shares(shares):
    with pytest.raises(ValueError, match="ascending shares"):
        fairness_law(shares, [np.zeros(len(shares))])


def _candidates() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "overall": [0.90, 0.85, 0.84, 0.95],
            "worst": [0.70, 0.80, 0.79, np.nan],
            "epsilon": [np.inf, 8.0, 8.0, 1.0],
        },
        index=["plain", "fair", "beaten", "tiny"],
    )


def test_minimax_takes_the_best_worst_group_and_the_front_leaves_the_beaten_out():
    assert selection.minimax(_candidates()) == "fair"
    assert selection.pareto(_candidates()) == ["plain", "fair"]
    assert selection.minimax(_candidates().loc[["tiny"]]) == ""


def test_distance_to_the_ideal_is_worked_by_hand():
    found = selection.distance_to_ideal(_candidates().drop("tiny"))
    assert found["plain"] == pytest.approx(0.10)
    assert found["fair"] == pytest.approx(0.05)


def test_candidates_look_at_validation_rows_only():
    rows = pd.concat(_arm([0], 2.0)).assign(split="test")
    rows = pd.concat([rows, rows.assign(split="validation", image_id="v" + rows["image_id"])])
    broken = rows.copy()
    broken.loc[broken["split"] == "test", "y_score"] = 0.0
    table = selection.candidates({"a": (rows, 8.0), "b": (broken, None)}, "sex")
    assert table.loc["a", "worst"] == table.loc["b", "worst"] > 0.8
    assert table["epsilon"].tolist() == [8.0, np.inf]
