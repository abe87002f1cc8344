"""From the runs to one table: every arm beside plain DP-SGD of the same part and epsilon."""

import functools
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.e08_mitigation.arms import BASE, CONTROL, SCALED
from experiments.e08_mitigation.plan import Part, chosen
from experiments.gaps.levels import (
    Level,
    Nulls,
    change,
    compared,
    estimates,
    gap_of,
    level,
    nulls,
    power,
)
from experiments.gaps.runs import Run, kept_nulls, kept_of, predictions
from experiments.gaps.trainings import DETECTORS
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.influence import Estimate
from jaxfair.fairness.multiplicity import holm
from jaxfair.fairness.normal_scores import fit_scales, on_one_scale

__all__ = ["OTHERS", "Control", "control", "rows_of"]

OTHERS = "others"
ALPHA = 0.05


class _Measured(NamedTuple):
    """One arm's seeds on one set of people.

    Attributes:
      whole, least, gap: one estimate of each seed: all; the group expected to be served worst;
        all others minus it.
      alarms: the gap of the sAUROC, a group's negatives against all positives, which is what false
        alarms at one threshold hang on.
      worst: the smallest AUROC of a group that can be compared, and its name, mean over seeds.
      null: of the max-min gap.
    """

    whole: list[Estimate]
    least: list[Estimate]
    gap: list[Estimate]
    alarms: list[Estimate]
    worst: tuple[str, float]
    null: Nulls


class Control(NamedTuple):
    """Whether the study would find a benefit that is known to be there.

    Attributes:
      found: change of the gap on the test patients.
      benefit: the same on the validation patients, who are others.
      power: to find `benefit` on the test patients, two-sided at .05; .05 where it widens the gap.
    """

    found: Level
    benefit: float
    power: float


def rows_of(parts: Sequence[Part], epsilon: float, out: pathlib.Path) -> pd.DataFrame:
    """Returns a row per arm of parts that share a source; empty where the first has no base.

    Args:
      parts: the first one's plain arm is what all are compared with.

    Columns: method, arm, title; auroc, least, gap, worst_group, worst, null_mean, null_95, null_p;
    of the changes against the base (gain_, least_, gap_, alarms_) value, low, high and p; gap_holm,
    the p of the gap's change for as many arms as are compared (protocol S13); slower, seconds a
    step over the base's; epsilon, verified, seeds, setting.
    """
    base = _runs(parts[0], BASE, epsilon, out)
    if not base:
        return pd.DataFrame()
    before, pace = _measured(parts[0], base, out), _seconds(base, out)
    rows = []
    for part in parts:
        for arm in part.arms:
            runs = _runs(part, arm.name, epsilon, out)
            if runs:
                mark = {"method": part.method, "arm": arm.name, "title": arm.title}
                told = _row(before, _measured(part, runs, out), runs == base)
                rows.append(mark | told | _cost(runs, pace, out))
    if parts[0].method in DETECTORS:
        mark = {"method": parts[0].method, "arm": SCALED[0], "title": SCALED[1]}
        told = _row(before, _measured(parts[0], base, out, scaled=True), is_base=False)
        rows.append(mark | told | _cost(base, pace, out))
    table = pd.DataFrame(rows)
    asked = table["gap_p"].notna() & ~table["arm"].isin([CONTROL, SCALED[0]])
    table["gap_holm"] = math.nan
    if asked.any():
        table.loc[asked, "gap_holm"] = holm(table.loc[asked, "gap_p"].to_numpy())
    return table


def control(part: Part, epsilon: float, out: pathlib.Path) -> Control | None:
    """Returns what became of the positive control; None where there is none, or it was not run."""
    arms = [_runs(part, name, epsilon, out) for name in (BASE, CONTROL)]
    if not all(arms):
        return None
    test = [_measured(part, runs, out).gap for runs in arms]
    held = [_measured(part, runs, out, "validation").gap for runs in arms]
    found = change(*test)
    benefit = change(*held).value
    closing = min(benefit * np.sign(level(held[0]).value), 0.0)  # what widens is no benefit
    return Control(found, benefit, power(closing, found))


