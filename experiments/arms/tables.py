"""From the measures of all runs to tables of the published shape, ours beside the printed ones.

A measure of an arm is the mean of its folds, each the mean of its seeds; ± is the standard
deviation over folds, as in the published tables, or over seeds where there is one fold. All folds
share one test set, so ± says what another training would change, and nothing of other patients.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from experiments.arms.cells import PLAIN, Arm
from experiments.arms.published import COLUMNS
from jaxfair.fairness.parity import fate

__all__ = [
    "ERM",
    "GAPS",
    "KEYS",
    "beside",
    "cell",
    "chosen",
    "gaps_with_nulls",
    "markdown",
    "summary",
    "table_of_arms",
    "table_of_rules",
    "thesis_shape",
    "with_fate",
]

ERM = "erm"
KEYS = ("arm", "epsilon", "attribute", "on", "rule", "per_group", "measure")
"""What a measure belongs to; `fold` and `seed` are averaged over."""

GAPS = ("delta-AUC", "delta-EO", "calibration")
"""Measures that are gaps between groups, and have a null."""


def summary(measures: pd.DataFrame) -> pd.DataFrame:
    """Returns mean, sd, null_mean, null_95, smallest, folds and runs of every measure of an arm.

    Args:
      measures: rows with KEYS, fold, seed, value, null_mean, null_95 and smallest, the fewest
        positives of a compared group. Those of no threshold have the rule "", and stand beside
        every rule of the others.
    """
    measures = _at_every_threshold(measures)
    by_fold = measures.groupby([*KEYS, "fold"], dropna=False)
    folds = by_fold["value"].mean().reset_index()
    found = folds.groupby(list(KEYS))["value"].agg(mean="mean", sd="std", folds="size")
    seeds = measures.groupby(list(KEYS))["value"].agg(sd="std", runs="size")
    found["sd"] = found["sd"].where(found["folds"] > 1, seeds["sd"])
    nulls = measures.groupby(list(KEYS))[["null_mean", "null_95"]].mean()
    fewest = measures.groupby(list(KEYS))["smallest"].min()
    return found.join(seeds["runs"]).join(nulls).join(fewest).reset_index()


def with_fate(table: pd.DataFrame) -> pd.DataFrame:
    """Adds FATE (EO) and FATE (AUC) of every arm against ERM of the same epsilon and test set.

    FATE = (U - U_ERM) / U_ERM - (G - G_ERM) / G_ERM with accuracy and delta-EO, or AUROC and
    delta-AUC (FairREAD, eq. 20 and 21), of the means. It is unstable where ERM's gap is small:
    `table_of_arms` marks it there.
    """
    found = []
    for _, part in table.groupby(["epsilon", "attribute", "on", "rule", "per_group"]):
        wide = part.pivot(index="arm", columns="measure", values="mean")
        if ERM not in wide.index:
            continue
        for kind, utility, gap in (("EO", "accuracy", "delta-EO"), ("AUC", "AUROC", "delta-AUC")):
            if not {utility, gap} <= set(wide):
                continue
            base = wide.loc[ERM]
            found_here = [
                fate(r[utility], r[gap], base[utility], base[gap]) for _, r in wide.iterrows()
            ]
            value = pd.Series(found_here, wide.index)
            own = part[part["measure"] == gap].drop(columns=["mean", "sd"])
            new = own.merge(value.rename("mean").reset_index(), on="arm")
            found.append(new.assign(measure=f"FATE ({kind})", sd=np.nan))
    return pd.concat([table, *found], ignore_index=True) if found else table


def table_of_arms(
    table: pd.DataFrame,
    arms: Sequence[Arm],
    columns: Sequence[str] = COLUMNS,
    part_name: str = "",
    **where: object,
) -> pd.DataFrame:
    """Returns a row per arm in the shape of FairREAD's tables 2 and 4.

    Args:
      table: of `with_fate`.
      columns: measures.
      part_name: of the study, for arms that do not train in it.
      where: what KEYS but arm and measure are, as `epsilon=8.0, on="correlated"`.

    FATE carries a ~ where ERM's gap is no larger than what chance gives in 95 % (null_95).
    """
    part = chosen(table, **where)
    shaky = _shaky(part)
    rows = []
    for arm in arms:
        own = part[part["arm"] == arm.name].set_index("measure")
        cells = {c: cell(own, c) + ("~" if c in shaky and c in own.index else "") for c in columns}
        runs = int(own["runs"].min()) if len(own) else 0
        rows.append(
            {"method": arm.title, **cells, "runs": runs or _not_run(arm, part_name, **where)}
        )
    return pd.DataFrame(rows)


def table_of_rules(
    table: pd.DataFrame, arms: Sequence[Arm], rules: Iterable[str], **where: object
) -> pd.DataFrame:
    """Returns accuracy, delta-EO and FATE of each arm at each rule, pooled and per subgroup."""
    rows = []
    for arm in arms:
        for rule in rules:
            for per_group in (False, True):
                part = chosen(table, rule=rule, per_group=per_group, **where)
                own = part[part["arm"] == arm.name].set_index("measure")
                if len(own):
                    name = "per subgroup" if per_group else "pooled"
                    cells = {c: cell(own, c) for c in ("accuracy", "delta-EO", "FATE (EO)")}
                    rows.append({"method": arm.title, "rule": rule, "thresholds": name, **cells})
    return pd.DataFrame(rows, columns=["method", "rule", "thresholds", "accuracy", "delta-EO",
                                       "FATE (EO)"])  # fmt: skip


def thesis_shape(
    table: pd.DataFrame, arms: Sequence[Arm], part_name: str = "", **where: object
) -> pd.DataFrame:
    """Returns the thesis's table: a line per measure, a column per arm."""
    shown = {
        "AUROC": "overall AUC",
        "delta-AUC": "AUC gap (groups)",
        "delta-EO": "equalized-odds difference",
        "calibration": "calibration difference",
    }
    wide = table_of_arms(table, arms, tuple(shown), part_name, **where).set_index("method")
    rows = [{"metric": title, **wide[name].to_dict()} for name, title in shown.items()]
    return pd.DataFrame(rows)


