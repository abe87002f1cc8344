"""A chain of runs: its claim is as good as its weakest stage, and the verifier reads them all."""

import shutil

import pytest

from jaxfair.errors import InputError
from jaxfair.files import json_digest
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.descent import ORDER, read_earlier, worst
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.study import read_study
from jaxfair.privacy.verify import check_run, verify_run
from tests.privacy.chains import SIZES, change, made, read

WEAKER = [
    ({"insecure_seed": 3}, {"grade": "research", "noise_source": "insecure_seed"}),
    ({"unit": "image"}, {"unit": "image"}),
    ({"unit": "lesion"}, {"unit": "lesion"}),
    ({"selection": "coupled"}, {"selection": "coupled"}),
    ({"data": "phantom"}, {"data": "real"}),
]


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize(("weaker", "claimed"), WEAKER)
def test_the_worst_word_of_all_three_stages_stands_in_the_claim(tmp_path, stage, weaker, claimed):
    """Whichever of three stages it was, the last one says so."""
    before = None
    for number in range(3):
        words = {"epsilon": 20.0} | (weaker if number == stage else {})
        before = made(tmp_path / f"run {number}", before, **words)
    told = read(before)
    assert {name: told[name] for name in claimed} == claimed
    assert verify_run(before) == [] and len(told["earlier"]["chain"]) == 2
    for name, words in ORDER.items():
        if name in claimed and claimed[name] != words[0]:
            change(before, **{name: words[0]})
            assert any(name in fault for fault in verify_run(before)), f"a better {name}"
            change(before, **{name: claimed[name]})


def test_a_claim_over_unlike_units_is_about_images_that_are_a_patients_only_one(tmp_path):
    first = made(tmp_path / "a", unit="image")
    second = made(tmp_path / "b", first, epsilon=12.0)
    third = made(tmp_path / "c", second, epsilon=16.0)
    assert "each image of the training population, " in read(first)["covered"]
    for later in (second, third):
        assert "that is its patient's only one" in read(later)["covered"]
        assert verify_run(later) == []


def test_tuning_adds_up_and_each_stage_is_priced_as_often_as_it_was_tried(tmp_path):
    first = made(tmp_path / "a", tuning_runs=5, sigma=8.0)
    second = made(tmp_path / "b", first, sigma=12.0, sizes={"steps": 2})
    third = made(tmp_path / "c", second, sigma=16.0, tuning_runs=3)
    told = read(third)["tuning"]
    assert told["runs"] == 9 and read(second)["tuning"]["runs"] == 6
    tried = [Event(0.1, 8.0, 4 * 5), Event(0.1, 12.0, 2), Event(0.1, 16.0, 4 * 3)]
    assert told["epsilon"] == pytest.approx(accounting.epsilon(tried, read(third)["delta"]))
    assert verify_run(third) == []
    untuned = made(tmp_path / "d", made(tmp_path / "e", epsilon=2.0), epsilon=4.0)
    assert read(untuned)["tuning"] == {"runs": 2, "epsilon": None}


def test_all_stages_are_priced_together_whatever_their_populations_are_called(tmp_path):
    first = made(tmp_path / "a", population="one clinic")
    second = made(tmp_path / "b", first, population="another", sigma=9.0)
    told = read(second)
    assert told["inherited"] == 1 and read(first)["epsilon"] < told["epsilon"] <= 8.0
    both = [Event(e["sampling_prob"], e["noise_multiplier"], e["steps"]) for e in told["events"]]
    assert len(both) == 2 and told["epsilon"] == accounting.epsilon(both, told["delta"])


def test_delta_is_no_larger_than_that_of_any_stage(tmp_path):
    first = made(tmp_path / "a", sizes={"public_size": 10**6, "expected_batch_size": 10**5})
    second = made(tmp_path / "b", first, epsilon=12.0)
    assert read(second)["delta"] == read(first)["delta"] < 1e-6 and verify_run(second) == []
    with pytest.raises(InputError, match=r"leave dp\.delta out"):
        made(tmp_path / "c", first, epsilon=12.0, delta=1e-5)