def _runs(part: Part, name: str, epsilon: float, out: pathlib.Path) -> list[Run]:
    arms = [arm for arm in part.arms if arm.name == name]
    found = [run for arm in arms for run in chosen(out, part, arm, epsilon)]
    return [run for run in found if kept_of(out, run).done]


def _measured(
    part: Part,
    runs: Sequence[Run],
    out: pathlib.Path,
    split: str = "test",
    *,
    scaled: bool = False,
) -> _Measured:
    source = part.source
    tables = [predictions(out, run, split) for run in runs]
    if scaled:
        held = [predictions(out, run, "validation") for run in runs]
        fitted = [fit_scales(table, source.attribute) for table in held]
        tables = [on_one_scale(*pair) for pair in zip(tables, fitted, strict=True)]
    tables = [t[t["task"] == source.task].reset_index(drop=True) for t in tables]
    labels = group_labels(tables[0], source.attribute)
    least = source.groups.values[source.groups.least]
    sides = np.where(labels == least, least, np.where(labels == "unknown", "", OTHERS))
    found = [estimates(table, sides, "AUROC") for table in tables]
    found = [{least: _nothing(e[""]), OTHERS: _nothing(e[""]), **e} for e in found]
    alarms = [estimates(table, sides, "sAUROC") for table in tables]
    alarms = [{least: _nothing(e[""]), OTHERS: _nothing(e[""]), **e} for e in alarms]
    groups = compared(tables[0], labels)
    each = [estimates(table, labels, "AUROC") for table in tables]
    means = {g: float(np.mean([e[g].value for e in each])) for g in groups}
    worst = min(means, key=lambda g: means[g]) if means else ""
    null = Nulls(*[math.nan] * 4)
    if split == "test" and len(groups) > 1:
        control = "view" if "view" in tables[0] else ""
        find = functools.partial(nulls, tables, labels, groups, control=control)
        null = kept_nulls(out, runs, f"{SCALED[0]}-" * scaled, find)
    return _Measured(
        [e[""] for e in found],
        [e[least] for e in found],
        [gap_of(e, (OTHERS, least)) for e in found],
        [gap_of(e, (OTHERS, least)) for e in alarms],
        (worst, means.get(worst, math.nan)),
        null,
    )


def _nothing(like: Estimate) -> Estimate:
    """A group that nobody of these people is in."""
    return like._replace(
        value=math.nan, variance=math.nan, df=math.nan, parts=np.full_like(like.parts, math.nan),
        members=np.zeros_like(like.members), spread=np.full(like.parts.shape[1], math.nan),
        apart=math.nan,
    )  # fmt: skip


def _row(before: _Measured, after: _Measured, is_base: bool) -> dict:
    row = {}
    for name in ("whole", "least", "gap", "alarms"):
        for key, value in _four(level(getattr(after, name))).items():
            row[f"{name}{key}"] = value
        moved = change(getattr(before, name), getattr(after, name))
        told = _four(moved).items()
        row |= {f"{name}_change{key}": math.nan if is_base else value for key, value in told}
    null = after.null
    row |= {"worst_group": after.worst[0], "worst": after.worst[1]}
    row |= {"max_min": null.value, "null_mean": null.null_mean, "null_95": null.null_95}
    row |= {"null_p": null.p_value, "gap_p": row["gap_change_p"]}
    return row


def _four(found: Level) -> dict[str, float]:
    return {"": found.value, "_low": found.ci_low, "_high": found.ci_high, "_p": found.p_value}


def _cost(runs: Sequence[Run], pace: float, out: pathlib.Path) -> dict:
    known = [kept_of(out, run) for run in runs]
    claims = [kept.epsilon for kept in known if kept.epsilon is not None]
    return {
        "slower": _seconds(runs, out) / pace,
        "epsilon": max(claims) if claims else math.inf,
        "verified": not any(kept.faults for kept in known),
        "seeds": len(runs),
        "setting": runs[0].setting,
    }


def _seconds(runs: Sequence[Run], out: pathlib.Path) -> float:
    """The median over seeds; a machine that does other things shows in it."""
    return float(np.median([kept_of(out, run).seconds for run in runs]))
