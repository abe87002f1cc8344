"""The section on what a fresh probe reads from the embedding, from leakage.csv alone."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxfair.fairness.frame import MIN_LABEL, MIN_PATIENTS
from jaxfair.fairness.questions import BASELINE, GRID, MODEL, MOST_IMAGES, PIXELS, WITHIN
from jaxfair.files import slug
from jaxfair.report import plots
from jaxfair.report.cells import Cell, number, with_interval
from jaxfair.report.content import Block, Plot, Section, Table, Text
from jaxfair.report.single import Run

__all__ = ["leakage_details", "leakage_section", "shown_leakage"]

_SOURCES = {MODEL: "this run", BASELINE: "baseline", PIXELS: "8 x 8 means of pixels"}
_NOT_PROBED = (
    "What the embedding tells about patients was not probed:"
    " `python -m jaxfair.leakage --workdir RUN [--baseline RUN]` does so."
)
_WORDS = (
    "Fresh probes, fitted to the frozen embedding on validation patients and scored on test"
    " patients, each within one label value; AUROC, the mean over both. An adversary's own loss is"
    " no evidence: it says how that adversary fared, and not what another can read."
)
_LIMITS = (
    "A probe shows what can be read at least. Intervals cover the chance of drawing the test"
    " patients. These numbers rest on validation and test patients, and no guarantee of the"
    " training covers them."
)
_CAPTION = (
    "Chance: a probe that was fitted to values exchanged among patients of one label, as a control;"
    " in brackets what AUROCs of such exchanges stay below in 95 %. 8 x 8 means: what the images"
    " show without any network."
)
_OVERALL = (
    "Label all: everybody at once. There an embedding that is independent of the attribute given"
    " the label still has .5 + rho (AUROC - .5), rho being the difference of prevalences. n: test"
    f" patients; too few, with patients to fit and to score: fewer than {MIN_LABEL} of a value, or"
    f" than {MIN_PATIENTS} to score. Beyond {MOST_IMAGES['validation']:,} images to fit and"
    f" {MOST_IMAGES['test']:,} to score, patients are left out by a hash of their id."
)


def leakage_section(run: Run) -> Section | None:
    """Returns the headline table and plot; where they are missing, how to get them, or None.

    None is for runs whose Method has no embedding of a whole image.
    """
    title = f"{run.title()}: what the embedding tells about patients"
    if run.leakage is None:
        return Section(title, [Text(_NOT_PROBED)]) if run.model.get("embeds") else None
    blocks: list[Block] = [Text(_WORDS)]
    name = slug(run.name)
    blocks.append(_table(run))
    figure = _figure(run.leakage)
    blocks.append(Plot(f"{name}.leakage", figure, _alt(run.leakage)))
    return Section(title, [*blocks, Text(_LIMITS)])


def _table(run: Run) -> Table:
    assert run.leakage is not None
    several = _headline(run.leakage)["task"].nunique() > 1
    shown, title = shown_leakage(run.leakage), "AUROC of what probes read from the embedding"
    name = f"{slug(run.name)}.leakage"
    return Table(name, shown, title, _CAPTION, run.leakage, heads=1 + several)


def _alt(table: pd.DataFrame) -> str:
    """Which attribute is read best from the run's embedding."""
    head = _headline(table)
    rows = head[(head["source"] == MODEL) & head["auroc"].notna()]
    if not len(rows):
        return "AUROC of probes for each attribute: nothing could be asked"
    top = rows.iloc[int(rows["auroc"].argmax())]
    return (
        f"AUROC of probes for each attribute, with 95 % intervals: most is read of"
        f" {top['attribute']}, {number(top['auroc'])} ({top['probe']} probe)"
    )


def leakage_details(run: Run) -> list[Section]:
    """Returns every row of the table as text; [] where the run was not probed."""
    if run.leakage is None:
        return []
    table, name = run.leakage, slug(run.name)
    columns = ["attribute", "value", "task", "label", "source", "embedding", "probe"]
    shown = table[columns].copy()
    auroc = [_cell(row) for _, row in table.iterrows()]
    shown["auroc"] = pd.Series(auroc, shown.index, dtype=object)
    shown["chance"] = [_chance(row) for _, row in table.iterrows()]
    shown = shown.assign(n=table["n"].astype(int), note=table["why"])
    shown = shown.rename(columns={"auroc": "AUROC [95 %]", "chance": "chance (95 % below)"})
    title = f"{run.title()}: every probe of the embedding"
    what = "Every probe, by attribute, label and embedding"
    table_of = Table(f"{name}.probes", shown, what, _OVERALL, words=True, heads=4)
    return [Section(title, [table_of], folded=True)]


