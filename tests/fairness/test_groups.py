import pandas as pd
import pytest

from jaxfair.errors import InputError
from jaxfair.fairness import groups


def test_age_groups_have_the_edges_of_the_contract():
    ages = [0, 17, 18, 30, 31, 45, 46, 60, 61, 75, 76, 110]
    expected = ["0-17"] * 2 + ["18-30"] * 2 + ["31-45"] * 2
    expected += ["46-60"] * 2 + ["61-75"] * 2 + ["76-110"] * 2
    assert groups.age_groups(ages).tolist() == expected


def test_impossible_and_missing_ages_are_unknown():
    assert set(groups.age_groups([111, 155, -1, float("nan")])) == {"unknown"}


def test_the_thesis_ages_are_an_option():
    found = groups.age_groups([31, 32, 60, 61], groups.THESIS_AGE_EDGES).tolist()
    assert found == ["0-31", "32-60", "32-60", "61-110"]


def test_missing_values_are_a_stratum_of_their_own_also_in_intersections():
    rows = pd.DataFrame({"sex": ["F", None, " M ", ""], "age": [20, 70, None, 5]})
    assert groups.group_labels(rows, "sex").tolist() == ["F", "unknown", "M", "unknown"]
    assert groups.group_labels(rows, "sex x age_group").tolist() == [
        "F x 18-30",
        "unknown x 61-75",
        "M x unknown",
        "unknown x 0-17",
    ]


def test_overall_is_one_group():
    assert groups.group_labels(pd.DataFrame({"a": [1, 2]}), "overall").tolist() == ["all", "all"]


def test_a_missing_column_is_named_with_the_nearest_one():
    with pytest.raises(InputError, match=r"no column 'sexx'.* Did you mean 'sex'"):
        groups.group_labels(pd.DataFrame({"sex": ["F"]}), "sexx")
