"""One patient more or less, through the whole of a release: which answers move, and by how much.

A release may ask by what it was answered, so that two of them are compared under the same answers:
whatever was asked first is answered alike, and the true counts behind the answers are set side by
side (adaptive composition). Noise is left out of those.
"""

from unittest import mock

import numpy as np
import pandas as pd
import pytest

from jaxfair.errors import InputError
from jaxfair.privacy import histogram
from jaxfair.privacy.histogram import price
from jaxfair.privacy.publication import LEDGER
from jaxfair.privacy.secret import insecure_secret
from jaxfair.privacy.strategy import strategy
from jaxfair.publish import Asked, run
from jaxfair.publish.asking import questions
from jaxfair.run.folder import RunFolder
from tests.privacy.published import evaluated

TASKS = ("finding", "rare")
ASKED = Asked(1.0, attributes=("sex", "sex x age_group"), bins=4)
COST = price(1.0, 1e-5, questions(ASKED, TASKS))


def odd_rows(seed=0, *, patients=60):
    """Patients of one to six images: labels that are missing or of both classes, a sex that is
    another in each image, ages that are missing, scores of 0 and 1, and rows of both splits."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 7, patients))
    n = len(patient)
    image = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(n)],
            "patient_id": [f"p{p}" for p in patient],
            "split": np.where(rng.random(n) < (patient % 3) / 2, "test", "validation"),
            "y_score": rng.choice([0.0, 0.1, 0.4, 0.8, 1.0], n),
            "sex": rng.choice(["F", "M", None], n),
            "age": rng.choice([3.0, 44.0, np.nan, 200.0], n),
        }
    )
    labels = [0.0, 1.0, np.nan]
    parts = [
        image.assign(task=task, y_true=rng.choice(labels, n, p=chances))
        for task, chances in zip(TASKS, ([0.5, 0.3, 0.2], [0.5, 0.05, 0.45]))
    ]
    return pd.concat(parts, ignore_index=True)


def true_answers(folder, rows, answers=None):
    """((part, question) -> what was asked, the same -> what was told, files) of one release.

    What is asked are the true counts, summed as `strategy` says, a row for each row of bins.

    Args:
      answers: of another release, given here too; None for noise of a seed.
    """
    asked, true, given = histogram.Answers.ask, {}, {}

    def ask(self, part, name, about, cell, size, bins):
        silent = mock.patch.object(histogram, "gaussian_like", lambda tree, *rest: tree)
        with silent, mock.patch.object(histogram, "_GRID", 2**30):
            counts = asked(self, part, name, about, cell, size, bins)
        true[part, name] = counts.reshape(-1, bins) @ strategy(bins).T
        noise = np.random.default_rng(len(true)).normal(scale=self.noise_sd(part), size=size)
        noisy = counts + np.linalg.solve(strategy(bins), noise.reshape(-1, bins).T).T.ravel()
        given[part, name] = noisy if answers is None else answers[part, name]
        return given[part, name]

    with mock.patch.object(histogram.Answers, "ask", ask):
        made = run(RunFolder(evaluated(folder, rows, TASKS)), ASKED, secret=insecure_secret(0))
    return true, given, {path.name: path.read_bytes() for path in made.iterdir()}


def moved(true, other):
    """Of two releases, by part: how far one patient moved all its answers, in noises of the event.

    The guarantee holds where it is at most 1 in all.
    """
    assert list(true) == list(other)  # the same questions in the same order
    assert {name: a.shape for name, a in true.items()} == {n: a.shape for n, a in other.items()}
    return {
        part: COST.noise_multiplier * sum(
            (np.linalg.norm(true[key] - other[key]) / COST.queries[part][0].noise_stddev) ** 2
            for key in true if key[0] == part
        ) ** 0.5
        for part in COST.queries
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_one_patient_less_moves_one_part_of_a_release_by_at_most_what_was_paid(tmp_path, seed):
    rows = odd_rows(seed)
    true, given, made = true_answers(tmp_path / "all", rows)
    seen = set()
    for who in range(6):
        rest = rows[rows["patient_id"] != f"p{who}"]
        other, _, files = true_answers(tmp_path / str(who), rest, given)
        found = moved(true, other)
        seen |= {part for part, far in found.items() if far > 0}
        assert min(found.values()) == 0 and max(found.values()) <= 1 + 1e-9
        assert files == made  # nothing but the answers reaches the folder
    assert seen == {"validation", "tests"}


def test_a_patient_alone_with_a_label_changes_no_question_and_no_price(tmp_path):
    rows = odd_rows()
    alone = (rows["task"] == "finding") | (rows["patient_id"] == "p2")
    rows = rows[alone].assign(y_true=lambda of: of["y_true"].fillna(1.0))
    true, given, made = true_answers(tmp_path / "all", rows)
    other, _, files = true_answers(tmp_path / "less", rows[rows["patient_id"] != "p2"], given)
    assert max(moved(true, other).values()) <= 1 + 1e-9
    assert files == made


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused_and_nothing_is_paid(tmp_path, bad):
    rows = odd_rows()
    rows.loc[7, "y_score"] = bad
    folder = evaluated(tmp_path, rows, TASKS)
    with pytest.raises(InputError, match=r"column y_score, row 9: 'inf' is no|not a finite number"):
        run(RunFolder(folder), ASKED)
    assert not (folder / LEDGER).exists()


def test_an_evaluation_without_labels_of_one_kind_or_without_validation_is_released(tmp_path):
    rows = odd_rows().query("split == 'test'").assign(y_true=1.0)
    made = run(RunFolder(evaluated(tmp_path, rows, TASKS)), ASKED)
    table = pd.read_csv(made / "tables.csv")
    assert table.loc[table["metric"] == "specificity", "value"].isna().all()
