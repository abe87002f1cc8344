"""The page of the study: one table per source, Method and epsilon, the control, and a verdict."""

import itertools
import math
import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.arms.page import Told
from experiments.arms.tables import markdown
from experiments.e08_mitigation.arms import BASE, CONTROL, SCALED
from experiments.e08_mitigation.plan import Part, Plan, chosen, tried
from experiments.e08_mitigation.tables import ALPHA, control, rows_of
from experiments.gaps.levels import MIN_SEEDS
from experiments.gaps.report import (
    TOLERANCE,
    begin,
    found_first,
    p_text,
    save,
    show,
    worded,
)
from experiments.gaps.runs import Run
from experiments.gaps.trainings import DETECTORS
from jaxfair.report.plots import COLOURS

__all__ = ["changes_figure", "verdict", "write"]

TITLE = "Mitigations at equal epsilon"


def write(plan: Plan, out: pathlib.Path) -> None:
    """Writes tables, plots and page of what is there into `out`/tables."""
    told, there = begin(_all(plan, out), out)
    told.say(*(f"Not run: {line}" for line in plan.missing))
    if there:
        place, lines = len(told.text), []
        for parts in _tables_of(plan.parts):
            for epsilon in parts[0].epsilons:
                lines += _table(told, parts, epsilon, out)
        if lines:
            found_first(told, place, lines)
    save(out, TITLE, told)


def verdict(rows: pd.DataFrame) -> str:
    """Returns which arm closes the gap beyond noise, or that none does."""
    arms = rows[(rows["arm"] != CONTROL) & rows["gap_holm"].notna()]
    if rows["arm"].iloc[1:].isin([CONTROL, SCALED[0]]).all():  # another detector is a "plain" arm
        return f"{_to_close(rows)}No mitigation is compared at this epsilon."
    if arms.empty:
        return "No change has an interval, so nothing can be said of any."
    return f"{_to_close(rows)}{_closing(rows, arms)}"


def _to_close(rows: pd.DataFrame) -> str:
    """The gap that there is without a mitigation."""
    base = rows[rows["arm"] == BASE].iloc[0]
    said = f"Without a mitigation the gap is {_text(base, 'gap')}"
    seen = base["gap_low"] > 0 or base["gap_high"] < 0
    return f"{said}{'' if seen else ', no more than noise'}. "


def _closing(rows: pd.DataFrame, arms: pd.DataFrame) -> str:
    smaller = arms["gap"].abs() < abs(_base(rows))  # a gap that is turned round is not closed
    closing = arms[(arms["gap_holm"] < ALPHA) & smaller]
    asked = f"{len(arms)} arms compared, Holm-corrected"
    if closing.empty:
        return f"None closes the gap beyond noise ({asked})."
    best = closing.loc[closing["gap"].abs().idxmin()]
    others = sorted(_called(row) for row in closing.drop(best.name).itertuples())
    more = f" So do {', '.join(others)}." if others else ""
    return (
        f"The most is closed by {_called(best)}: {best['gap_change']:+.3f} "
        f"[{best['gap_change_low']:+.3f}, {best['gap_change_high']:+.3f}], AUROC "
        f"{best['whole_change']:+.3f} ({asked}).{more}"
    )


