"""How much of an attribute can be read from an embedding, within each label value (protocol S10).

An embedding that knows the disease knows something of every attribute that goes with the disease:
one that is independent of the attribute given the label, with AUROC A for the disease, still has
.5 + rho (A - .5) for the attribute, where rho is the difference of prevalences. So a fresh probe is
fitted and scored among those with the disease, and another among those without; the mean of both is
the leak.

Probes are fitted on validation patients and scored on test patients, one value against all others.
Intervals cover the chance of drawing the test patients, not that of fitting the probe. What chance
alone gives is the law of the same AUROC when test patients exchange their values within the label;
a probe that is fitted to exchanged values, and scored on such, stands beside as a control.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.fairness.delong import logit_interval, mann_whitney_estimate
from jaxfair.fairness.influence import Estimate, average
from jaxfair.fairness.probes import PROBES, checked_numbers, probe_scores
from jaxfair.fairness.questions import COLUMNS, MODEL, WITHIN, Cell, Question, questions

__all__ = ["Embedding", "leakage_table"]

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.float32]


class Embedding(NamedTuple):
    """Numbers of each image that are probed.

    Attributes:
      name: as "features".
      values: (n, d), a row for each row of the people.
      source: MODEL, BASELINE or PIXELS.
      run: the name of the baseline, else "".
      probes: keys of PROBES.
      control: whether each probe is fitted to exchanged values too.
    """

    name: str
    values: npt.ArrayLike
    source: str = MODEL
    run: str = ""
    probes: Sequence[str] = tuple(PROBES)
    control: bool = False


def leakage_table(
    people: pd.DataFrame,
    embeddings: Sequence[Embedding],
    attributes: Sequence[str],
    tasks: Sequence[str],
    *,
    seed: int = 0,
    n_draws: int = 400,
) -> pd.DataFrame:
    """Returns what probes read of each attribute, with COLUMNS.

    Args:
      people: n rows with `patient_id`, `split` (validation or test), a column for each attribute,
        and `label_<task>`, 0 or 1, NaN where it was not asked. Validation rows of patients who
        are tested too are left out.
      embeddings: of those rows.
      attributes: columns, or intersections (`groups.group_labels`); unknown values take no part.
      tasks: the labels within whose values is asked.
      seed: of folds, nets and exchanges.
      n_draws: exchanges, from which `chance_95` is read.

    Values with fewer than MIN_LABEL patients to fit or to score, and label values with fewer than
    MIN_PATIENTS to score (protocol S3), are not asked and named in `why`. Where one value is left,
    or a probe gives everybody one score, the AUROC is NaN. Where one label value cannot be asked,
    WITHIN is of the other alone, and `why` says so. `n` counts test patients, `n_fitted` patients
    of the fit.

    Raises InputError where an embedding is not finite, or an attribute is missing.
    """
    numbers = [checked_numbers(e.values, e.name) for e in embeddings]
    rows = people.reset_index(drop=True)
    records: list[dict[str, Any]] = []
    for attribute in attributes:
        for question in questions(rows, attribute, tasks, seed=seed, n_draws=n_draws):
            for embedding, x in zip(embeddings, numbers, strict=True):
                for probe in embedding.probes:
                    head = {"attribute": attribute, "source": embedding.source, "probe": probe}
                    head |= {"run": embedding.run, "embedding": embedding.name}
                    found = _answers(question, x, probe, seed, embedding.control)
                    records += [head | record for record in found]
    return pd.DataFrame(records, columns=list(COLUMNS))


class _Answer(NamedTuple):
    """What a probe reached in one cell.

    Attributes:
      cell: whose it is.
      estimates: code of a value -> its AUROC against all others; {} where none was asked.
      draws: code of a value -> (r,) AUROCs after exchanges.
      chance: the control's AUROC, NaN where none was asked for.
      why: what was not scored, and why.
    """

    cell: Cell
    estimates: Mapping[int, Estimate]
    draws: Mapping[int, Array]
    chance: float
    why: str


def _answers(
    question: Question, x: Numbers, probe: str, seed: int, control: bool
) -> list[dict[str, Any]]:
    """The records of one question, embedding and probe: each cell, then WITHIN."""
    answers = [_answer(question, cell, x, probe, seed, control) for cell in question.cells]
    found = [r for a in answers for r in _records(question, a.cell.label, [a], a.why)]
    if len(answers) > 1:
        scored = [a for a in answers if a.estimates]
        why = "; ".join(f"label {a.cell.label}: {a.why}" for a in answers if a.why)
        found += _records(question, WITHIN, scored, why)
    return found


def _answer(
    question: Question, cell: Cell, x: Numbers, probe: str, seed: int, control: bool
) -> _Answer:
    nothing = _Answer(cell, {}, {}, float("nan"), cell.why)
    if not len(cell.kept):
        return nothing
    scores = _probed(question, cell, x, probe, seed, question.codes[cell.fit])
    if not np.ptp(scores, axis=0).any():
        return nothing._replace(why="the probe gives everybody one score")
    truth = question.codes[cell.test]
    estimates = _estimates(question, cell, scores, truth)
    place = {int(v): i for i, v in enumerate(cell.kept)}
    draws = {v: question.aurocs(cell, scores[:, place[v]], v) for v in estimates}
    if not control:
        return _Answer(cell, estimates, draws, float("nan"), cell.why)
    fitted, exchanged = question.exchanged(cell, np.random.default_rng(seed))
    scores = _probed(question, cell, x, probe, seed, fitted)
    values = [e.value for e in _estimates(question, cell, scores, exchanged).values()]
    return _Answer(cell, estimates, draws, float(np.mean(values)), cell.why)


def _probed(
    question: Question, cell: Cell, x: Numbers, probe: str, seed: int, fitted: npt.NDArray[np.int64]
) -> Array:
    """(m, k) log-odds of the kept values for the test rows, of a probe fitted to `fitted`."""
    codes, patients = np.searchsorted(cell.kept, fitted), question.patients[cell.fit]
    return probe_scores(probe, x[cell.fit], codes, patients, x[cell.test], seed=seed)


def _estimates(
    question: Question, cell: Cell, scores: Array, codes: npt.NDArray[np.int64]
) -> dict[int, Estimate]:
    """Each kept value against all others; of a two-valued attribute the second alone."""
    patients, n = question.patients[cell.test], question.n_patients
    estimate = lambda i, v: mann_whitney_estimate(
        scores[:, i], codes == v, codes != v, patients, n_patients=n
    )
    asked = [(i, int(v)) for i, v in enumerate(cell.kept) if len(question.values) > 2 or i]
    return {v: estimate(i, v) for i, v in asked}


def _records(
    question: Question, label: str, answers: Sequence[_Answer], why: str
) -> list[dict[str, Any]]:
    """One record for the attribute, and one for each value of three and more."""
    test = np.concatenate([np.arange(0), *(a.cell.test for a in answers)])
    fit = np.concatenate([np.arange(0), *(a.cell.fit for a in answers)])
    base: dict[str, Any] = {
        "value": "",
        "task": question.task,
        "label": label,
        "n": question.count(test),
        "n_images": len(test),
        "n_fitted": question.count(fit),
        "why": why,
    }
    if not any(a.estimates for a in answers):
        return [base]
    chance = float(np.mean([a.chance for a in answers]))
    found = [base | {"chance": chance} | _summary([list(a.estimates) for a in answers], answers)]
    for v in range(len(question.values)) if len(question.values) > 2 else ():
        having = [a for a in answers if v in a.estimates]
        if having:
            one = _summary([[v]] * len(having), having)
            found.append(base | {"value": question.values[v]} | one)
    return found


def _summary(values: Sequence[Sequence[int]], answers: Sequence[_Answer]) -> dict[str, float]:
    """The mean over the values of each answer, then over the answers, and what chance gives."""
    pairs = list(zip(values, answers, strict=True))
    whole = average([average([a.estimates[v] for v in chosen]) for chosen, a in pairs])
    draws = [np.mean([a.draws[v] for v in chosen], axis=0) for chosen, a in pairs]
    low, high = logit_interval(whole)
    edge = float(np.nanquantile(np.mean(draws, axis=0), 0.95))
    return {"auroc": whole.value, "ci_low": low, "ci_high": high, "chance_95": edge}
