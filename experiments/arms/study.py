"""Runs a study: arms on data sets, resumable, and ends in tables, plots and what it cost.

    out/DATA/PART/search/...   what was tried, on the first fold
    out/DATA/PART/runs/...     a folder per run
    out/DATA/PART/*.csv, *.png tables.md is made anew from whatever is there

Every arm has as many settings to choose among as any other. They are compared on the validation
images of the first fold, each once: among those whose AUROC is within WITHIN of the arm's best, the
one with the smallest delta-EO. `dp.tuning_runs` of a private run says how many there were.
"""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from ml_collections import ConfigDict

from experiments.arms.cells import NOTHING, Arm, Cell, Data, Grid, config_of
from experiments.arms.leaks import leaks_of
from experiments.arms.measures import measured, measures_of
from experiments.arms.train import predictions_path, run_cell
from jaxfair import files
from jaxfair.engine.compiling import keep_compilations
from jaxfair.errors import InputError
from jaxfair.privacy.study import read_study
from jaxfair.run.log import progress_bar

__all__ = [
    "WITHIN",
    "Part",
    "Study",
    "config",
    "keep",
    "main",
    "paid",
    "preferred",
    "run",
]

WITHIN = 0.01
"""AUROC that a setting may lose on validation for a smaller gap."""

Section = Mapping[str, Any]


class Part(NamedTuple):
    """One network, trained in all arms.

    Attributes:
      name: of its folder.
      arms: how.
      grid: how often.
      training: epsilon -> the sections optim, dp and train that all arms share.
      network: fields of `method` that all arms share, as {"backbone": "features"}.
      images: data set -> fields of `method` that fit its images, as {"symmetric": True}.
      shares: data set -> the declared share of each cell, for the arm on balanced cells.
      searched: the part whose choice of settings is taken over, all but rates, which belong to a
        network; an arm that is not there takes the middle of its settings. "" to search here.
      only: the data sets that it is trained on; () for all of the study.
    """

    name: str
    arms: tuple[Arm, ...]
    grid: Grid
    training: Callable[[float], Mapping[str, Section]]
    network: Section
    images: Mapping[str, Section]
    shares: Mapping[str, tuple[float, ...]] = NOTHING
    searched: str = ""
    only: tuple[str, ...] = ()


class Study(NamedTuple):
    """What is asked.

    Attributes:
      title: of the page.
      data: on what.
      parts: with which networks.
      write: (data, part, folder) writes tables and plots of what is there.
    """

    title: str
    data: tuple[Data, ...]
    parts: tuple[Part, ...]
    write: Callable[[Data, Part, pathlib.Path], None]

    def parts_on(self, data: Data) -> tuple[Part, ...]:
        """Returns the parts that are trained on a data set."""
        return tuple(part for part in self.parts if data.name in (part.only or (data.name,)))


def run(study: Study, out: pathlib.Path, *, progress: bool = True) -> None:
    """Trains what is missing under `out` and writes the tables anew.

    A data set that is not at hand is left out, and the reason is printed.
    """
    for data in study.data:
        if data.missing:
            print(f"{data.title}: not run. {data.missing}", file=sys.stderr)
            continue
        for part in study.parts_on(data):
            _run_part(data, part, out / data.name / part.name, progress)
            study.write(data, part, out / data.name / part.name)


def _run_part(data: Data, part: Part, out: pathlib.Path, progress: bool) -> None:
    arms = {arm.name: arm for arm in part.arms if part.name not in arm.skip}
    cells = part.grid.cells(arms.values())
    tries = [(cell, i) for cell in _first(cells) for i in range(len(arms[cell.arm].settings))]
    tries = [t for t in tries if len(arms[t[0].arm].settings) > 1 and not part.searched]
    total = len(tries) + len(cells)
    with progress_bar(
        total, what=f"{data.name}, {part.name}", unit="run", hidden=not progress
    ) as bar:
        for cell, i in tries:
            folder = out / "search" / f"setting-{i}_{cell.name}"
            setting = arms[cell.arm].settings[i]
            run_cell(config(data, part, cell, arms[cell.arm], setting), folder, {})
            bar.update()
        chosen = {cell: _chosen(data, part, arms[cell.arm], cell, out) for cell in _first(cells)}
        files.write_json(out / "chosen.json", {cell.name: i for cell, i in chosen.items()})
        for cell in cells:
            arm, folder = arms[cell.arm], out / "runs" / cell.name
            place = chosen[cell._replace(fold=cells[0].fold, seed=cells[0].seed)]
            setting = arm.settings[place]
            if part.searched:
                setting = {k: v for k, v in setting.items() if not k.startswith("optim.")}
            run_cell(config(data, part, cell, arm, setting), folder, data.independent)
            measures_of(folder, data)
            if cell.seed == cells[0].seed:
                leaks_of(folder, data)
            bar.update()


