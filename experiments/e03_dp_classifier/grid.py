"""Trains one config at many epsilons, folds and seeds, and makes the tables of the paper.

    python -m experiments.e03_dp_classifier.grid --config configs/derm_probe.py \
        --epsilons 0.29,0.54,1.06,2.04,4.71,7.89,inf --seeds 1,2 --folds 0,1,2,3,4 \
        --out runs/derm_probe --config.data.root=DIR

`inf` is the same config without privacy. Runs that are finished are skipped, an unfinished one
is resumed, and the tables are made anew from every finished run under --out; the same command
again therefore continues, one beside it takes other runs, and a second command with another config
may add its own column. Features that nothing trains are computed once for all runs of a command.
Any `--config.` override of jaxfair.train is passed on.
"""

import argparse
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from ml_collections import ConfigDict

from experiments.arms.train import run_cell
from experiments.e03_dp_classifier import grid_joint, grid_tables
from experiments.gaps.runs import claimed
from jaxfair import files
from jaxfair.config import parse_command
from jaxfair.engine.compiling import keep_compilations
from jaxfair.errors import InputError
from jaxfair.privacy import release
from jaxfair.report import plots
from jaxfair.run.log import progress_bar

PAPER = "0.29,0.54,1.06,2.04,4.71,7.89,inf"
STATEMENT = ("epsilon", "epsilon_rdp", "delta", "unit", "noise_multiplier", "sampling_prob",
             "steps", "l2_clip_norm", "grade", "tuning")  # fmt: skip
JOINT = """
# What it costs together

Runs that share people are one release: epsilon of each, and of all of a row in one composition. A
fold leaves out whom it tests, so of five folds everybody is in four.

"""


class Cell(NamedTuple):
    """One run of the grid; `fold` is None where the config's own split is used."""

    epsilon: float
    fold: int | None
    seed: int

    @property
    def name(self) -> str:
        """The run's folder: epsilon-7.89_fold-0_seed-1."""
        fold = "" if self.fold is None else f"_fold-{self.fold}"
        return f"epsilon-{self.epsilon:g}{fold}_seed-{self.seed}"


def config_of(cell: Cell, config: str, overrides: Sequence[str]) -> ConfigDict:
    """Returns the config of one cell; overrides are `--config.name=value`."""
    found, _ = parse_command(["grid", "--config", config, *overrides])
    chosen: dict[str, object] = {"seed": cell.seed, "dp.enabled": math.isfinite(cell.epsilon)}
    if math.isfinite(cell.epsilon):
        chosen["dp.epsilon"] = cell.epsilon
    if cell.fold is not None:
        chosen["data.fold"] = cell.fold
        if found.data.get("split") != "folds":
            raise InputError(f"{config} has no data.split = 'folds', so --folds cannot be used.")
    found.update_from_flattened_dict(chosen)
    return found


def run(
    config: str,
    epsilons: Sequence[float],
    seeds: Sequence[int],
    folds: Sequence[int] | None,
    out: pathlib.Path,
    overrides: Sequence[str] = (),
    progress: bool = True,
) -> None:
    """Trains what is missing, then writes the tables of everything under `out`."""
    cells = [Cell(e, f, s) for s, f, e in itertools.product(seeds, folds or [None], epsilons)]
    configs = {cell: config_of(cell, config, overrides) for cell in cells}
    with progress_bar(len(cells), what="grid", unit="run", hidden=not progress) as bar:
        for cell in cells:
            bar.set_postfix_str(release.line("{name}", name=cell.name))
            train_cell(configs[cell], out, cell.name)
            bar.update()
    write_tables(out)


def train_cell(config: ConfigDict, out: pathlib.Path, name: str) -> None:
    """Trains and scores a run under `out` unless it is done, or another process is at it."""
    with claimed(out, name) as mine:
        if mine:
            run_cell(config, out / "runs" / name, {})


def write_tables(out: pathlib.Path) -> None:
    """Writes every table as CSV, tables.md, the plots and the privacy statements into `out`."""
    every = grid_tables.pooled_rows(out)
    rows = grid_tables.complete(every)
    tables = {
        "folds": grid_tables.by_fold(every),
        "auroc": grid_tables.levels(rows),
        "decisions": grid_tables.decisions(rows),
        "parity": grid_tables.parity(rows),
        "loss": grid_tables.losses(rows),
        "gaps": grid_tables.gaps(rows),
    }
    tables["averages"] = grid_tables.averages(tables["auroc"])
    tables["correlations"] = grid_tables.correlations(rows, tables["auroc"], tables["parity"])
    for name, table in tables.items():
        files.write_table(out / f"{name}.csv", table.round(4))
    told = statements(out)
    files.write_json(out / "privacy.json", told)
    joint = grid_joint.joint_table(told)
    files.write_table(out / "joint.csv", joint.round(4))
    files.write_text(
        out / "tables.md", markdown(tables) + JOINT + grid_joint.markdown(joint) + "\n"
    )
    for task, part in tables["auroc"].groupby("task"):
        points = part[~part["too_few"]].rename(columns={"ci_low": "low", "ci_high": "high"})
        figure = plots.against_epsilon(points)
        figure.set_size_inches(max(8.2, 1.5 * part["epsilon"].nunique()), 3.4)  # labels stay apart
        files.write_bytes(out / f"auroc_{task}.png", plots.as_png(figure))
    for task, part in tables["gaps"].groupby("task"):
        files.write_bytes(out / f"gaps_{task}.png", plots.as_png(plots.gap_against_epsilon(part)))


