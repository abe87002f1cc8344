from jaxfair import schema


def test_age_groups_have_the_edges_of_the_contract():
    ages = [0, 17, 18, 30, 31, 45, 46, 60, 61, 75, 76, 110]
    expected = ["0-17"] * 2 + ["18-30"] * 2 + ["31-45"] * 2
    expected += ["46-60"] * 2 + ["61-75"] * 2 + ["76-110"] * 2
    assert schema.age_groups(ages).tolist() == expected


def test_impossible_and_missing_ages_are_unknown():
    assert set(schema.age_groups([111, 155, -1, float("nan")])) == {"unknown"}


def test_the_thesis_ages_are_an_option():
    found = schema.age_groups([31, 32, 60, 61], schema.THESIS_AGE_EDGES).tolist()
    assert found == ["0-31", "32-60", "32-60", "61-110"]
