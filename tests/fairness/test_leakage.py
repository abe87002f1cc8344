"""What probes read of an attribute: known answers, and designs that they were not made for."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.fairness import leakage
from jaxfair.fairness.delong import auroc_estimate, logit_interval
from jaxfair.fairness.influence import average
from jaxfair.fairness.leakage import Embedding, leakage_table
from jaxfair.fairness.metrics import auroc
from jaxfair.fairness.probes import probe_scores
from jaxfair.fairness.questions import ALL, WITHIN, questions, thinned

_RHO, _SHIFT = 0.5, 1.5
_A = scipy.stats.norm.cdf(_SHIFT / np.sqrt(2))


def made(n, *, d=3, rho=0.0, prevalence=0.4, images=1, values=2, leak=0.0, seed=0):
    """n patients; the embedding's first number knows the label, its second the attribute."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, values, n)
    chance = prevalence + rho * (a - (values - 1) / 2)
    y = (rng.random(n) < chance).astype(float)
    patient = np.repeat(np.arange(n), images)
    z = np.repeat(rng.normal(size=(n, d)), images, axis=0)  # many images of one patient are alike
    z += 0.3 * rng.normal(size=z.shape)
    z /= np.sqrt(1.09)
    z[:, 0] += _SHIFT * y[patient]
    z[:, 1] += leak * a[patient]
    people = pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in patient],
            "split": np.where(patient % 3 == 0, "validation", "test"),
            "sex": np.array(["F", "M", "X"])[a[patient]],
            "label_mass": y[patient],
        }
    )
    return people, z


def table_of(people, z, *probes, **options):
    embedding = Embedding("features", z, probes=probes or ("linear",), control=False)
    return leakage_table(people, [embedding], ["sex"], ["mass"], **options)


def row_of(table, label, value="", **where):
    for name, wanted in {"label": label, "value": value, **where}.items():
        table = table[table[name] == wanted]
    assert len(table) == 1
    return table.iloc[0]


def test_what_knows_the_label_alone_leaks_rho_times_its_auroc_overall_and_nothing_within():
    table = table_of(*made(24_000, rho=_RHO))
    overall, within = row_of(table, ALL), row_of(table, WITHIN)
    truth = 0.5 + _RHO * (_A - 0.5)
    assert overall["auroc"] == pytest.approx(truth, abs=0.013)
    assert overall["ci_low"] < truth < overall["ci_high"] and overall["auroc"] > 0.66
    assert within["auroc"] == pytest.approx(0.5, abs=0.015)
    assert within["ci_low"] < 0.5 < within["ci_high"]
    assert overall["chance_95"] < 0.52 and within["chance_95"] < 0.52


def test_what_is_told_within_each_label_is_found_at_its_size():
    leak = 0.8
    within = row_of(table_of(*made(9_000, rho=_RHO, leak=leak)), WITHIN)
    truth = scipy.stats.norm.cdf(leak / np.sqrt(2))
    assert within["auroc"] == pytest.approx(truth, abs=0.02)
    assert within["ci_low"] < truth < within["ci_high"]
    assert within["auroc"] > within["chance_95"] + 0.1


def test_each_label_value_has_a_probe_of_its_own():
    people, z = made(3_000)
    sign = np.where(people["label_mass"] == 1, 1, -1) * np.where(people["sex"] == "M", 1, -1)
    z[:, 2] += sign
    assert row_of(table_of(people, z), WITHIN)["auroc"] > 0.85
    z[:, 0] -= _SHIFT * people["label_mass"]  # so that the label cannot be read
    assert row_of(table_of(people, z), ALL)["auroc"] < 0.6


def test_a_spread_that_no_line_can_read_is_read_by_the_mlp():
    people, z = made(1_200)
    z[:, 2] *= np.where(people["sex"] == "M", 4, 1)
    table = table_of(people, z, "linear", "mlp")
    assert row_of(table, WITHIN, probe="linear")["auroc"] < 0.6
    assert row_of(table, WITHIN, probe="mlp")["auroc"] > 0.7


def test_the_headline_is_the_mean_of_both_label_values():
    table = table_of(*made(900, leak=0.5))
    parts = [row_of(table, label) for label in ("0", "1")]
    within = row_of(table, WITHIN)
    assert within["auroc"] == pytest.approx(np.mean([p["auroc"] for p in parts]))
    assert within["n"] == sum(p["n"] for p in parts)
    assert within["n_fitted"] == sum(p["n_fitted"] for p in parts) == 300