def test_a_plain_beginning_is_allowed_on_drawn_images_alone_and_through_any_chain(tmp_path):
    drawn = made(tmp_path / "a", enabled=False, data="phantom", unit="image", selection="coupled")
    again = made(tmp_path / "b", drawn, enabled=False, data="phantom")
    begun = made(tmp_path / "c", again)
    told = read(begun)
    assert (told["grade"], told["unit"], told["selection"]) == ("private", "patient", "independent")
    assert told["inherited"] == 0 and all(verify_run(run) == [] for run in (drawn, again, begun))
    for label, words, start in (("d", {}, None), ("e", {"data": "phantom"}, "d")):
        start = start and tmp_path / start
        real = made(tmp_path / label, start, enabled=False, **words)
        assert read(real)["data"] == "real", "its parameters are of patients"
        with pytest.raises(InputError, match="a run without privacy"):
            made(tmp_path / f"after {label}", real)


def test_a_research_run_is_not_laundered_by_plain_stages_on_drawn_images(tmp_path):
    seeded = made(tmp_path / "a", insecure_seed=1, data="phantom")
    plain = made(tmp_path / "b", seeded, enabled=False, data="phantom")
    plain = made(tmp_path / "c", plain, enabled=False, data="phantom")
    with pytest.raises(InputError, match="a run without privacy"):
        made(tmp_path / "d", plain)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"unit": "eye"}, "neither better nor worse than patient or lesion or image"),
        ({"grade": "gold"}, "neither better nor worse"),
        ({"selection": "sorted"}, "neither better nor worse"),
        ({"relation": "replace_one"}, "its neighbours are 'replace_one'"),
        ({"ledger_head": "0"}, "whose ledger is not the one"),
        ({"config_digest": "0"}, "whose config is not the one"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(tmp_path, values, sentence):
    first = made(tmp_path / "a")
    change(first, **values)
    if "unit" in values:
        change(first, "population", **values)
    with pytest.raises(InputError, match=sentence) as caught:
        read_earlier(first)
    assert "\n" not in str(caught.value)


def test_a_statement_that_lacks_a_word_is_no_beginning(tmp_path):
    first = made(tmp_path / "a")
    told = read(first)
    del told["selection"], told["tuning"]
    (first / "privacy.json").unlink()
    with pytest.raises(InputError, match="no finished run"):
        read_earlier(first)
    change_all(first, told)
    with pytest.raises(InputError, match="lacks selection, tuning"):
        read_earlier(first)


def change_all(folder, content):
    shutil.rmtree(folder / "privacy.json", ignore_errors=True)
    (folder / "privacy.json").write_text("{}")
    change(folder, **content)


def as_older(folder, *more):
    """What a run of a version says that did not know these keys."""
    told = read(folder)
    for name in ("earlier", "metrics_digest", "padded_to", "parameters_digest", *more):
        del told[name]
    change_all(folder, told)


def test_an_older_run_is_followed_to_its_own_beginning(tmp_path):
    seeded = made(tmp_path / "a", insecure_seed=1)
    second = made(tmp_path / "b", seeded, epsilon=12.0)
    as_older(second)
    change(second, grade="private", noise_source="os", tuning={"runs": 1, "epsilon": None})
    third = made(tmp_path / "c", second, epsilon=20.0)
    assert read(third)["grade"] == "research" and len(read(third)["earlier"]["chain"]) == 2
    assert verify_run(third) == []
    assert any("grade is 'private'" in fault for fault in verify_run(second)), "it claimed better"
    shutil.rmtree(seeded)
    with pytest.raises(InputError, match=r"its own train\.start_from is"):
        made(tmp_path / "d", second, epsilon=20.0)


def test_the_verifier_reads_the_earlier_stage_and_says_where_it_is_gone(tmp_path):
    first = made(tmp_path / "a", epsilon=2.0)
    second = made(tmp_path / "b", first, epsilon=4.0)
    assert check_run(second) == ([], [])
    told = read(first)
    change(first, selection="coupled")
    assert any("another digest" in fault for fault in verify_run(second))
    change_all(first, told)
    change(second, earlier=told["earlier"])
    assert any("the config begins with" in fault for fault in verify_run(second))
    shutil.rmtree(first)
    change(second, earlier={})
    assert verify_run(second)


def test_a_gone_earlier_folder_is_said_and_is_no_fault(tmp_path):
    first = made(tmp_path / "a", epsilon=2.0, insecure_seed=4)
    second = made(tmp_path / "b", first, epsilon=4.0)
    shutil.rmtree(first)
    faults, unchecked = check_run(second)
    assert faults == [] and len(unchecked) == 1 and str(first) in unchecked[0]
    change(second, grade="private")
    assert any("grade" in fault for fault in verify_run(second)), "it still repeats the words"


def test_another_run_in_the_earlier_folder_is_found(tmp_path):
    first = made(tmp_path / "a", epsilon=2.0)
    second = made(tmp_path / "b", first, epsilon=4.0)
    shutil.rmtree(first)
    made(first, epsilon=2.0, tuning_runs=40)
    assert any("is not the one that this run began with" in f for f in verify_run(second))


def test_what_one_stage_leaves_out_is_left_out_by_the_next(tmp_path):
    first = made(tmp_path / "a")
    change(first, not_covered=[*read(first)["not_covered"], "whoever watches the clock"])
    second = made(tmp_path / "b", first)
    third = made(tmp_path / "c", second)
    assert read(third)["not_covered"][-1] == "whoever watches the clock"
    assert verify_run(third) == []
    change(third, not_covered=read(third)["not_covered"][:-1])
    assert any("not_covered" in fault for fault in verify_run(third))


@pytest.mark.parametrize("older", [(), ("queries", "group_sampling", "joint_noise_multiplier")])
def test_older_runs_verify_and_say_what_cannot_be_checked(tmp_path, older):
    folder = made(tmp_path / "a", checkpoint=True)
    as_older(folder, *older)
    faults, unchecked = check_run(folder)
    assert faults == [] and len(unchecked) == (2 if older else 1)
    assert all("cannot be checked" in sentence for sentence in unchecked)
    (folder / "population.json").unlink()
    assert verify_run(folder) == [] and "population.json" in check_run(folder).unchecked[-1]
    change(folder, epsilon=1.0)
    assert any("epsilon is 1.0" in fault for fault in verify_run(folder))


def test_a_plan_cannot_inherit_a_ledger_without_its_words():
    with pytest.raises(TypeError):
        make_plan(PrivacyConfig(), **SIZES, prior=())


def test_fresh_parameters_leave_the_words_alone():
    own = {name: words[0] for name, words in ORDER.items()}
    assert worst(own, {}) == own


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("privacy", {"tuning": None}),
        ("privacy", {"delta": "x"}),
        ("privacy", {"earlier": {"grade": 1}}),
        ("privacy", {"not_covered": 3}),
        ("config", {"train": None}),
        ("config", {"dp": []}),
        ("env", {"versions": {}}),
        ("population", {"unit": None}),
    ],
)
def test_a_damaged_file_of_a_run_is_one_sentence(tmp_path, name, values):
    run = made(tmp_path / "b", made(tmp_path / "a"))
    change(run, name, **values)
    if name == "config":
        change(run, config_digest=json_digest(read(run, "config")))
    assert all("\n" not in fault for fault in verify_run(run)) and verify_run(run)
    if name in ("privacy", "population"):
        for ask in (read_earlier, lambda folder: read_study([folder])):
            with pytest.raises(InputError, match=r"compared|damaged"):
                ask(run)


def test_people_of_another_unit_than_the_claims_are_no_beginning(tmp_path):
    """Else an image under a claim would be a patient one stage later."""
    run = made(tmp_path / "a", unit="image")
    change(run, "population", unit="patient")
    with pytest.raises(InputError, match=r"population.json says .*, and its claim 'image'"):
        read_earlier(run)


def test_a_population_file_that_says_nothing_is_found(tmp_path):
    run = made(tmp_path / "a")
    (run / "population.json").write_text("{}")
    assert verify_run(run) == ["population.json cannot be read: {}"]


def test_a_folder_that_somebody_put_beside_the_checkpoints_is_passed_over(tmp_path):
    run = made(tmp_path / "a", checkpoint=True)
    (run / "checkpoints-backup").mkdir()
    (run / "checkpoints" / "seal-old.json").write_text("{}")
    assert verify_run(run) == []
