"""From the runs to numbers: levels of groups, gaps beside chance, what privacy adds, and laws."""

import functools
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.gaps.levels import (
    MIN_SEEDS,
    PAIRS,
    Nulls,
    change,
    combined,
    estimates,
    gap_of,
    level,
    nulls,
    pair_labels,
)
from experiments.gaps.runs import Run, kept_nulls, kept_of, predictions
from experiments.gaps.trainings import same_for_all_seeds
from jaxfair.fairness.compare import fairness_law
from jaxfair.fairness.influence import Estimate
from jaxfair.fairness.multiplicity import holm

__all__ = ["METRICS", "Tables", "made", "thesis_table"]

METRICS = ("AUROC", "sAUROC")
PLAIN = math.inf
Found = Mapping[str, Estimate]


class Tables(NamedTuple):
    """The numbers of a study, each row with method, attribute, split and epsilon.

    Attributes:
      levels: share, metric, group ("" for all), and the fields of `levels.Level`.
      gaps: share, metric, and A - B as a Level; of the AUROC gap beside it null_mean, null_95,
        excess (|gap| less null_mean) and null_p.
      widening: share, metric, and the gap at this epsilon minus that without privacy as a Level;
        `widened` is how much larger it is in absolute value, and `p_holm` the p for as many
        changes as this table has (protocol S13).
      laws: metric, group, and a regression over the share of A: slope with its interval and p,
        regression_p (over seeds alone), mae and r (`fairness_law`).
    """

    levels: pd.DataFrame
    gaps: pd.DataFrame
    widening: pd.DataFrame
    laws: pd.DataFrame


class _Cell(NamedTuple):
    share: float
    epsilon: float


class _Block(NamedTuple):
    """One detector, attribute and split; every cell's estimates by metric, one of each seed.

    A training that is the same for all seeds was made once, and stands for MIN_SEEDS.
    """

    mark: dict[str, Any]
    pair: tuple[str, str]
    seeds: dict[_Cell, dict[str, list[Found]]]
    numbers: dict[_Cell, list[int]]
    nulls: dict[_Cell, Nulls]


def made(runs: Sequence[Run], out: pathlib.Path) -> Tables:
    """Returns the numbers of all runs that are done."""
    rows: tuple[list[dict], ...] = ([], [], [], [])
    for key, part in itertools.groupby(sorted(runs, key=_block_of), key=_block_of):
        block = _read(key, list(part), out)
        for kept, make in zip(rows, (_levels, _gaps, _widening, _laws), strict=True):
            kept += [block.mark | row for row in make(block)]
    tables = Tables(*(pd.DataFrame(found) for found in rows))
    if not tables.widening.empty:
        tables.widening["p_holm"] = holm(tables.widening["p_value"])
    return tables


def thesis_table(tables: Tables, epsilon: float, metric: str, **where: Any) -> pd.DataFrame:
    """Returns the thesis's table: share | A | A (DP) | B | B (DP) | gap | gap (DP), in points.

    The last two rows are the largest and the mean size of the gap over the shares.

    Args:
      epsilon: of the private columns.
      where: method, attribute and split.
    """
    pair = PAIRS[where["attribute"]]
    rows = []
    at = lambda table, **more: _chosen(table, metric=metric, **where, **more)
    shares = sorted(set(at(tables.gaps)["share"]))
    for share in shares:
        row: dict[str, Any] = {"share of A": f"{share:g}"}
        for group in (*pair, "gap"):
            for e, mark in ((PLAIN, ""), (epsilon, " (DP)")):
                source = tables.gaps if group == "gap" else tables.levels
                own = {} if group == "gap" else {"group": group}
                row[group + mark] = _percent(at(source, share=share, epsilon=e, **own))
        rows.append(row)
    for name, whole in (("largest, in size", "max"), ("mean, in size", "mean")):
        row = {"share of A": name}
        for e, mark in ((PLAIN, "gap"), (epsilon, "gap (DP)")):
            values = at(tables.gaps, epsilon=e)["value"].abs()
            row[mark] = "" if values.empty else f"{100 * values.agg(whole):.1f}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def _block_of(run: Run) -> tuple[str, str, int]:
    return run.method, run.data.split("-")[0], run.split