def shown_leakage(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the headline of leakage.csv as text: a row for each attribute (and label).

    The run's first embedding, the baseline's, and the coarse grid of pixel means.
    """
    head = _headline(table)
    several = head["task"].nunique() > 1
    return pd.DataFrame([_row(part, several) for _, part in _parts(head)]).fillna("")


def _headline(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of whole attributes within labels: of the first embedding, and of the grid of pixels."""
    rows = table[(table["label"] == WITHIN) & (table["value"] == "")]
    firsts = rows.groupby("source")["embedding"].transform("first")
    wanted = np.where(rows["source"] == PIXELS, GRID, firsts)
    return rows[rows["embedding"] == wanted]


def _parts(head: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    for (attribute, task), part in head.groupby(["attribute", "task"], sort=False):
        yield (str(attribute), str(task)), part


def _row(part: pd.DataFrame, several: bool) -> dict[str, Any]:
    first = part.iloc[0]
    found = {"attribute": first["attribute"]} | ({"label": first["task"]} if several else {})
    for source in _SOURCES:
        for _, row in part[part["source"] == source].iterrows():
            found[_title(source, row)] = _cell(row)
            if source == MODEL:
                found[f"chance: {row['probe']}"] = _chance(row)
    return found | {"note": "; ".join(dict.fromkeys(_short(why) for why in part["why"] if why))}


def _title(source: str, row: pd.Series) -> str:
    whose = f" {row['run']}" if row["run"] else ""
    return f"{_SOURCES[source]}{whose}: {row['probe']}"


def _chance(row: pd.Series) -> str:
    """'0.512 (0.561)': the control, and what chance stays below in 95 %."""
    control = "" if np.isnan(row["chance"]) else f"{number(row['chance'])} "
    return "" if np.isnan(row["chance_95"]) else f"{control}({number(row['chance_95'])})"


def _short(why: str) -> str:
    """Without the counts, which the details have."""
    return re.sub(r" \([\d, ]+\)", "", why)


def _cell(row: pd.Series) -> Cell:
    return with_interval(row["auroc"], row["ci_low"], row["ci_high"])


def _figure(table: pd.DataFrame) -> Figure:
    """A line of points with intervals for each attribute: run, baseline, pixels, by probe."""
    head = _headline(table)
    series = list(head[["source", "probe"]].drop_duplicates().itertuples(index=False, name=None))
    parts = list(_parts(head))
    figure, axes = plots.blank(5.6, 1.4 + 0.16 * len(parts) * (len(series) + 1))
    for i, (source, probe) in enumerate(series):
        rows = head[(head["source"] == source) & (head["probe"] == probe)]
        places = _places(rows, [key for key, _ in parts], i, len(series))
        errors = np.abs(rows[["ci_low", "ci_high"]].to_numpy() - rows[["auroc"]].to_numpy()).T
        colour = plots.COLOURS[list(_SOURCES).index(source)]
        axes.errorbar(
            rows["auroc"], places, xerr=errors, fmt="o" if i % 2 == 0 else "s", markersize=4,
            color=colour, label=plots.plain(_title(source, rows.iloc[0])),
        )  # fmt: skip
        axes.plot(rows["chance_95"], places, "|", color=colour, markersize=9)
    axes.axvline(0.5, color="#999999", linewidth=0.7)
    several = head["task"].nunique() > 1
    names = [plots.plain(f"{a}, {t}" if several else a) for (a, t), _ in parts]
    axes.set_yticks(range(len(parts)), names)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set(xlabel="AUROC within labels (bar: 95 % of chance)")
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False,
                labelcolor=plots.INK)  # fmt: skip
    return figure


def _places(
    rows: pd.DataFrame, keys: Sequence[tuple[str, str]], index: int, number_of: int
) -> list[float]:
    shift = 0.7 * ((index + 0.5) / number_of - 0.5)
    return [keys.index((str(a), str(t))) + shift for a, t in rows[["attribute", "task"]].to_numpy()]