def changes_figure(rows: pd.DataFrame, title: str) -> Figure:
    """Returns each arm's change of the gap, with its interval, beside plain DP-SGD's 0."""
    part = rows.dropna(subset=["gap_change"]).iloc[::-1]
    figure = Figure(figsize=(6.0, 0.8 + 0.24 * max(len(part), 1)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9)
    place = np.arange(len(part))
    ends = part[["gap_change_low", "gap_change_high"]].to_numpy(float)
    bars = np.abs(np.nan_to_num(ends - part[["gap_change"]].to_numpy(float))).T
    axes.errorbar(part["gap_change"], place, xerr=bars, fmt="o", color=COLOURS[0], capsize=2)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(place, [_called(row) for row in part.itertuples()], fontsize=7)
    axes.set_xlabel("change of the gap against plain DP-SGD [95 %]")
    return figure


def _table(told: Told, parts: Sequence[Part], epsilon: float, out: pathlib.Path) -> list[str]:
    """Says what is known of parts at an epsilon; returns the line in which it is summed up."""
    source, rows = parts[0].source, rows_of(parts, epsilon, out)
    at = "without privacy" if epsilon == math.inf else f"at epsilon {epsilon:g}"
    told.say(f"## {source.title}: {parts[0].method}, {at}")
    if rows.empty:
        told.say("**Not run.**")
        return []
    least, budget = source.groups.values[source.groups.least], len(parts[0].arms[0].changes)
    name = f"{source.name}_{parts[0].method}_{epsilon:g}"
    told.numbers[name] = rows
    told.say(
        source.describes,
        f"Task {source.task}; the gap is the AUROC of all others minus that of {source.attribute} "
        f"{least}, named beforehand. Settings that each arm tried: {budget}; "
        "the one that validation chose has the seeds of the last column.",
        markdown(_shown(rows)),
        _equal(rows) if epsilon != math.inf else "",
    )
    lines = []
    if not source.describes:
        lines.append(f"{source.name}, {parts[0].method}, {at}: {verdict(rows)}")
        told.say(f"**{verdict(rows)}**", _control(parts[0], epsilon, out))
        if rows["gap_change"].notna().any():
            title = f"{source.title.split(':')[0]} {source.name}: {parts[0].method}, {at}"
            show(told, name, changes_figure(rows, title))
    left_out = [line for part in parts for line in part.left_out]
    if left_out:
        told.say("Without a config here:\n\n" + "\n".join(f"- {line}" for line in left_out))
    return lines


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame([
        {"arm": _called(row), "AUROC": _text(row, "whole"),
         "AUROC, change": _text(row, "whole_change"),
         "worst group": f"{row.worst_group} {row.worst:.3f}" if row.worst_group else "too few",
         "gap": _text(row, "gap"), "gap, change": _text(row, "gap_change"),
         "sAUROC gap": _text(row, "alarms"), "its change": _text(row, "alarms_change"),
         "p": p_text(row.gap_p), "p, Holm": p_text(row.gap_holm), "max-min": row.max_min,
         "chance gives": row.null_mean, "p of max-min": p_text(row.null_p),
         "seconds a step, over plain": row.slower, "epsilon": row.epsilon,
         "verified": "yes" if row.verified else "NO", "seeds": row.seeds}
        for row in rows.itertuples()
    ])  # fmt: skip


def _equal(rows: pd.DataFrame) -> str:
    apart = rows["epsilon"].max() - rows["epsilon"].min()
    said = "equal" if apart <= TOLERANCE else "NOT EQUAL"
    return f"Arms differ by at most {apart:.1e} in epsilon: {said} within {TOLERANCE:g}."


def _control(part: Part, epsilon: float, out: pathlib.Path) -> str:
    told = control(part, epsilon, out)
    if told is None:
        return "No positive control is possible here, or it was not run." * bool(
            part.source.planted
        )
    enough, power = ". At least .8 is there, as it should be.", f"{told.power:.2f}"
    if told.power < 0.8:
        enough = ". That is below .8, too little: what is not found may be there all the same."
    if np.isnan(told.power):
        power, enough = "undefined", f", as there is no interval below {MIN_SEEDS} seeds."
    return (
        "Positive control, half of the planted gap gone at the source: the gap changes by "
        f"{worded(told.found)}; on the "
        f"validation patients, who are others, by {told.benefit:+.3f}. Power to find that much "
        f"on the test patients, by this interval: {power}{enough}"
    )


def _text(row: object, name: str) -> str:
    value, low, high = (getattr(row, f"{name}{end}", np.nan) for end in ("", "_low", "_high"))
    if np.isnan(value):
        return ""
    return f"{value:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def _called(row: object) -> str:
    method, arm = (str(getattr(row, name)) for name in ("method", "arm"))
    return f"{arm} ({method})" if method in DETECTORS[1:] else arm


def _base(rows: pd.DataFrame) -> float:
    return float(rows.loc[rows["arm"] == BASE, "gap"].iloc[0])


def _tables_of(parts: Sequence[Part]) -> list[list[Part]]:
    """Detectors on one source share a table; every other part has its own."""
    key = lambda part: (part.source.name, "" if part.method in DETECTORS else part.method)
    return [list(group) for _, group in itertools.groupby(parts, key=key)]


def _all(plan: Plan, out: pathlib.Path) -> list[Run]:
    """Every run that was asked for: settings with the first seed, chosen ones with all."""
    found: dict[str, Run] = {}
    for part in plan.parts:
        for arm, epsilon in itertools.product(part.arms, part.epsilons):
            for run in (*tried(part, arm, epsilon), *chosen(out, part, arm, epsilon)):
                found[run.place] = run
    return list(found.values())
