"""The first lines of a report repeat the words of the claim, those of earlier stages among them."""

import pytest

from jaxfair.report.loading import load_run
from tests.made_runs import make_run

CHAIN = [{"statement": "0" * 64, "lines": 3, "tuning_runs": 1}]


def lines_of(folder, **privacy):
    return "\n".join(load_run(make_run(folder, n=120, maps=False, **privacy)).statement())


def test_a_run_by_itself_names_no_stage_and_no_tuning(tmp_path):
    text = lines_of(tmp_path / "run", earlier={}, tuning={"runs": 1, "epsilon": None})
    assert "compared" not in text and "one beginning with" not in text


def test_earlier_stages_tuning_and_unlike_units_are_said_in_the_first_lines(tmp_path):
    text = lines_of(
        tmp_path / "run",
        unit="image",
        grade="research",
        selection="coupled",
        covered="each image that is its patient's only one",
        earlier={"units": ["patient"], "chain": CHAIN},
        tuning={"runs": 51, "epsilon": 33.25},
    )
    for words in (
        "Research grade, not private",
        "Guarantee for the selected table only",
        "the claim is about each image that is its patient's only one",
        "Trained in 2 runs, one beginning with the parameters of another: epsilon covers all",
        "51 runs on these people were compared to choose this one: all of them together cost "
        "epsilon 33.25.",
    ):
        assert words in text


@pytest.mark.parametrize("epsilon", [8.0, None])
def test_a_plain_stage_after_a_private_one_claims_nothing(tmp_path, epsilon):
    text = lines_of(tmp_path / "run", epsilon=epsilon, earlier={"units": [], "chain": CHAIN})
    assert ("epsilon covers all of them" in text) == (epsilon is not None)
    assert ("without differential privacy" in text) == (epsilon is None)
