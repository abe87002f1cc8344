"""The first lines of a report repeat the words of the claim, those of earlier stages among them."""

import pytest

from jaxfair.files import write_json
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


QUERIES = {
    "queries": [{"name": "gradient_sum"}, {"name": "cell_counts"}],
    "joint_noise_multiplier": 1.2,
    "noise_multiplier": 1.5,
}
STAGES = {
    "apart": [{"stage": "train", "epsilon": 6.0}, {"stage": "train 2", "epsilon": 2.0}],
    "epsilon_summed": 8.0,
}


@pytest.mark.parametrize(
    ("privacy", "model", "words"),
    [
        (QUERIES, {"mitigation": "noisy_counts"},
         "the gradient has noise multiplier 1.5, where alone it would have 1.2 (25.0% more noise)"),
        ({"stages": STAGES, "epsilon": 6.26}, {"mitigation": "fine_tune"},
         "6 (train) and 2 (train 2), 8 added up; in one composition they cost 6.26."),
        ({}, {"mitigation": "averaging"}, "The mitigation 'averaging' took no part of epsilon."),
    ],
)  # fmt: skip
def test_the_first_lines_say_what_a_mitigation_took_of_epsilon(tmp_path, privacy, model, words):
    folder = make_run(tmp_path / "run", n=120, maps=False, **privacy)
    write_json(folder / "model.json", {"note": "A model.", **model})
    assert any(words in line for line in load_run(folder).statement())


def test_without_privacy_or_mitigation_nothing_is_said_of_costs(tmp_path):
    assert "took" not in lines_of(tmp_path / "run", epsilon=None)
    assert "took" not in lines_of(tmp_path / "other")