def statements(out: pathlib.Path) -> list[dict]:
    """Returns what each finished run promises, and how many folds its config cuts."""
    found = []
    for path in sorted(out.glob("runs/*/privacy.json")):
        statement = json.loads(path.read_text())
        data = json.loads((path.parent / "config.json").read_text())["data"]
        folds = {"folds": data["folds"] if data.get("split") == "folds" else None}
        promise = {name: statement[name] for name in STATEMENT}
        found.append({"run": path.parent.name} | promise | folds)
    return found


def markdown(tables: dict[str, pd.DataFrame]) -> str:
    """Returns the tables by group as text: a row per group, a column per epsilon."""
    parts = []
    for task, table in tables["auroc"].groupby("task"):
        means = table[table["attribute"] == "overall"].set_index("epsilon")["mean_of_folds"]
        shown = ", ".join(f"{_epsilon(e)}: {value:.4f}" for e, value in means.items())
        parts += [f"# {task}", f"AUROC, mean of folds and seeds: {shown}."]
        parts += ["## AUROC, folds pooled, mean of seeds"]
        parts += [_wide(_shown(table, table), ["attribute", "group", "n", "n_positive"])]
        for name, column, title in (
            ("decisions", "metric", "{}"),
            ("parity", "of", "Difference of {}: age group minus the rest, women minus men"),
        ):
            for kind, part in _of_task(tables[name], task).groupby(column):
                parts += [f"## {title.format(kind)}"]
                parts += [_wide(_shown(part, table), ["attribute", "group"])]
        lost = _of_task(tables["loss"], task)
        if len(lost):
            parts += ["## AUROC lost to privacy (± standard error over patients, seeds left out)"]
            parts += [_wide(_shown(lost, table), ["attribute", "group"])]
        wide = _of_task(tables["gaps"], task).rename(columns={"null_95": "ci_high"})
        parts += ["## Max-min gap of the AUROC [95 % of chance alone]", _wide(wide, ["attribute"])]
    if len(tables["averages"]):
        means = _shown(tables["averages"], tables["auroc"])
        parts += ["# Mean AUROC over all labels", _wide(means, ["attribute", "group"])]
    found = tables["correlations"].rename(columns={"r": "value"})
    if len(found):
        parts += ["# Pearson's r over groups", _wide(found.dropna(subset="epsilon"), ["pair"])]
    for row in found[found["epsilon"].isna()].to_dict("records"):
        parts += [f"Pearson's r of {row['pair']}, over the private epsilons: {_cell(row)}."]
    return "\n\n".join(parts) + "\n"


def _shown(part: pd.DataFrame, counted: pd.DataFrame) -> pd.DataFrame:
    """Leaves out groups that are too small."""
    few = counted[counted["too_few"]]
    small = set(zip(few["attribute"], few["group"], strict=True))
    keep = [key not in small for key in zip(part["attribute"], part["group"], strict=True)]
    return part[keep]


def _of_task(table: pd.DataFrame, task: str) -> pd.DataFrame:
    return table[table["task"] == task]


def _epsilon(value: float) -> str:
    return "no DP" if math.isinf(value) else f"epsilon {value:g}"


def _wide(table: pd.DataFrame, rows: list[str]) -> str:
    """Returns a Markdown table with `value [low, high]` in a column per epsilon."""
    cells = {
        (tuple(row[name] for name in rows), row["epsilon"]): _cell(row)
        for row in table.to_dict("records")
    }
    keys, epsilons = dict.fromkeys(key for key, _ in cells), sorted({e for _, e in cells})
    lines = [[*rows, *map(_epsilon, epsilons)], ["---"] * (len(rows) + len(epsilons))]
    lines += [[*map(str, key), *(cells.get((key, e), "") for e in epsilons)] for key in keys]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: dict) -> str:
    known = {name: f"{row[name]:.3f}" for name in row if _is_number(row[name])}
    text = known.get("value", "undefined")
    bounds = [known[name] for name in ("ci_low", "ci_high") if name in known]
    if bounds:
        return f"{text} [{', '.join(bounds)}]"
    return f"{text} ± {known['sd_patients']}" if "sd_patients" in known else text


def _is_number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns 0, or 2 for refused input."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", required=True, help="FILE[:VARIANT]")
    parser.add_argument("--epsilons", default=PAPER, help=f"with commas; {PAPER}")
    parser.add_argument("--seeds", default="1", help="with commas")
    parser.add_argument("--folds", help="with commas; left out, the config's own split")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    chosen, overrides = parser.parse_known_args(list(argv))
    keep_compilations()
    try:
        run(
            chosen.config,
            _numbers(chosen.epsilons, float),
            _numbers(chosen.seeds, int),
            _numbers(chosen.folds, int) if chosen.folds else None,
            chosen.out,
            overrides,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(chosen.out / "tables.md")
    return 0


def _numbers(text: str, kind: type) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{text!r} is no list of numbers with commas between them.") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
