"""Nobody who trains in one stage is held out in another: by the ids of patients and of images."""

import pandas as pd
import pytest

from jaxfair.data.overlap import Places, check_places
from jaxfair.data.splits import split_at_random, split_in_folds
from jaxfair.errors import InputError

PATIENTS = [f"p{n // 2}" for n in range(400)]


def places(split, *, patients=PATIENTS, population="clinic", unit="patient", also_test=False):
    rows = {"patient_id": patients, "image_id": [f"i{n}" for n in range(len(patients))]}
    table = pd.DataFrame(rows | {"split": split, "also_test": also_test})
    return Places(table, population, unit)


def random(salt="a", **facts):
    return places(split_at_random(PATIENTS, salt=salt), **facts)


def fold(number, **facts):
    return places(split_in_folds(PATIENTS, folds=5, fold=number, salt="a"), **facts)


def test_the_same_split_is_accepted_with_other_labels_and_fewer_images():
    check_places(random(), random(), where="run")
    fewer = random()
    check_places(fewer._replace(table=fewer.table.iloc[::3]), random(), where="run")


@pytest.mark.parametrize("other", [random("b"), fold(1)])
def test_another_salt_another_fold_or_another_rule_is_refused(other):
    for before, now in ((fold(0), other), (other, fold(0)), (random(), fold(2))):
        with pytest.raises(InputError, match=r"Use the same data\.split") as caught:
            check_places(before, now, where="run")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "now", "refused"),
    [
        ("train", "test", True),
        ("train", "validation", True),
        ("test", "train", True),
        ("validation", "train", False),
        ("", "test", False),
        ("train", "train", False),
        ("test", "validation", False),
    ],
)
def test_one_person_in_two_places_is_found_either_way(before, now, refused):
    """All others train in both; one image of one person differs."""
    splits = [["train"] * 400, ["train"] * 400]
    for split, own in zip(splits, (before, now)):
        split[:2] = [own] * 2
    pair = [places(split) for split in splits]
    if not refused:
        return check_places(*pair, where="run")
    with pytest.raises(InputError, match="held out here" if now != "train" else "trains here"):
        check_places(*pair, where="run")


def test_images_are_compared_too_where_patients_have_other_names():
    renamed = [f"q{n}" for n in range(400)]
    now = places(["test"] * 400, patients=renamed)
    with pytest.raises(InputError, match="held out here"):
        check_places(places(["train"] * 400), now, where="run")


def test_shared_normals_of_the_thesis_count_as_tested():
    shared = places(["validation"] * 400, also_test=True)
    with pytest.raises(InputError, match="tested there trains here"):
        check_places(shared, places(["train"] * 400), where="run")


def test_other_populations_are_others_and_ids_of_another_kind_cannot_be_compared():
    check_places(random("b", population="elsewhere"), random(), where="run")
    with pytest.raises(InputError, match="cannot be said; use the same ids in both"):
        check_places(random(unit="image"), random(), where="run")
