"""A second site's labels, groups and people, in the terms of a trained run."""

import numpy as np
import pandas as pd
import pytest

from jaxfair.data.dataset import Dataset
from jaxfair.data.overlap import Places
from jaxfair.data.site import Terms, in_terms_of, matched, without_people
from jaxfair.errors import InputError

TERMS = Terms(
    tasks=("pleural_effusion", "edema", "fracture"),
    values={"race": ("white", "black"), "skin_type": ("I", "II"), "sex": ("F", "M")},
    attributes=("sex", "age_group", "view", "race", "skin_type"),
)


def site(**columns):
    """A made site of six images of five people, with two labels of its own names."""
    table = pd.DataFrame({
        "image_id": [f"i{i}" for i in range(6)],
        "patient_id": ["a", "a", "b", "c", "d", "e"],
        "split": ["train", "train", "validation", "test", "test", ""],
        "sex": ["F", "F", "M", "unknown", "M", "F"],
        "age_group": "31-45",
        "view": "PA",
        "Race": ["White", "White", "martian", "black", "unknown", "white"],
        "label_Edema": [0.0, 1, 0, 1, np.nan, 0],
        "label_Pleural Effusion": [1.0, 1, 0, 0, 1, 0],
        "also_test": False,
    }).assign(**columns)  # fmt: skip
    return Dataset(
        manifest=table,
        pixels=np.zeros((6, 2, 2, 1), np.uint8),
        data="phantom",
        population="clinic",
        unit="patient",
        selection="independent",
        digest="",
        card={},
        folder=None,
        tasks=("Edema", "Pleural Effusion"),
    )


def terms_of(dataset):
    labels = matched(TERMS.tasks, dataset.tasks)
    return in_terms_of(dataset, labels, TERMS, ("sex", "age_group", "view", "Race"))


def test_labels_are_matched_by_name_whatever_their_spelling():
    found = matched(TERMS.tasks, ["EDEMA", "Pleural-Effusion ", "cough"])
    assert found == {"pleural_effusion": "Pleural-Effusion ", "edema": "EDEMA"}
    assert matched(["a", "b"], ["x", "b"], {"a": "x"}) == {"a": "x", "b": "b"}
    assert matched(["a"], ["x", "a"], {"a": "x"}) == {"a": "x"}, "what is named goes first"


@pytest.mark.parametrize(
    "named, sentence",
    [
        ({"oedema": "x"}, "'oedema', which is no label of the run"),
        ({"edema": "y"}, "'y', which is no label of the site"),
        (None, "'edema' of the run may be 'Edema' or 'edema '"),
    ],
)
def test_labels_that_cannot_be_matched_are_refused(named, sentence):
    with pytest.raises(InputError, match=sentence):
        matched(["edema"], ["Edema", "edema ", "x"], named)


def test_examples_carry_the_runs_labels_and_one_that_the_site_lacks_was_not_asked():
    dataset, said = terms_of(site())
    rows = np.arange(6)
    assert dataset.tasks == TERMS.tasks
    np.testing.assert_array_equal(dataset.labels(rows)[:, 0], [1, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(dataset.labels(rows)[:, 1], [0, 1, 0, 1, 0, 0])
    assert not dataset.label_mask(rows)[:, 2].any() and not dataset.label_mask(rows)[4, 1]
    assert said[0] == "The second site lacks the labels fracture: left out."


def test_a_group_that_the_run_has_never_met_is_unknown_to_it_and_keeps_its_name():
    dataset, said = terms_of(site())
    codes = dataset.fields["group"](np.arange(6))
    np.testing.assert_array_equal(codes[:, 0], [0, 0, -1, 1, -1, 0])
    np.testing.assert_array_equal(codes[:, 1], [-1] * 6)
    np.testing.assert_array_equal(codes[:, 2], [0, 0, 1, -1, 1, 0])
    assert dataset.manifest["race"].tolist()[:3] == ["white", "white", "martian"]
    assert any("martian" in line for line in said)
    assert any("does not know skin_type" in line for line in said)


def test_everybody_tests_unless_the_sites_own_split_is_asked_for():
    dataset, gone = without_people(site(), [], tests=False)
    assert dataset.rows("test").tolist() == [0, 1, 2, 3, 4] and gone == 0
    assert not len(dataset.rows("train")) and not len(dataset.rows("validation"))
    dataset, _ = without_people(site(), [], tests=True)
    assert dataset.rows("test").tolist() == [3, 4]


def test_who_trained_or_validated_in_the_run_is_not_tested_by_either_id():
    before = pd.DataFrame({
        "patient_id": ["a", "b", "c", "x"], "image_id": ["j1", "j2", "j3", "i4"],
        "split": ["train", "validation", "test", "train"], "also_test": False,
    })  # fmt: skip
    seen = [Places(before, "clinic", "patient")]
    dataset, gone = without_people(site(), seen, tests=False)
    assert dataset.rows("test").tolist() == [3] and gone == 3
    with pytest.raises(InputError, match="name each lesion, and those of the second site each pat"):
        without_people(site(), [Places(before, "clinic", "lesion")], tests=False)
