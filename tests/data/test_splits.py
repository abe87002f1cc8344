import numpy as np
import pandas as pd
import pytest

from jaxfair.data import splits
from jaxfair.data import splits_thesis as thesis
from jaxfair.errors import InputError


def crowd(n=6000, seed=0):
    rng = np.random.default_rng(seed)
    patient = np.array([f"{i:08d}" for i in rng.integers(n // 3, size=n)])
    return patient, rng.random(n) < 0.2


def test_no_patient_is_in_two_splits_and_no_sick_patient_trains():
    patient, abnormal = crowd()
    split = splits.split_by_patient(patient, abnormal, abnormal.astype(float), salt="s")
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
    split = splits.split_by_patient(
        names * 2, [False] * 200 + [True] * 200, [0.0] * 200 + [np.nan] * 200, salt="s"
    )
    assert "train" not in split[:200] and set(split[200:]) == {""}


def test_one_patient_more_or_less_moves_nobody_else():
    patient, abnormal = crowd()
    label = abnormal.astype(float)
    split = splits.split_by_patient(patient, abnormal, label, salt="s")
    keep = patient != patient[17]
    fewer = splits.split_by_patient(patient[keep], abnormal[keep], label[keep], salt="s")
    assert (fewer == split[keep]).all()


def test_the_split_is_a_fixed_function_of_salt_and_id():
    assert splits.hash_fraction("jaxfair-1", "00000013") == 0.4733485838069645
    assert splits.hash_fraction("other", "00000013") != splits.hash_fraction("x", "00000013")


def test_the_random_split_gives_disease_no_role():
    patient, _ = crowd()
    split = splits.split_at_random(patient, salt="s")
    frame = pd.DataFrame({"patient": patient, "split": split})
    assert (frame.groupby("patient")["split"].nunique() == 1).all()
    shares = frame.drop_duplicates("patient")["split"].value_counts(normalize=True)
    np.testing.assert_allclose(shares[["train", "validation", "test"]], [0.7, 0.1, 0.2], atol=0.04)
    keep = patient != patient[17]
    assert (splits.split_at_random(patient[keep], salt="s") == split[keep]).all()


def test_folds_cover_everybody_once_and_an_eighth_of_the_rest_validates():
    patient, _ = crowd()
    folds = [splits.split_in_folds(patient, folds=5, fold=k, salt="s") for k in range(5)]
    tested = np.sum([split == "test" for split in folds], axis=0)
    assert (tested == 1).all()
    for split in folds:
        rest = split[split != "test"]
        assert (rest == "validation").mean() == pytest.approx(1 / 8, abs=0.04)


def validated(patient, fold, **how):
    how = {"folds": 5, "test_share": 0.1, "salt": "s"} | how
    return splits.split_validation_folds(patient, fold=fold, **how)


def test_one_set_tests_in_all_folds_and_everybody_else_validates_once():
    patient, _ = crowd()
    folds = [validated(patient, k) for k in range(5)]
    for split in folds:
        frame = pd.DataFrame({"patient": patient, "split": split})
        assert (frame.groupby("patient")["split"].nunique() == 1).all()
        shares = frame.drop_duplicates("patient")["split"].value_counts(normalize=True)
        wanted = [0.72, 0.18, 0.10]  # FairREAD's
        np.testing.assert_allclose(shares[["train", "validation", "test"]], wanted, atol=0.03)
        assert ((split == "test") == (folds[0] == "test")).all()
    held_out = np.sum([split == "validation" for split in folds], axis=0)
    assert (held_out == (folds[0] != "test")).all()


def test_neither_the_number_of_folds_nor_the_other_patients_move_the_fixed_test_set():
    patient, _ = crowd()
    split = validated(patient, 2)
    assert ((validated(patient, 0, folds=3) == "test") == (split == "test")).all()
    assert set(patient[split == "test"]) < set(
        patient[validated(patient, 2, test_share=0.3) == "test"]
    )
    keep = patient != patient[17]
    assert (validated(patient[keep], 2) == split[keep]).all()


def test_who_tests_says_nothing_about_who_validates():
    """Two hashes: the test is not the lowest tenth of fold 0."""
    patient = np.array([str(i) for i in range(20_000)])
    fold = splits.split_in_folds(patient, folds=5, fold=0, salt="s") == "test"
    test = validated(patient, 0) == "test"
    assert test[fold].mean() == pytest.approx(test[~fold].mean(), abs=0.02)


def test_a_published_split_keeps_its_words_and_gets_a_validation_set_where_it_is_asked_for():
    names = [str(i) for i in range(800)]
    given = ["train"] * 600 + ["test"] * 199 + [""]
    split = splits.split_as_published(names, given, salt="s", carve=True)
    assert (split[600:799] == "test").all() and split[799] == ""
    assert (split[:600] == "validation").mean() == pytest.approx(1 / 8, abs=0.05)
    whole = ["train", "validation", "test"]
    assert splits.split_as_published("abc", whole, salt="s", carve=False).tolist() == whole


def people(n=900, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.integers(10, 90, n)
    ill = rng.random(n) < 0.4
    return pd.DataFrame(
        {
            "patient_id": [str(i) for i in rng.integers(0, n // 2, n)],
            "sex": rng.choice(["F", "M", "unknown"], n, p=[0.4, 0.55, 0.05]),
            "age": age.astype(float),
            "label_anomaly": np.where(rng.random(n) < 0.1, np.nan, ill.astype(float)),
            "abnormal": ill,
        }
    ).assign(patient_abnormal=lambda t: t.groupby("patient_id")["abnormal"].transform("any"))


@pytest.mark.parametrize("attribute", ["sex", "age"])
def test_the_thesis_split_keeps_its_size_over_all_shares_and_nests(attribute):
    table, train = people(), {}
    group = thesis.thesis_groups(table, attribute)
    for share in (0.0, 0.25, 0.5, 1.0):
        split, _ = thesis.split_like_thesis(table, attribute=attribute, share=share, per_group=10)
        train[share] = set(np.flatnonzero(split == "train"))
        for name in ("A", "B"):
            for part in ("validation", "test"):
                for label in (0, 1):
                    here = (split == part) & (group == name) & (table["label_anomaly"] == label)
                    assert here.sum() == 10
        placed = table.assign(split=split)[split != ""]
        assert (placed.groupby("patient_id")["split"].nunique() == 1).all()
        assert not table.loc[split == "train", "patient_abnormal"].any()
    sizes = [len(rows) for rows in train.values()]
    assert max(sizes) - min(sizes) <= 1
    a = {share: {r for r in rows if group[r] == "A"} for share, rows in train.items()}
    assert a[0.0] == set() and a[0.25] < a[0.5] < a[1.0] == train[1.0]


def test_the_thesis_defect_shares_normals_and_is_off_by_default(tmp_path):
    table = people()
    fields = {"attribute": "sex", "share": 0.5, "per_group": 10}
    _, also = thesis.split_like_thesis(table, **fields)
    assert not also.any()
    split, also = thesis.split_like_thesis(table, share_normals=True, **fields)
    normal = (table["label_anomaly"] == 0).to_numpy()
    assert also.sum() == 20 == ((split == "validation") & normal).sum()
    assert not ((split == "test") & normal).any()


@pytest.mark.parametrize("share, men, women", [(0.5, 1927, 1927), (0.1, 385, 3469)])
def test_the_thesis_split_reproduces_the_published_training_sizes(share, men, women):
    counts = {("M", 0): 4946, ("F", 0): 3905, ("M", 1): 3510, ("F", 1): 2502}  # RSNA's
    rows = [(s, float(label)) for (s, label), n in counts.items() for _ in range(n)]
    table = pd.DataFrame(rows, columns=["sex", "label_anomaly"])
    table["patient_id"] = table.index.astype(str)
    table["patient_abnormal"] = table["label_anomaly"] == 1
    split, _ = thesis.split_like_thesis(table, attribute="sex", share=share, share_normals=True)
    train = table["sex"][split == "train"].value_counts()
    assert (train["M"], train["F"]) == (men, women)


def test_the_thesis_groups_are_31_and_younger_against_61_and_older():
    table = pd.DataFrame({"sex": ["M", "F", "unknown", "M"], "age": [31, 61, 45, np.nan]})
    assert thesis.thesis_groups(table, "age").tolist() == ["B", "A", "", ""]
    assert thesis.thesis_groups(table, "sex").tolist() == ["A", "B", "", "A"]


def test_too_few_images_for_the_thesis_split_are_counted_in_the_refusal():
    with pytest.raises(InputError, match="needs 500 images of label 1 for validation in group A"):
        thesis.split_like_thesis(people(), attribute="sex", share=0.5, per_group=500)