def _first(cells: Iterable[Cell]) -> list[Cell]:
    """The first fold and seed of every arm and epsilon."""
    found: dict[tuple[str, float], Cell] = {}
    for cell in cells:
        found.setdefault((cell.arm, cell.epsilon), cell)
    return list(found.values())


def config(data: Data, part: Part, cell: Cell, arm: Arm, setting: Section) -> ConfigDict:
    """Returns the config of one run: the arm with what its part, data and setting add."""
    fitted = {**part.network, **part.images.get(data.name, {}), **arm.method}
    mitigation = arm.mitigation
    if mitigation.get("name") == "balanced_head":
        mitigation = {**mitigation, "shares": part.shares[data.name]}
    fitted_arm = arm._replace(method=fitted, mitigation=mitigation)
    return config_of(cell, fitted_arm, data.section, part.training(cell.epsilon), setting)


def _chosen(data: Data, part: Part, arm: Arm, cell: Cell, out: pathlib.Path) -> int:
    """The place of the setting that validation prefers."""
    if len(arm.settings) == 1:
        return 0
    if part.searched:
        found = files.read_json(out.parent / part.searched / "chosen.json")
        return int(found.get(cell.name, len(arm.settings) // 2))
    rows = []
    for i in range(len(arm.settings)):
        path = predictions_path(out / "search" / f"setting-{i}_{cell.name}", "correlated")
        table = pd.read_parquet(path)
        held = table[(table["split"] == "validation") & (table["task"] == data.task)]
        both = pd.concat([held, held.assign(split="test")], ignore_index=True)
        found = measured(both, data.attributes[0]).set_index(["measure", "rule", "per_group"])[
            "value"
        ]
        rows.append((found["AUROC", "", False], found["delta-EO", "min_gap", False]))
    return preferred(rows)


def preferred(rows: Sequence[tuple[float, float]]) -> int:
    """Returns the place of the smallest gap among those whose AUROC is near the best.

    Args:
      rows: (AUROC, gap) of each setting; a gap that is undefined counts as the largest.
    """
    best = max(auroc for auroc, _ in rows)
    near = [i for i, (auroc, _) in enumerate(rows) if auroc >= best - WITHIN]
    return min(near, key=lambda i: math.inf if math.isnan(rows[i][1]) else rows[i][1])


def paid(folders: Sequence[pathlib.Path]) -> str:
    """Returns what private runs on the same people cost, each and together (protocol P17)."""
    private = [f for f in folders if _epsilon(f) is not None]
    if not private:
        return "No run here is private, so nothing was spent, and nobody is protected."
    study = read_study(private)
    said = (
        f"{len(private)} private runs on these people: each costs at most epsilon "
        f"{max(study.epsilons):.3g}, all of them together {study.epsilon:.3g} (delta "
        f"{study.delta:.2g}, unit {study.words['units']})."
    )
    if study.tuning_epsilon is not None:
        said += f" With the settings that were compared for them: {study.tuning_epsilon:.3g}."
    return said + " Runs without privacy on the same people protect nobody."


def _epsilon(folder: pathlib.Path) -> float | None:
    path = folder / "privacy.json"
    return json.loads(path.read_text())["epsilon"] if path.is_file() else None


def keep(out: pathlib.Path, results: pathlib.Path) -> None:
    """Copies pages, plots and summaries of a study's parts, the files that git is to hold."""
    for path in sorted(out.glob("*/*/*")):
        if path.suffix in (".md", ".png") or path.name == "summary.csv":
            files.write_bytes(results / path.relative_to(out), path.read_bytes())


def main(
    argv: Sequence[str],
    make: Callable[[bool], Study],
    default: str,
    results: pathlib.Path,
) -> int:
    """Runs the command of a study; returns 0, or 2 for refused input.

    Args:
      make: whether it is the quick form -> the study.
      default: where results go if nobody says.
      results: where --keep copies what git is to hold.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help=f"left out: {default}")
    parser.add_argument("--quick", action="store_true", help="the same code, less of everything")
    parser.add_argument("--tables", action="store_true", help="train nothing, write the tables")
    parser.add_argument("--keep", action="store_true", help="copy pages and plots for git")
    parser.add_argument("--data", help="this data set alone, as beside another process")
    parser.add_argument("--part", help="this network alone; one that searches nothing comes last")
    chosen = parser.parse_args(list(argv))
    out = chosen.out or pathlib.Path(f"{default}-quick" if chosen.quick else default)
    study = make(chosen.quick)
    if chosen.data:
        study = study._replace(data=tuple(d for d in study.data if d.name == chosen.data))
        if not study.data:
            parser.error(f"there is no data set {chosen.data!r}")
    if chosen.part:
        study = study._replace(parts=tuple(p for p in study.parts if p.name == chosen.part))
        if not study.parts:
            parser.error(f"there is no part {chosen.part!r}")
    keep_compilations()
    try:
        if not chosen.tables:
            run(study, out)
        else:
            for data in study.data:
                for part in study.parts_on(data):
                    study.write(data, part, out / data.name / part.name)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.keep:
        keep(out, results)
    print(out)
    return 0
