import numpy as np
import pandas as pd
import pytest

from jaxfair.data import manifest
from jaxfair.errors import InputError


def table(**columns):
    base = {
        "image_id": ["a", "b", "c"],
        "patient_id": ["p", "p", "q"],
        "split": ["train", "train", "test"],
        "sex": ["F", "F", "M"],
        "age": [40.0, 41.0, np.nan],
        "age_group": ["31-45", "31-45", "unknown"],
        "view": ["AP", "PA", "unknown"],
        "label_anomaly": [0.0, np.nan, 1.0],
    }
    return pd.DataFrame(base | columns)


def test_a_sound_manifest_is_returned_unchanged():
    pd.testing.assert_frame_equal(manifest.check(table()), table())


@pytest.mark.parametrize(
    "columns, sentence",
    [
        ({"split": ["train", "test", "test"]}, "'p' is in the splits test and train"),
        ({"image_id": ["a", "a", "c"]}, "names image 'a' more than once"),
        ({"patient_id": ["p", "", "q"]}, "empty patient_id"),
        ({"patient_id": ["p", None, "q"]}, "empty patient_id"),
        ({"sex": ["F", "x", "M"]}, "column sex holds 'x'"),
        ({"view": ["AP", "LL", "PA"]}, "column view holds 'LL'"),
        ({"split": ["train", "train", "dev"]}, "column split holds 'dev'"),
        ({"label_anomaly": [0.0, 2.0, 1.0]}, "column label_anomaly holds 2.0"),
    ],
)
def test_a_broken_manifest_is_refused_with_the_value(columns, sentence):
    with pytest.raises(InputError, match=sentence):
        manifest.check(table(**columns))


@pytest.mark.parametrize("name", [*manifest.COLUMNS, "label_anomaly"])
def test_a_missing_column_is_named(name):
    with pytest.raises(InputError, match=f"lacks the column {name.replace('anomaly', '<task>')}"):
        manifest.check(table().drop(columns=name))


def test_an_image_without_a_split_puts_its_patient_nowhere():
    manifest.check(table(split=["train", "", "test"]))


@pytest.mark.parametrize(
    "text, years, how",
    [
        ("043Y", 43, "age string"),
        ("22Y", 22, "age string"),
        ("006M", 0.5, "age string"),
        ("52", 52, "plain number"),
        (" 7 ", 7, "plain number"),
        ("000Y", 0, "age string"),
        ("110", 110, "plain number"),
        ("155", np.nan, "above 110"),
        ("", np.nan, "missing"),
        ("old", np.nan, "unreadable"),
        ("-3", np.nan, "unreadable"),
    ],
)
def test_ages_are_normalised_and_never_guessed(text, years, how):
    value, found = manifest.age_from_text(text)
    assert found == how
    np.testing.assert_allclose(value, years)


def test_age_groups_have_the_agreed_edges():
    ages = [0, 17, 18, 30, 31, 45, 46, 60, 61, 75, 76, 110, 110.5, -1, np.nan]
    expected = [g for g in manifest.AGE_GROUPS for _ in range(2)] + ["unknown"] * 3
    assert manifest.age_group(ages).tolist() == expected


def crowd(n=6000, seed=0):
    rng = np.random.default_rng(seed)
    patient = np.array([f"{i:08d}" for i in rng.integers(n // 3, size=n)])
    return patient, rng.random(n) < 0.2


def test_no_patient_is_in_two_splits_and_no_sick_patient_trains():
    patient, abnormal = crowd()
    split = manifest.split_by_patient(patient, abnormal, abnormal.astype(float), salt="s")
    frame = pd.DataFrame({"patient": patient, "abnormal": abnormal, "split": split})
    assert (frame.groupby("patient")["split"].nunique() == 1).all()
    sick = frame.groupby("patient")["abnormal"].transform("any")
    assert set(frame.loc[sick, "split"]) == {"validation", "test"}
    first = frame.drop_duplicates("patient")
    well = first.loc[~sick[first.index], "split"].value_counts(normalize=True)
    ill = first.loc[sick[first.index], "split"].value_counts(normalize=True)
    np.testing.assert_allclose(well[["train", "validation", "test"]], [0.7, 0.1, 0.2], atol=0.04)
    np.testing.assert_allclose(ill[["validation", "test"]], [1 / 3, 2 / 3], atol=0.04)


def test_an_abnormal_film_without_a_label_keeps_its_patient_out_of_training():
    names = [str(i) for i in range(200)]
    split = manifest.split_by_patient(
        names * 2, [False] * 200 + [True] * 200, [0.0] * 200 + [np.nan] * 200, salt="s"
    )
    assert "train" not in split[:200] and set(split[200:]) == {""}


def test_one_patient_more_or_less_moves_nobody_else():
    patient, abnormal = crowd()
    label = abnormal.astype(float)
    split = manifest.split_by_patient(patient, abnormal, label, salt="s")
    keep = patient != patient[17]
    fewer = manifest.split_by_patient(patient[keep], abnormal[keep], label[keep], salt="s")
    assert (fewer == split[keep]).all()


def test_the_split_is_a_fixed_function_of_salt_and_id():
    assert manifest.hash_fraction("jaxfair-1", "00000013") == 0.4733485838069645
    assert manifest.hash_fraction("other", "00000013") != manifest.hash_fraction("x", "00000013")


def test_the_random_split_gives_disease_no_role():
    patient, _ = crowd()
    split = manifest.split_at_random(patient, salt="s")
    frame = pd.DataFrame({"patient": patient, "split": split})
    assert (frame.groupby("patient")["split"].nunique() == 1).all()
    shares = frame.drop_duplicates("patient")["split"].value_counts(normalize=True)
    np.testing.assert_allclose(shares[["train", "validation", "test"]], [0.7, 0.1, 0.2], atol=0.04)
    keep = patient != patient[17]
    assert (manifest.split_at_random(patient[keep], salt="s") == split[keep]).all()


def test_folds_cover_everybody_once_and_an_eighth_of_the_rest_validates():
    patient, _ = crowd()
    folds = [manifest.split_in_folds(patient, folds=5, fold=k, salt="s") for k in range(5)]
    tested = np.sum([split == "test" for split in folds], axis=0)
    assert (tested == 1).all()
    for split in folds:
        rest = split[split != "test"]
        assert (rest == "validation").mean() == pytest.approx(1 / 8, abs=0.04)


def test_a_published_split_keeps_its_words_and_gets_a_validation_set_if_it_has_none():
    names = [str(i) for i in range(800)]
    given = ["train"] * 600 + ["test"] * 199 + [""]
    split = manifest.split_as_published(names, given, salt="s")
    assert (split[600:799] == "test").all() and split[799] == ""
    assert (split[:600] == "validation").mean() == pytest.approx(1 / 8, abs=0.05)
    whole = ["train", "validation", "test"]
    assert manifest.split_as_published("abc", whole, salt="s").tolist() == whole
