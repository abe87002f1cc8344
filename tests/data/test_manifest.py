import numpy as np
import pandas as pd
import pytest

from jaxfair.data import manifest, words
from jaxfair.errors import InputError
from jaxfair.schema import COLUMNS


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


@pytest.mark.parametrize("name", [*COLUMNS, "label_anomaly"])
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
    value, found = words.age_from_text(text)
    assert found == how
    np.testing.assert_allclose(value, years)
