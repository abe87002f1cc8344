"""Runs that appear together are one release: any rates, folds that share people, earlier stages."""

import json
import pathlib

import pytest

from jaxfair import account
from jaxfair.errors import InputError
from jaxfair.files import json_digest
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.statement import tuning_cost
from jaxfair.privacy.study import Fold, Trained, joint_cost, read_study
from tests.privacy.chains import change, made, read

ROOT = pathlib.Path(__file__).resolve().parents[2]
E03 = ROOT / "experiments" / "e03_dp_classifier" / "results"
RULE = ("lesions", "salt", 5)


def published(path):
    """The private runs of a stored study, by epsilon."""
    columns = {}
    for told in json.loads(path.read_text()):
        marks = dict(part.split("-", 1) for part in told["run"].split("_"))
        if told["epsilon"] is not None:
            event = Event(told["sampling_prob"], told["noise_multiplier"], told["steps"])
            fold = Fold(RULE, 5, int(marks["fold"]))
            columns.setdefault(float(marks["epsilon"]), []).append(Trained((event,), fold))
    return columns


def test_five_folds_at_eight_cost_nineteen_and_all_columns_thirty_six():
    columns = published(E03 / "privacy.json")
    assert joint_cost(columns[8.0], 1e-5) == pytest.approx(19.1, abs=0.05)
    every = [trained for column in columns.values() for trained in column]
    assert joint_cost(every, 1e-5) == pytest.approx(36.0, abs=0.5)
    apart = [Trained(trained.events) for trained in columns[8.0]]
    assert joint_cost(apart, 1e-5) == pytest.approx(22.16, abs=0.01), "nobody is in five of five"


def test_who_pays_most_is_in_the_fold_that_was_left_out_where_least_was_spent():
    costly, cheap = Event(1.0, 8.0, 10), Event(1.0, 30.0, 10)
    folds = [Trained((costly if n else cheap,), Fold(RULE, 5, n)) for n in range(5)]
    assert joint_cost(folds, 1e-5) == accounting.epsilon([costly] * 4, 1e-5)
    some = folds[:2]  # whoever is in the other folds trained in both
    assert joint_cost(some, 1e-5) == accounting.epsilon([cheap, costly], 1e-5)
    other = [Trained(t.events, Fold(("x", 5), 5, n)) for n, t in enumerate(folds)]
    two_rules = accounting.epsilon([costly] * 8, 1e-5)
    assert joint_cost([*folds, *other], 1e-5) == two_rules, "folds of two rules are not the same"


def test_runs_of_any_rates_noise_and_steps_are_one_composition():
    runs = [[Event(0.1, 8.0, 4)], [Event(0.2, 9.0, 7), Event(0.1, 8.0, 1)], []]
    wanted = accounting.epsilon([event for events in runs for event in events], 1e-5)
    assert tuning_cost(runs, 1e-5) == {"runs": 3, "epsilon": wanted}


def folds_of(folder, count, **words):
    split = {"split": "folds", "folds": 5, "split_salt": "s", "source": "table"}
    return [made(folder / f"fold {n}", split=split | {"fold": n}, **words) for n in range(count)]


def test_folders_are_read_and_priced_by_who_trained_in_them(tmp_path):
    runs = folds_of(tmp_path, 5)
    event = Event(0.1, 8.0, 4)
    assert read_study(runs).epsilon == accounting.epsilon([event] * 4, 1e-5)
    assert read_study(runs[:3]).epsilon == accounting.epsilon([event] * 3, 1e-5)
    change(runs[0], "config", data=read(runs[0], "config")["data"] | {"split_salt": "t"})
    change(runs[0], config_digest=json_digest(read(runs[0], "config")))
    assert read_study(runs).epsilon == accounting.epsilon([event] * 5, 1e-5)


def test_folds_that_validate_beside_a_fixed_test_set_leave_each_person_out_once(tmp_path):
    split = {"split": "validation_folds", "folds": 5, "split_salt": "s", "source": "table"}
    split |= {"test_share": 0.1}
    runs = [made(tmp_path / f"fold {n}", split=split | {"fold": n}) for n in range(5)]
    event = Event(0.1, 8.0, 4)
    assert read_study(runs).epsilon == accounting.epsilon([event] * 4, 1e-5)
    data = read(runs[0], "config")["data"] | {"test_share": 0.2}
    change(runs[0], "config", data=data)  # somebody may have tested there and trained in all others
    change(runs[0], config_digest=json_digest(read(runs[0], "config")))
    assert read_study(runs).epsilon == accounting.epsilon([event] * 5, 1e-5)