def gaps_with_nulls(table: pd.DataFrame, arms: Sequence[Arm], **where: object) -> pd.DataFrame:
    """Returns every gap beside what chance alone gives: value, null mean, excess, null_95."""
    part = chosen(table, **where)
    rows = []
    for arm in arms:
        for gap in GAPS:
            own = part[(part["arm"] == arm.name) & (part["measure"] == gap)]
            for row in own.itertuples():
                rows.append({
                    "arm": arm.name, "method": arm.title, "measure": gap, "value": row.mean,
                    "sd": row.sd, "null_mean": row.null_mean, "null_95": row.null_95,
                    "excess": row.mean - row.null_mean, "smallest": row.smallest,
                })  # fmt: skip
    names = [
        "arm",
        "method",
        "measure",
        "value",
        "sd",
        "null_mean",
        "null_95",
        "excess",
        "smallest",
    ]
    return pd.DataFrame(rows, columns=names)


def beside(ours: pd.DataFrame, printed: pd.DataFrame, target: str, arms: Sequence[Arm]) -> str:
    """Returns ours and the printed rows of one target as one table, the printed ones marked."""
    theirs = {}
    for arm in arms:
        part = printed[(printed["target"] == target) & (printed["method"] == arm.published)]
        if len(part):
            values = part.set_index("measure")
            theirs[arm.title] = {
                c: _number(values.loc[c, "value"], values.loc[c, "sd"]) for c in values.index
            }
    lines = []
    for row in ours.to_dict("records"):
        lines.append(row)
        if row["method"] in theirs:
            told = theirs[row["method"]]
            lines.append({"method": "· printed", **told, "runs": f"5, {target}"})
    return markdown(pd.DataFrame(lines, columns=ours.columns))


def cell(rows: pd.DataFrame, measure: str) -> str:
    """Returns one cell: mean ± sd, "undefined" for NaN, "" where it was not measured."""
    if measure not in rows.index:
        return ""
    row = rows.loc[measure]
    return _number(row["mean"], row["sd"])


def markdown(table: pd.DataFrame) -> str:
    """Returns a Markdown table; numbers get three digits."""
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    for row in table.itertuples(index=False):
        lines.append([_text(value) for value in row])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}"
    return str(value)


def _number(mean: float, sd: float | None) -> str:
    if pd.isna(mean):
        return "undefined"
    return f"{mean:.3f}" if sd is None or pd.isna(sd) else f"{mean:.3f} ± {sd:.3f}"


def chosen(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """Returns the rows in which every named column has this value."""
    kept = pd.Series(True, table.index)
    for name, value in where.items():
        kept &= table[name] == value
    return table[kept]


def _at_every_threshold(measures: pd.DataFrame) -> pd.DataFrame:
    """Measures of no threshold stand beside those of each rule, so that a table holds both."""
    free = measures["rule"] == ""
    kinds = measures.loc[~free, ["rule", "per_group"]].drop_duplicates()
    whole = measures[free].drop(columns=["rule", "per_group"]).merge(kinds, how="cross")
    return pd.concat([measures[~free], whole], ignore_index=True)


def _shaky(part: pd.DataFrame) -> set[str]:
    """FATEs whose divisor, ERM's gap, is within what chance gives."""
    erm = part[part["arm"] == ERM].set_index("measure")
    pairs: Mapping[str, str] = {"FATE (EO)": "delta-EO", "FATE (AUC)": "delta-AUC"}
    return {
        fate for fate, gap in pairs.items()
        if gap in erm.index and not erm.loc[gap, "mean"] > erm.loc[gap, "null_95"]
    }  # fmt: skip


def _not_run(arm: Arm, part_name: str, **where: object) -> str:
    if part_name in arm.skip:
        return f"none: {arm.skip[part_name]}"
    if arm.private and where.get("epsilon") != PLAIN:
        return f"none: {arm.private}"
    return "not run"