def _read(key: tuple[str, str, int], runs: Sequence[Run], out: pathlib.Path) -> _Block:
    method, attribute, split = key
    mark = {"method": method, "attribute": attribute, "split": split}
    block = _Block(mark, PAIRS[attribute], {}, {}, {})
    cell_of = lambda run: _Cell(float(run.data.split("-")[1]), run.epsilon)
    for cell, part in itertools.groupby(sorted(runs, key=cell_of), key=cell_of):
        done = sorted((r for r in part if kept_of(out, r).done), key=lambda r: r.seed)
        if not done:
            continue
        tables = [predictions(out, run) for run in done]
        labels = pair_labels(tables[0], attribute)
        numbers = [run.seed for run in done]
        repeated = 1
        if len(done) == 1 and same_for_all_seeds(method, cell.epsilon):
            repeated, numbers = MIN_SEEDS, list(range(1, MIN_SEEDS + 1))
        block.seeds[cell] = {
            metric: [estimates(table, labels, metric) for table in tables] * repeated
            for metric in METRICS
        }
        block.numbers[cell] = numbers
        control = "" if attribute == "view" else "view"
        find = functools.partial(nulls, tables, labels, PAIRS[attribute], control=control)
        block.nulls[cell] = kept_nulls(out, done, "", find)
    return block


def _levels(block: _Block) -> list[dict]:
    return [
        {**cell._asdict(), "metric": metric, "group": group}
        | level([found[group] for found in seeds])._asdict()
        for cell, by_metric in block.seeds.items()
        for metric, seeds in by_metric.items()
        for group in (*block.pair, "")
        if metric == "AUROC" or group
    ]


def _gaps(block: _Block) -> list[dict]:
    rows = []
    for cell, by_metric in block.seeds.items():
        for metric, seeds in by_metric.items():
            gap = level([gap_of(found, block.pair) for found in seeds])
            row = {**cell._asdict(), "metric": metric} | gap._asdict()
            if metric == "AUROC":
                null = block.nulls[cell]
                row |= {"null_mean": null.null_mean, "null_95": null.null_95}
                row |= {"excess": abs(gap.value) - null.null_mean, "null_p": null.p_value}
            rows.append(row)
    return rows


def _widening(block: _Block) -> list[dict]:
    rows = []
    for cell, by_metric in block.seeds.items():
        plain = block.seeds.get(cell._replace(epsilon=PLAIN))
        if cell.epsilon == PLAIN or plain is None:
            continue
        for metric in METRICS:
            arms = [
                [gap_of(found, block.pair) for found in arm]
                for arm in (plain[metric], by_metric[metric])
            ]
            sizes = [abs(float(np.mean([gap.value for gap in arm]))) for arm in arms]
            row = {**cell._asdict(), "metric": metric} | change(*arms)._asdict()
            rows.append(row | {"widened": sizes[1] - sizes[0]})
    return rows


def _laws(block: _Block) -> list[dict]:
    rows = []
    for epsilon in sorted({cell.epsilon for cell in block.seeds}, reverse=True):
        cells = sorted(cell for cell in block.seeds if cell.epsilon == epsilon)
        common = sorted(set.intersection(*(set(block.numbers[c]) for c in cells)))
        if len(cells) < 3 or not common:
            continue
        shares = [cell.share for cell in cells]
        centred = np.array(shares) - np.mean(shares)
        weights = centred / (centred**2).sum()
        for metric, group in itertools.product(METRICS, block.pair):
            found = [
                [block.seeds[c][metric][block.numbers[c].index(seed)][group] for c in cells]
                for seed in common
            ]
            values = np.unique([[e.value for e in seed] for seed in found], axis=0)
            law = fairness_law(shares, values)  # a seed that repeats another adds nothing
            slope = level([combined(seed, weights.tolist()) for seed in found])
            row = {"epsilon": epsilon, "metric": metric, "group": group} | slope._asdict()
            rows.append(row | {"regression_p": law.p_value, "mae": law.mae, "r": law.r})
    return rows


def _chosen(table: pd.DataFrame, **where: Any) -> pd.DataFrame:
    kept = pd.Series(True, table.index)
    for name, value in where.items():
        kept &= table[name] == value
    return table[kept]


def _percent(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    row = rows.iloc[0]
    spread = (
        "" if np.isnan(row["ci_low"]) else f" [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
    )
    return f"{100 * row['value']:.1f}{spread}"
