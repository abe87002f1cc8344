"""The three questions of a first page: is it good, is it fair, is it private.

Of 100 people so many are found (rounded down), missed or falsely alarmed (rounded up).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxfair.fairness.delong import logit_interval, mann_whitney_estimate
from jaxfair.fairness.groups import OVERALL
from jaxfair.fairness.influence import average
from jaxfair.privacy.meaning import members_found
from jaxfair.report.cells import Interval, at_least, at_most, number, short
from jaxfair.report.content import Answer
from jaxfair.report.single import Run
from jaxfair.report.statement import of_number, weaknesses
from jaxfair.report.views import TaskView
from jaxfair.report.worse import worse_words, worst_words, zero_words

__all__ = ["answers_of", "mean_auroc", "side_by_side"]

_MOST = 3
"""Runs that are named in a verdict."""


def answers_of(run: Run, views: Sequence[TaskView]) -> list[Answer]:
    """Returns the three answers of one run, of all its labels."""
    return [_good(run, views), _fair(views), _private(run)]


def side_by_side(runs: Sequence[Run], found: Sequence[Sequence[Answer]]) -> list[Answer]:
    """Returns the three answers of several runs, each run's verdict with its name."""
    told = []
    for several in zip(*found, strict=True):
        names = [f"{short(run.name)}: {answer.brief or answer.verdict}"
                 for run, answer in zip(runs, several, strict=True)]  # fmt: skip
        more = [f"Of {len(names) - _MOST} more runs below."] if len(names) > _MOST else []
        lines = [f"{short(run.name)}: {line}" for run, answer in zip(runs, several, strict=True)
                 for line in answer.lines[:1]]  # fmt: skip
        first = several[0]
        verdict = " ".join([*names[:_MOST], *more])
        kept = list(dict.fromkeys(lines))[:_MOST]
        told.append(Answer(first.key, first.question, verdict, kept, any(a.warn for a in several)))
    return told


def _good(run: Run, views: Sequence[TaskView]) -> Answer:
    wholes = {view.task: _whole(view) for view in views}
    area = _area(views, wholes)
    rates = pd.DataFrame(
        {task: [row.get("sensitivity", np.nan), row.get("specificity", np.nan)]
         for task, row in wholes.items()}, index=["found", "let go"],
    ).T.dropna()  # fmt: skip
    verdict = [_ranks(area, len(views), wholes)]
    verdict += [_found(rates, views, wholes)] if len(rates) else []
    lines = [_spread(wholes)] if len(views) == 1 and len(rates) else []
    if not len(rates):
        known = any(np.isfinite(view.threshold) for view in views)
        none = "No threshold: there are no validation rows of both labels."
        lines.append("Rates are undefined: the test rows have one label." if known else none)
    lines += [_tested(views)]
    lines += [run.at_test_time()] if run.model else []
    poor = not area.low > 0.5
    brief = f"{'AUROC' if len(views) == 1 else 'mean AUROC'} {area}."
    return Answer("good", "Is it good?", " ".join(verdict), lines, poor, brief)


def mean_auroc(views: Sequence[TaskView]) -> Interval:
    """Returns the plain mean of the labels' AUROCs with a 95 % interval; NaN if one is undefined.

    A patient moves all labels at once (`influence.average`).
    """
    ids = pd.Index(pd.unique(pd.concat([view.rows["patient_id"] for view in views])))
    estimates = []
    for view in views:
        y, codes = view.rows["y_true"].to_numpy(), ids.get_indexer(view.rows["patient_id"])
        score = view.rows["y_score"].to_numpy()
        estimates.append(mann_whitney_estimate(score, y == 1, y == 0, codes, n_patients=len(ids)))
    mean = average(estimates)
    return Interval(mean.value, *logit_interval(mean))


def _whole(view: TaskView) -> dict[str, float]:
    table = view.headline[view.headline["attribute"] == OVERALL]
    return {str(key): value for key, value in table.to_dict("records")[0].items()}


def _area(views: Sequence[TaskView], wholes: dict[str, dict[str, float]]) -> Interval:
    if len(views) > 1:
        return mean_auroc(views)
    row = wholes[views[0].task]
    nan = float("nan")
    return Interval(row.get("auroc", nan), row.get("auroc_low", nan), row.get("auroc_high", nan))