@pytest.mark.parametrize(
    ("words", "split"),
    [
        ({"unit": "image"}, {}),
        ({}, {"table": {"file": "t.csv", "patient": "p", "look_alikes": "merge"}}),
        ({}, {"table": {"file": "u.csv", "patient": "p"}}),
    ],
)
def test_folds_of_people_who_are_called_otherwise_are_not_the_same(tmp_path, words, split):
    """RSNA with and without its mapping to patients, or an id as written and merged."""
    about = {"split": "folds", "folds": 2, "split_salt": "s", "source": "table", "fold": 0}
    about |= {"table": {"file": "t.csv", "patient": "p"}}
    one = made(tmp_path / "one", split=about)
    same, other = about | {"fold": 1}, about | split | {"fold": 1}
    event = Event(0.1, 8.0, 4)
    alike = made(tmp_path / "alike", split=same)
    assert read_study([one, alike]).epsilon == accounting.epsilon([event], 1e-5)
    unlike = made(tmp_path / "unlike", split=other, **words)
    assert read_study([one, unlike]).epsilon == accounting.epsilon([event] * 2, 1e-5)


def test_a_fold_of_images_by_themselves_or_by_their_patients_leaves_nobody_out(tmp_path):
    about = {"split": "folds", "folds": 2, "split_salt": "s", "source": "rsna"}
    runs = [made(tmp_path / str(n), split=about | {"fold": n}, unit="image") for n in range(2)]
    assert read_study(runs).epsilon == accounting.epsilon([Event(0.1, 8.0, 4)], 1e-5)
    for run in runs:
        change(run, "config", dp=read(run, "config")["dp"] | {"unit": "image"})
        change(run, config_digest=json_digest(read(run, "config")))
    assert read_study(runs).epsilon == accounting.epsilon([Event(0.1, 8.0, 4)] * 2, 1e-5)


def test_an_earlier_stage_is_counted_once_and_tuning_with_it(tmp_path):
    first = made(tmp_path / "a", sigma=8.0, tuning_runs=3)
    two, three = (made(tmp_path / n, first, sigma=s) for n, s in (("b", 9.0), ("c", 10.0)))
    stages = {s: Event(0.1, s, 4) for s in (8.0, 9.0, 10.0)}
    for runs in ([two, three], [two, three, first], [first, three, two]):
        study = read_study(runs)
        assert study.epsilon == accounting.epsilon(stages.values(), 1e-5)
        tuned = [stages[8.0]] * 3 + [stages[9.0], stages[10.0]]
        assert study.tuning_epsilon == accounting.epsilon(tuned, 1e-5)


def test_other_populations_are_the_same_people_and_the_smallest_delta_holds(tmp_path):
    large = {"public_size": 10**6, "expected_batch_size": 10**5}
    one = made(tmp_path / "a", population="x", insecure_seed=2)
    other = made(tmp_path / "b", population="y", unit="image", sizes=large)
    study = read_study([one, other])
    assert study.delta == read(other)["delta"] < read(one)["delta"]
    assert study.epsilon == accounting.epsilon([Event(0.1, 8.0, 8)], study.delta)
    assert study.words["populations"] == "x, y" and study.words["grade"] == "research"


def test_the_command_prints_the_joint_price_beside_each_runs_own(tmp_path, capsys):
    runs = folds_of(tmp_path, 2)
    assert account.main(["account", "--joint", *map(str, runs)]) == 0
    printed = capsys.readouterr().out
    assert f"{read(runs[0])['epsilon']:.4f}" in printed and "all together" in printed
    assert "all populations count as the same people" in printed
    assert account.main(["account", "--help"]) == 0
    assert "--joint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["--joint"], "give --joint RUN RUN"),
        (["RUN"], "--joint RUN RUN"),
        (["--joint", "--verify=x", "RUN"], "Give --config FILE"),
        (["--joint", "nowhere"], "A run to be priced is nowhere, which holds no finished run"),
    ],
)
def test_wrong_lines_get_one_sentence(capsys, line, sentence):
    assert account.main(["account", *line]) == 2
    assert sentence in capsys.readouterr().err


def test_a_run_without_privacy_and_a_run_named_twice_are_refused(tmp_path):
    private, plain = made(tmp_path / "a"), made(tmp_path / "b", enabled=False)
    with pytest.raises(InputError, match="trained without privacy"):
        read_study([private, plain])
    with pytest.raises(InputError, match="are the same run"):
        read_study([private, private])