def test_the_mean_of_two_aurocs_is_covered_with_patients_in_both():
    hits, runs = 0, 400
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        patient, a = np.repeat(np.arange(60), 6), np.repeat(rng.integers(0, 2, 60), 6)
        own = np.repeat(rng.normal(size=60), 6)
        y, s = rng.integers(0, 2, 360), own + rng.normal(size=360) + a
        both = [
            auroc_estimate(a[y == v], s[y == v], patient[y == v], n_patients=60) for v in (0, 1)
        ]
        low, high = logit_interval(average(both))
        hits += low < scipy.stats.norm.cdf(1 / 2) < high
    assert 0.92 < hits / runs < 0.98


def test_chance_stays_below_its_edge_in_95_percent_with_ten_images_a_patient():
    """The scores follow the patients, and the attribute does not follow the scores."""
    above, runs = 0, 400
    for seed in range(runs):
        people, z = made(210, images=10, seed=seed)
        (asked, _) = questions(people, "sex", ["mass"], seed=seed, n_draws=100)
        found, draws = [], []
        for cell in asked.cells:
            scores = z[cell.test, 2]
            found.append(auroc(asked.codes[cell.test], scores))
            draws.append(asked.aurocs(cell, scores, 1))
        above += np.mean(found) > np.quantile(np.mean(draws, axis=0), 0.95)
    assert 0.02 <= above / runs <= 0.085


def test_a_probe_of_nothing_is_at_chance_and_so_is_its_control():
    """64 numbers and some 60 patients to fit in a cell: wide, and not above one half."""
    embed = lambda z: [Embedding("z", z, probes=("linear",), control=True)]
    found = []
    for seed in range(16):
        people, z = made(360, d=64, rho=0.5, seed=seed)
        found.append(
            row_of(leakage_table(people, embed(z), ["sex"], ["mass"], n_draws=100), WITHIN)
        )
    for name in ("auroc", "chance"):
        values = np.array([row[name] for row in found])
        assert values.mean() == pytest.approx(0.5, abs=3 * values.std() / 4)
        assert 0.02 < values.std() < 0.07
    leaking = leakage_table(*_leaking(), ["sex"], ["mass"])
    within = row_of(leaking, WITHIN)
    assert within["auroc"] > 0.9 and within["chance"] < within["chance_95"] + 0.05


def _leaking():
    people, z = made(600, leak=3.0)
    return people, [Embedding("z", z, probes=("linear",), control=True)]


def test_exchanges_keep_who_has_which_value_within_labels_and_a_patients_images_together():
    people, _ = made(360, images=3)
    (asked, _) = questions(people, "sex", ["mass"], seed=0, n_draws=20)
    changed = 0
    assert all(len(cell.kept) == 2 for cell in asked.cells)
    for cell in asked.cells:
        rows, patients = cell.test, asked.patients[cell.test]
        for draw in asked.draws:
            codes = draw[asked.block[rows]]
            assert codes.sum() == asked.codes[rows].sum()
            assert all(len(set(codes[patients == p])) == 1 for p in set(patients))
            changed += (codes != asked.codes[rows]).any()
    assert changed > 30


def test_the_control_is_fitted_to_exchanged_values_and_scored_on_such(monkeypatch):
    people, z = made(360, leak=3.0)
    fitted = []

    def probe(kind, x, codes, patients, others, *, seed):
        fitted.append(codes)
        return probe_scores(kind, x, codes, patients, others, seed=seed)

    monkeypatch.setattr(leakage, "probe_scores", probe)
    embedding = Embedding("z", z, probes=("linear",), control=True)
    leakage_table(people, [embedding], ["sex"], [], n_draws=1)
    true, exchanged = fitted
    assert true.sum() == exchanged.sum() and 0.3 < (true != exchanged).mean() < 0.7


def test_who_validates_and_tests_fits_no_probe():
    """Each patient's embedding names him: only a probe that has met him can read his sex."""
    people, _ = made(240, prevalence=0.5)
    test = people[people["split"] == "test"]
    people = pd.concat([people, test.assign(split="validation")], ignore_index=True)
    z = np.eye(240)[people["patient_id"].str[1:].astype(int)]
    within = row_of(
        table_of(people, z + 1e-3 * np.random.default_rng(0).normal(size=z.shape)), WITHIN
    )
    assert within["n_fitted"] == 80
    assert within["auroc"] < 0.65