def _ranks(area: Interval, labels: int, wholes: dict[str, dict[str, float]]) -> str:
    if np.isnan(area.value):
        return "AUROC undefined."
    if labels > 1:
        by = sorted((row.get("auroc", np.nan), task) for task, row in wholes.items())
        ends = " to ".join(f"{number(v)} ({short(task)})" for v, task in (by[0], by[-1]))
        words = f"Mean AUROC {area} over {labels} labels, {ends}."
    else:
        words = f"AUROC {area}."
    if area.high < 0.5:
        return f"The score points the wrong way. {words}"
    return words if area.low > 0.5 else f"Not shown to be better than chance. {words}"


def _found(
    rates: pd.DataFrame, views: Sequence[TaskView], wholes: dict[str, dict[str, float]]
) -> str:
    """'Of 100 patients with the finding 72 are found; of 100 without it 42 are false alarms.'"""
    if len(views) > 1:
        by = rates["found"].sort_values()
        ends = " to ".join(
            f"{at_least(100 * by.iloc[i])} ({short(str(by.index[i]))})" for i in (0, -1)
        )
        return f"Of 100 with the finding {ends} are found."
    row = wholes[views[0].task]
    who = "patients" if row["n"] == row["n_images"] else "images"
    found, kept = rates.iloc[0]
    return (
        f"Of 100 {who} with the finding {at_least(100 * found)} are found; of 100 without it"
        f" {at_most(100 * (1 - kept))} raise a false alarm."
    )


def _spread(wholes: dict[str, dict[str, float]]) -> str:
    """The intervals of both rates, in people of 100, rounded outwards."""
    (row,) = wholes.values()
    nan = float("nan")
    found = [row.get(f"sensitivity_{end}", nan) for end in ("low", "high")]
    kept = [row.get(f"specificity_{end}", nan) for end in ("high", "low")]
    if not np.isfinite([*found, *kept]).all():
        return "At one threshold, fitted on validation."
    return (
        f"95 %: {at_least(100 * found[0])} to {at_most(100 * found[1])} found,"
        f" {at_least(100 * (1 - kept[0]))} to {at_most(100 * (1 - kept[1]))} false alarms, at one"
        " threshold from validation."
    )


def _tested(views: Sequence[TaskView]) -> str:
    images = pd.concat([view.rows[["image_id", "patient_id"]] for view in views])
    n, m = images["patient_id"].nunique(), images["image_id"].nunique()
    return f"Tested on {n:,} patients, {m:,} images."


def _fair(views: Sequence[TaskView]) -> Answer:
    table = pd.concat([view.contrasts for view in views], ignore_index=True)
    several = len(views) > 1
    verdict = worst_words(table, several)
    lines = worse_words(table, several) if verdict else zero_words(table, several)
    compared = bool(table["p"].notna().any())
    nothing = "Not known: no group could be compared."
    calm = "No group was found worse than the rest." if compared else nothing
    warn = bool(verdict) or not compared
    brief = worst_words(table, several, 1) or calm
    return Answer("fair", "Is it fair?", verdict or calm, lines, warn, brief)


def _private(run: Run) -> Answer:
    question = "Is it private?"
    claim = run.privacy
    if claim is None:
        verdict = "Not known: the predictions came without a privacy statement."
        return Answer("private", question, verdict, [], True, "not known.")
    if claim.get("epsilon") is None:
        verdict = "No. It was trained without differential privacy; nobody is protected."
        return Answer("private", question, verdict, weaknesses(claim), True, "no guarantee.")
    unit, weak = claim.get("unit", "unit"), weaknesses(claim)
    rates = claim.get("true_positive_rates")
    price = f"epsilon {of_number(claim['epsilon'])}, delta {of_number(claim.get('delta'))}"
    lines: list[str] = []
    meaning = f"{price} (what that lets an attacker find is not in its statement)"
    if rates:
        of_hundred, of_thousand = members_found(rates)
        meaning = (
            f"an attacker who may accuse 1 in 100 innocent {unit}s finds at most {of_hundred} of"
            " 100 members"
        )
        lines.append(f"If 1 in 1,000: at most {of_thousand:,} of 1,000. Guessing finds 1.")
    lines.append(f"{price[0].upper()}{price[1:]}, rounded up.")
    lines.append("Not covered: validation and test patients, and this report.")
    public = any(line.startswith("Research grade") for line in weak)
    if public:
        verdict = (
            f"No, research grade: the noise comes from a known seed. With secret noise {meaning}."
        )
        return Answer("private", question, verdict, [*weak, *lines], True, "no, research grade.")
    verdict = f"Each training {unit} is protected: {meaning}."
    return Answer("private", question, verdict, [*weak, *lines], False, f"{meaning}.")
