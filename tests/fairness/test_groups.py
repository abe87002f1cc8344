import pandas as pd
import pytest

from jaxfair.errors import InputError
from jaxfair.fairness import groups


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
