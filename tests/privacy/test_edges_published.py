"""Sharp edges of a released evaluation; `mutations/faults_published.py` puts each one back."""

import numpy as np
import pytest
from scipy.stats import norm

from jaxfair.fairness.histogram import area
from jaxfair.fairness.noisy import Side, interval, noisy_table
from jaxfair.privacy.accounting import Event, epsilon
from jaxfair.privacy.histogram import People, open_answers, price
from jaxfair.privacy.ledger import BudgetExceeded, Ledger
from jaxfair.privacy.queries import joint
from jaxfair.privacy.risk import true_positive_rate
from jaxfair.privacy.secret import insecure_secret, os_secret
from jaxfair.publish.asking import Asked, asked_of, people_of, questions
from tests.privacy.published import predictions

QUESTIONS = {"validation": ("range", "scores"), "tests": ("sex", "age")}
ONE, CELL = np.ones(1, bool), np.zeros(1, int)


def opened(folder, people, *, budget=1.0, number=0):
    folder = folder / str(number)
    folder.mkdir(exist_ok=True)
    books = Ledger(folder / "ledger.jsonl", budget=budget, delta=1e-5)
    return open_answers(price(1.0, 1e-5, QUESTIONS), books, os_secret(), people), books


def total(answers, part, name, about):
    """Of 200 cells, so that noise of deviation 5 moves the sum by about 75; rows are 10,000."""
    cells = np.arange(len(about)) % 200
    return answers.ask(part, name, about, cells, 200, 1).sum()


def test_edge_190_the_images_of_a_patient_share_one_unit(tmp_path):
    people = People(np.zeros(10_000, int), np.ones(10_000, bool))
    answers, _ = opened(tmp_path, people)
    assert abs(total(answers, "tests", "sex", np.ones(10_000, bool))) < 1000


def test_edge_191_a_patient_of_both_splits_counts_in_one(tmp_path):
    patient = np.tile(np.arange(5000), 2)
    people = People(patient, np.arange(10_000) < 5000)
    answers, _ = opened(tmp_path, people)
    assert abs(total(answers, "validation", "range", np.ones(10_000, bool))) < 1000


def test_edge_192_the_questions_of_a_part_are_one_event():
    found = price(1.0, 1e-5, QUESTIONS)
    together = [joint(asked) for asked in found.queries.values()]
    assert epsilon([Event(1.0, min(together), 1)], 1e-5) <= 1.0 + 1e-9


def test_edge_193_a_second_release_adds_up(tmp_path):
    people = People(CELL, ONE)
    _, books = opened(tmp_path, people)
    with pytest.raises(BudgetExceeded):
        open_answers(price(1.0, 1e-5, QUESTIONS), books, os_secret(), people)


def test_edge_194_every_question_has_noise_of_its_own(tmp_path):
    answers, _ = opened(tmp_path, People(CELL, ~ONE))  # nobody is in the tests: noise alone
    one, two = (answers.ask("tests", name, ONE, CELL, 500, 1) for name in QUESTIONS["tests"])
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.3
    assert one.std() == pytest.approx(answers.noise_sd("tests"), rel=0.2)


def test_edge_195_a_question_is_answered_once(tmp_path):
    answers, _ = opened(tmp_path, People(CELL, ONE))
    answers.ask("tests", "sex", ONE, CELL, 6, 3)
    with pytest.raises(ValueError, match="has had its answer"):
        answers.ask("tests", "sex", ONE, CELL, 6, 3)


def test_edge_196_small_groups_are_hidden():
    table = noisy_table(np.full((1, 2, 4), 3.0), np.eye(4), ["few"], at=2)
    assert table["value"].isna().all()


def test_edge_197_an_attacker_finds_no_more_than_is_said():
    """Of one sampled step, by the exact test of its likelihood ratio."""
    exact = 0.9 * 0.01 + 0.1 * norm.sf(norm.isf(0.01) - 1)
    assert true_positive_rate([Event(0.1, 1.0, 1)], 0.01) >= exact - 1e-9


def edges_of(folder, rows):
    folder.mkdir()
    asked, books = Asked(1.0), Ledger(folder / "ledger.jsonl", budget=1.0, delta=1e-5)
    cost = price(1.0, 1e-5, questions(asked, ("finding",)))
    answers = open_answers(cost, books, insecure_secret(0), people_of(rows))
    found = asked_of(answers, asked, rows, "finding")
    assert answers.unanswered() == []
    return found["sex"].edges, found["sex"].at


def test_edge_198_bins_and_the_threshold_follow_from_validation_patients_alone(tmp_path):
    """The same secret, other scores and labels of all test patients: the same bins."""
    rows = predictions(900)
    tests = (rows["split"] == "test").to_numpy()
    other = rows.assign(
        y_score=np.where(tests, rows["y_score"] ** 4, rows["y_score"]),
        y_true=np.where(tests, 1 - rows["y_true"], rows["y_true"]),
    )
    (one, at), (two, other_at) = edges_of(tmp_path / "1", rows), edges_of(tmp_path / "2", other)
    assert np.array_equal(one, two) and at == other_at


def rows_of_noise(answers, rows, bins):
    """(rows, bins) of noise alone: nobody is in the tests."""
    return answers.ask("tests", "sex", ONE, CELL, rows * bins, bins).reshape(rows, bins)


def test_edge_199_the_noise_hides_one_patient_in_any_bin(tmp_path):
    """How far a patient's bin is from nobody, in deviations of the noise that is really there."""
    answers, _ = opened(tmp_path, People(CELL, ~ONE))
    apart = np.linalg.inv(np.cov(rows_of_noise(answers, 20_000, 8).T))
    assert answers.noise_sd("tests") ** 2 * np.diag(apart).max() <= 1.06


def test_edge_200_the_noise_of_the_answers_is_that_which_is_told(tmp_path):
    answers, _ = opened(tmp_path, People(CELL, ~ONE))
    told = answers.noise("tests", 8)
    assert np.allclose(np.cov(rows_of_noise(answers, 20_000, 8).T), told, atol=0.05 * told.max())


def test_edge_201_intervals_hold_the_noise_of_sums_of_bins(tmp_path):
    """The noise of an AUROC and of a prevalence, by 2,000 answers about the same counts."""
    answers, _ = opened(tmp_path, People(CELL, ~ONE))
    mean = np.array([np.linspace(300, 100, 8), np.linspace(10, 60, 8)])
    noisy = mean + rows_of_noise(answers, 4000, 8).reshape(-1, 2, 8)
    side = Side(noisy, answers.noise("tests", 8), 50.0, 4)
    shares = noisy[:, 1].sum(-1) / noisy.sum((1, 2))
    for metric, values in (("auroc", area(noisy)), ("prevalence", shares)):
        told = (interval(side, metric).noise_sd ** 2).mean() ** 0.5
        assert told == pytest.approx(values.std(), rel=0.08), metric