def test_of_a_rare_disease_the_healthy_are_asked_alone_and_it_is_said():
    table = table_of(*made(900, prevalence=0.02))
    rare, within = row_of(table, "1"), row_of(table, WITHIN)
    assert np.isnan(rare["auroc"]) and "too few patients: F (" in rare["why"]
    assert within["auroc"] == row_of(table, "0")["auroc"]
    assert within["why"].startswith("label 1: too few")


def test_a_value_of_few_patients_is_named_and_the_others_are_asked():
    people, z = made(900, leak=0.5)
    people.loc[people["patient_id"].isin([f"p{i}" for i in range(12)]), "sex"] = "X"
    table = table_of(people, z)
    within = row_of(table, WITHIN)
    assert np.isfinite(within["auroc"]) and "X (" in within["why"]
    assert within["n"] == 600 - 8
    assert not (table["value"] == "X").any()


def test_fewer_than_fifty_patients_are_not_asked():
    table = table_of(*made(110))
    assert table[table["label"] != ALL]["auroc"].isna().all()
    assert row_of(table, "1")["why"].startswith("too few")


def test_one_value_alone_has_no_auroc_and_never_one_half():
    people, z = made(300)
    table = table_of(people.assign(sex="F"), z)
    assert table["auroc"].isna().all() and (table["n"] == 0).all()
    assert "everybody is F" in row_of(table, WITHIN)["why"]
    nobody = table_of(people.assign(sex=None), z)
    assert nobody["auroc"].isna().all() and "not known of anybody" in nobody["why"].iloc[0]


def test_a_constant_embedding_has_no_auroc_and_never_one_half():
    people, z = made(360)
    table = table_of(people, np.full_like(z, 0.1), "linear", "mlp")
    assert table["auroc"].isna().all() and table["ci_low"].isna().all()
    assert table["why"].str.contains("one score").all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_refused(bad):
    people, z = made(300)
    z[7, 1] = bad
    with pytest.raises(InputError, match="'features' is not finite in 1 of 300 rows"):
        table_of(people, z)


def test_who_has_no_value_takes_no_part():
    people, z = made(1_200, leak=1.0)
    half = people.index % 2 == 0
    table = table_of(people.assign(sex=people["sex"].where(half)), z)
    again = table_of(people[half].reset_index(drop=True), z[half])
    pd.testing.assert_frame_equal(table, again)
    assert row_of(table, WITHIN)["n"] == 400


def test_images_without_the_label_take_no_part_within_it():
    people, z = made(900)
    people.loc[::7, "label_mass"] = np.nan
    table = table_of(people, z)
    asked = people.loc[(people["split"] == "test") & people["label_mass"].notna()]
    assert row_of(table, WITHIN)["n_images"] == len(asked)
    assert row_of(table, ALL)["n_images"] == 600


def test_of_three_values_each_is_asked_against_the_others_and_the_mean_heads_them():
    table = table_of(*made(1_800, values=3, leak=1.0))
    for label in ("0", "1", WITHIN, ALL):
        parts = [row_of(table, label, value)["auroc"] for value in "FMX"]
        assert row_of(table, label)["auroc"] == pytest.approx(np.mean(parts))
        assert min(parts[0], parts[2]) > 0.72 and parts[1] < 0.7  # the middle lies between them
    whole = row_of(table, WITHIN)
    assert whole["ci_low"] < whole["auroc"] < whole["ci_high"]


def test_attributes_of_an_image_move_by_patient_and_value():
    people, z = made(300, images=4, leak=0.0)
    view = np.random.default_rng(1).choice(["AP", "PA"], len(people))
    z[:, 2] += 2 * (view == "PA")
    table = leakage_table(
        people.assign(view=view), [Embedding("z", z, probes=("linear",))], ["view"], ["mass"]
    )
    within = row_of(table, WITHIN)
    assert within["auroc"] > 0.85 and 0.5 < within["chance_95"] < 0.6


def test_same_seed_same_table():
    people, z = made(400)
    one, two = (table_of(people, z, "linear", "mlp", seed=3, n_draws=20) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_many_images_are_thinned_by_whole_patients_and_by_a_hash():
    people, _ = made(300, images=2)
    most = {"validation": 60, "test": 100}
    kept = people.iloc[thinned(people, most)]
    assert kept["split"].value_counts().to_dict() == most
    assert (kept["patient_id"].value_counts() == 2).all()
    shuffled = people.sample(frac=1, random_state=0)
    again = shuffled.iloc[thinned(shuffled, most)]
    assert set(again["patient_id"]) == set(kept["patient_id"])
    assert len(thinned(people)) == 600
