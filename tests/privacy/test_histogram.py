"""One patient more, the law of the noise, and what is paid: the guarantee of a release, by line."""

import numpy as np
import pytest
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.privacy import histogram
from jaxfair.privacy.accounting import epsilon
from jaxfair.privacy.histogram import EVALUATED, People, open_answers, price, unit_histogram
from jaxfair.privacy.ledger import BudgetExceeded, Ledger
from jaxfair.privacy.queries import joint
from jaxfair.privacy.secret import Secret, insecure_secret, os_secret
from jaxfair.privacy.strategy import strategy

QUESTIONS = {"validation": ("range", "scores"), "tests": ("sex", "age")}
COST = price(1.0, 1e-5, QUESTIONS)
BINS = {"validation": 1, "tests": 6}


def ledger_of(folder, *, budget=1.0):
    folder.mkdir(parents=True, exist_ok=True)
    return Ledger(folder / "release_ledger.jsonl", budget=budget, delta=1e-5)


def silent(monkeypatch):
    """Answers without their noise, rounded as ever."""
    monkeypatch.setattr(histogram, "gaussian_like", lambda tree, *rest: tree)


def rows_of(seed, *, patients=40):
    """Patients of 1 to 9 images in either part and in both."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 10, patients))
    tests = rng.random(len(patient)) < rng.choice([0.0, 0.5, 1.0], patients)[patient]
    return patient, tests, rng.integers(0, 6, len(patient))


def answers_on(folder, patient, tests, cells):
    """All answers of a release, part by part."""
    answers = open_answers(COST, ledger_of(folder), os_secret(), People(patient, tests))
    about = np.ones(len(patient), bool)
    return {
        part: np.concatenate(
            [answers.ask(part, name, about, cells, 6, BINS[part]) for name in names]
        )
        for part, names in QUESTIONS.items()
    }


@pytest.mark.parametrize("seed", range(6))
def test_one_patient_more_with_all_images_moves_one_part_by_at_most_what_was_priced(
    tmp_path, monkeypatch, seed
):
    """Without noise and its rounding: within a part the questions count by their noise, which is
    on what `strategy` asks of the counts."""
    silent(monkeypatch)
    monkeypatch.setattr(histogram, "_GRID", 2**30)
    patient, tests, cells = rows_of(seed)
    there = answers_on(tmp_path, patient, tests, cells)
    for who in range(5):
        rest = patient != who
        gone = answers_on(tmp_path / str(who), patient[rest], tests[rest], cells[rest])
        moved = {
            part: (there[part] - gone[part]).reshape(-1, bins) @ strategy(bins).T
            for part, bins in BINS.items()
        }
        noises = {part: COST.queries[part][0].noise_stddev for part in QUESTIONS}
        ratios = [np.linalg.norm(moved[part]) / noises[part] for part in QUESTIONS]
        assert sum(ratio > 0 for ratio in ratios) == 1
        assert np.linalg.norm(ratios) <= (1 + 1e-9) / COST.noise_multiplier


def test_rows_of_a_patient_share_one_unit_and_nothing_rounds():
    for images in (1, 3, 7, 1000):
        masses = unit_histogram(np.zeros(images, int), np.arange(images) % 3, 3)
        assert 1 - images * 2.0**-30 <= masses.sum() <= 1
    patient, _, cells = rows_of(0)
    shuffled = np.random.default_rng(1).permutation(len(patient))
    again = unit_histogram(patient[shuffled], cells[shuffled], 6)
    assert (again == unit_histogram(patient, cells, 6)).all()


def test_a_patient_with_a_test_row_counts_in_no_other_part(tmp_path, monkeypatch):
    silent(monkeypatch)
    both = np.array([0, 0, 0]), np.array([True, False, False]), np.array([1, 2, 2])
    found = answers_on(tmp_path, *both)
    assert found["tests"][:6].tolist() == [0, 1, 0, 0, 0, 0] and not found["validation"].any()


@pytest.mark.parametrize("part", ["validation", "tests"])
def test_the_noise_is_gaussian_of_the_priced_deviation_and_new_for_each_question(tmp_path, part):
    people = People(np.zeros(1, int), np.array([part != "tests"]))  # nobody is in this part
    answers = open_answers(COST, ledger_of(tmp_path), os_secret(), people)
    one, two = (
        answers.ask(part, name, np.ones(1, bool), np.zeros(1, int), 40_000, 1)
        for name in QUESTIONS[part]
    )
    for noise in (one, two):
        scaled = noise / answers.noise_sd(part)
        assert abs(scaled.std() - 1) < 0.02
        assert scipy.stats.kstest(scaled, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.025


def test_what_is_told_is_the_noisy_answer_to_the_priced_question_undone(tmp_path, monkeypatch):
    """B (told) = B h + noise, the noise that which was drawn: nothing else of the rows is in it."""
    drawn = np.random.default_rng(0).normal(scale=COST.queries["tests"][0].noise_stddev, size=16)
    monkeypatch.setattr(histogram, "gaussian_like", lambda *given: {"masses": drawn})
    monkeypatch.setattr(histogram, "_GRID", 2**30)
    patient, tests, cells = rows_of(0)
    answers = open_answers(COST, ledger_of(tmp_path), os_secret(), People(patient, tests))
    about = np.ones(len(patient), bool)
    told = answers.ask("tests", "sex", about, cells, 16, 8)
    monkeypatch.setattr(histogram, "gaussian_like", lambda *given: {"masses": 0 * drawn})
    counts = answers.ask("tests", "age", about, cells, 16, 8)
    asked = (told - counts).reshape(2, 8) @ strategy(8).T
    assert np.allclose(asked, drawn.reshape(2, 8), atol=1e-6)


@pytest.mark.parametrize("bins", [3, 5, 16])
def test_the_noise_of_answers_has_the_covariance_that_is_told(tmp_path, bins):
    """Of 20,000 rows of bins, each independent of the row before."""
    people = People(np.zeros(1, int), np.zeros(1, bool))  # nobody is in the tests
    answers = open_answers(COST, ledger_of(tmp_path), os_secret(), people)
    given = np.ones(1, bool), np.zeros(1, int), 20_000 * bins, bins
    rows = answers.ask("tests", "sex", *given).reshape(-1, bins)
    told = answers.noise("tests", bins)
    assert np.allclose(np.cov(rows.T), told, atol=0.05 * told.max())
    across = rows[1:].T @ rows[:-1] / len(rows)
    assert abs(across).max() < 0.05 * told.max()
    sd = answers.noise_sd("tests")
    assert np.allclose(told, sd**2 * np.linalg.inv(strategy(bins).T @ strategy(bins)))


def test_another_secret_gives_other_noise_and_the_system_is_asked_by_default(tmp_path):
    people, about = People(np.zeros(1, int), np.ones(1, bool)), np.ones(1, bool)
    found = []
    for number in range(2):
        books = ledger_of(tmp_path / str(number))
        answers = open_answers(COST, books, os_secret(), people)
        found.append(answers.ask("tests", "sex", about, np.zeros(1, int), 100, 5))
    assert np.isclose(found[0], found[1]).mean() < 0.1, "of 100 answers on a grid some few meet"


def test_answers_lie_on_a_grid_that_hides_the_last_bits_of_the_noise(tmp_path):
    answers = open_answers(COST, ledger_of(tmp_path), os_secret(), People(*rows_of(0)[:2]))
    patient, _, cells = rows_of(0)
    found = answers.ask("tests", "sex", np.ones(len(patient), bool), cells, 6, 3) * 256
    assert (found == np.round(found)).all()


def test_all_questions_of_a_part_are_one_event_within_epsilon():
    assert epsilon([COST.event], 1e-5) <= 1.0
    for part in QUESTIONS:
        assert joint(COST.queries[part]) == pytest.approx(COST.noise_multiplier, rel=1e-9)
        assert joint(COST.queries[part]) >= COST.noise_multiplier


def test_a_release_is_paid_for_before_it_answers_and_a_second_one_adds_up(tmp_path):
    people = People(np.zeros(1, int), np.ones(1, bool))
    open_answers(COST, ledger_of(tmp_path), os_secret(), people)
    books = ledger_of(tmp_path)
    assert [(e.population, e.event) for e in books.entries] == [(EVALUATED, COST.event)]
    with pytest.raises(BudgetExceeded, match="above the budget of 1"):
        open_answers(COST, books, os_secret(), people)
    assert len(ledger_of(tmp_path)) == 1
    raised = ledger_of(tmp_path, budget=2.0)
    open_answers(COST, raised, os_secret(), people)
    assert 1.2 < raised.epsilon() <= 2.0


def test_one_secret_answers_one_release(tmp_path):
    people = People(np.zeros(1, int), np.ones(1, bool))
    books, secret = ledger_of(tmp_path, budget=9.0), insecure_secret(1)
    open_answers(COST, books, secret, people)
    with pytest.raises(InputError, match="answered a release before"):
        open_answers(COST, books, Secret(secret.material, "os"), people)


def test_what_was_not_priced_or_was_answered_has_no_answer(tmp_path):
    people = People(np.zeros(1, int), np.ones(1, bool))
    answers = open_answers(COST, ledger_of(tmp_path), os_secret(), people)
    given = np.ones(1, bool), np.zeros(1, int), 6, 1
    answers.ask("tests", "sex", *given)
    for part, name in (("tests", "sex"), ("tests", "scores"), ("validation", "sex")):
        with pytest.raises(ValueError, match="not paid for, or has had its answer"):
            answers.ask(part, name, *given)
    assert answers.unanswered() == ["range", "scores", "age"]


def test_questions_without_a_part_and_odd_epsilons_are_refused():
    with pytest.raises(InputError, match="asks something of each"):
        price(1.0, 1e-5, {"tests": ("sex",)})
    for odd in (0.0, -1.0, 101.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="must be positive, and at most 100"):
            price(odd, 1e-5, QUESTIONS)
    with pytest.raises(ValueError, match="cells lie in"):
        unit_histogram(np.zeros(1, int), np.array([3]), 3)
