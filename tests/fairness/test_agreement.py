"""Rows and runs that contradict each other are refused in one sentence, in functions too."""

import numpy as np
import pandas as pd
import pytest

from jaxfair.errors import InputError
from jaxfair.fairness.agreement import check_images, check_runs
from jaxfair.fairness.compare import private_against_plain
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.predictions import checked
from jaxfair.fairness.selection import candidates
from jaxfair.fairness.table import fairness_table, fit_thresholds
from tests.fairness.conftest import make_predictions


def seeds(n, rows=None):
    rows = make_predictions(200) if rows is None else rows
    rng = np.random.default_rng(0)
    return [rows.assign(y_score=rows["y_score"] + rng.normal(size=len(rows))) for _ in range(n)]


def test_one_image_in_two_splits_with_opposite_labels_is_refused_everywhere():
    rows = make_predictions(200)
    twin = rows[rows["split"] == "validation"].assign(
        split="test", y_true=lambda t: 1 - t["y_true"]
    )
    both = pd.concat([rows, twin])
    for use in (checked, GroupFrame, fit_thresholds, lambda t: fairness_table(t, n_bootstrap=2)):
        with pytest.raises(InputError, match=r"Image 'i0' has y_true . and . for task 'anomaly'"):
            use(both)
    assert len(checked(pd.concat([rows, twin.assign(y_true=1 - twin["y_true"])]))) == len(both)


@pytest.mark.parametrize(
    ("column", "other"),
    [("patient_id", "someone"), ("sex", "X"), ("view", "lateral"), ("age", 44.0)],
)
def test_one_image_with_two_values_is_refused_across_tasks_and_runs(column, other):
    rows = make_predictions(100)
    changed = rows.assign(**{column: other})
    with pytest.raises(
        InputError, match=r"Image 'i\d+' has (age_group|" + column + ") .* and .*such"
    ):
        checked(pd.concat([rows, changed.assign(task="another")]))
    with pytest.raises(InputError, match=r" in a and .* in b .*mend the table"):
        check_runs([checked(rows), checked(changed)], ["a", "b"])


def test_unknown_contradicts_nothing():
    rows = make_predictions(100)
    silent = rows.assign(sex=None, age=None, task="another")
    assert len(checked(pd.concat([rows, silent]))) == 200
    check_images([checked(rows), checked(silent)], ["a", "b"])


def test_inverted_labels_in_one_seed_are_refused():
    plain, private = seeds(3), seeds(6)[3:]
    private[2] = private[2].assign(y_true=1 - private[2]["y_true"])
    with pytest.raises(InputError, match=r"y_true . in plain table 1 and . in private table 3"):
        private_against_plain(plain, private)


def test_one_run_given_five_times_is_not_five_seeds():
    plain, private = seeds(5), seeds(6)[5:] * 5
    with pytest.raises(
        InputError, match=r"private table 1 and private table 2 have the same score"
    ):
        private_against_plain(plain, private)
    shuffled = [table.sample(frac=1, random_state=i) for i, table in enumerate(private)]
    with pytest.raises(InputError, match="one run; give each run, or seed, once"):
        private_against_plain(plain, shuffled)


def test_two_models_that_learned_nothing_are_two_models():
    rows = checked(make_predictions(100).assign(y_score=0.5))
    check_runs([rows, rows], ["a", "b"])


def test_models_to_choose_from_must_agree_on_their_validation_rows():
    one, other = seeds(2)
    models = {"a": (one, None), "b": (other.assign(patient_id=other["image_id"]), 8.0)}
    with pytest.raises(InputError, match=r"patient_id .* in a and .* in b"):
        candidates(models, "sex")
