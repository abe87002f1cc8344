"""The report's sections, from runs: what is said, in which order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.fairness import calibration
from jaxfair.fairness.frame import MIN_LABEL, MIN_PATIENTS
from jaxfair.fairness.groups import OVERALL, group_labels
from jaxfair.files import slug
from jaxfair.report import plots
from jaxfair.report.before_after import before_after
from jaxfair.report.cells import cells, number
from jaxfair.report.compare import comparison
from jaxfair.report.content import Block, Image, Plot, Section, Table, Text
from jaxfair.report.coverage import coverage_words
from jaxfair.report.curated import curation_blocks
from jaxfair.report.glance import glance
from jaxfair.report.headline import shown_headline
from jaxfair.report.leakage import leakage_details, leakage_section
from jaxfair.report.measured import WORDS
from jaxfair.report.one_scale import scale_section
from jaxfair.report.single import Run
from jaxfair.report.views import TaskView, run_views
from jaxfair.report.words import LIMITS, crosswalk
from jaxfair.schema import UNKNOWN

__all__ = ["sections"]

_WORST = 10
_DETAILED = 2
_TOO_FEW = (
    f"Too few: fewer than {MIN_PATIENTS} patients, or {MIN_LABEL} of either label, in the group or"
    " in all others together, which would tell of it. Counts stay; values are left out. Of three"
    " groups or more, the others and all together may still tell of one: this is caution about"
    " small numbers, and no protection of patients."
)


def sections(
    runs: Sequence[Run], *, with_images: bool = False, n_draws: int | None = None
) -> list[Section]:
    """Returns the report of one run, or of several side by side.

    The first section holds the headline and what the guarantee covers. Curves, calibration and
    worst cases are shown for up to two runs; of more runs each has them in its own report.
    `n_draws` of each comparison: see contrasts.group_contrasts.
    """
    views = [view for run in runs for view in run_views(run, n_draws)]
    found = [_heading(runs)]
    leaks = [told for run in runs if (told := leakage_section(run)) is not None]
    several = len({view.task for view in views}) > 1
    found.extend([glance(views), *leaks] if several else [])  # else they stand early enough
    if len(runs) > 1:
        found.extend([*before_after(views), *([] if several else leaks)])
    found.extend(_headline(view) for view in views)
    found.extend(leaks if len(runs) == 1 and not several else [])
    if len(runs) > 1:
        found.extend(comparison(views))
    found.extend(_privacy(run) for run in runs if run.privacy is not None)
    found.extend(_population(run) for i, run in enumerate(runs) if _is_new(run, runs[:i]))
    for view in views if len(runs) <= _DETAILED else []:
        found.extend(_details(view))
    found.extend(told for run in runs for told in leakage_details(run))
    found.extend(_maps(run, shown) for run in runs if (shown := run.maps(with_images=with_images)))
    found.append(_limits())
    return found


def _heading(runs: Sequence[Run]) -> Section:
    blocks: list[Block] = []
    for run in runs:
        if len(runs) > 1:
            blocks.append(Text(run.title(), strong=True))
        blocks.extend(Text(line, strong=i == 0) for i, line in enumerate(run.statement()))
    title = f"Fairness report: {', '.join(run.name for run in runs)}"
    return Section(f"PHANTOM data. {title}" if any(r.phantom for r in runs) else title, blocks)


def _headline(view: TaskView) -> Section:
    blocks: list[Block] = [Text(line, strong=i == 0) for i, line in enumerate(view.verdict())]
    words = (
        "Sensitivity, specificity, PPV and missed cases are at one threshold, fitted on validation"
        " (Youden) and applied to all. AUROC minus rest compares at the same mix of views; its p"
        " value is one-sided for worse, and corrected for all comparisons of the run. The note"
        " says what is worse for a group, in any statistic that was compared."
    )
    shown = shown_headline(view.headline)
    blocks.append(Table(f"{stem(view)}.headline", shown, words, data=view.headline))
    if any(view.small(attribute) for attribute in view.frames):
        blocks.append(Text(_TOO_FEW))
    blocks.append(Text(coverage_words(view.run.fairness.query("task == @view.task"))))
    if np.isnan(view.threshold):
        blocks.append(
            Text("There are no validation rows of both labels: no threshold, no rates at one.")
        )
    if view.frames:
        words = (
            "A gap between the best and the worst group is never zero, even where none exists:"
            " compare it with what chance alone gives. p: studentised, patients exchanged within"
            " label and view."
        )
        blocks.append(Table(f"{stem(view)}.gaps", view.shown_gaps(), words, data=view.gaps))
        measured, title = view.measured, f"{stem(view)}.decisions"
        blocks.append(Table(title, measured.shown(), WORDS, data=measured.table()))
    return Section(f"{view.run.title()}, {view.task}: results by group", blocks)


def _privacy(run: Run) -> Section:
    assert run.privacy is not None
    rows = [(key, _plain(value)) for key, value in run.privacy.items()]
    table = pd.DataFrame(rows, columns=["item", "value"])
    return Section(
        f"{run.title()}: privacy statement",
        [Table(f"{slug(run.name)}.privacy", table, words=True)],
    )


def _population(run: Run) -> Section:
    rows = run.predictions
    keys = ["task", "split", "y_true"]
    counts = rows.groupby(keys).agg(images=("image_id", "size"), patients=("patient_id", "nunique"))
    table = counts.reset_index().rename(columns={"y_true": "label"})
    table["label"] = np.where(table["label"] == 1, "positive", "negative")
    blocks: list[Block] = [Table(f"{slug(run.name)}.flow", table, "Scored images and patients.")]
    blocks += [Text(line) for line in (*run.remarks, *_unknown(run))]
    for attribute in run.attributes:
        if " x " not in attribute and attribute in rows:
            shares = _by_split(rows, attribute)
            blocks.append(
                Table(f"{slug(run.name, attribute)}.by_split", shares, f"By {attribute}.")
            )
    blocks.extend([*_card(run), *curation_blocks(run)])
    return Section(f"{run.title()}: population and flow", blocks)


def _is_new(run: Run, earlier: Sequence[Run]) -> bool:
    """False if an earlier run was tested on the same images with the same card."""
    keys = ["task", "split", "image_id"]
    own = set(run.predictions[keys].itertuples(index=False, name=None))
    return not any(
        run.card == other.card
        and own == set(other.predictions[keys].itertuples(index=False, name=None))
        for other in earlier
    )


def _by_split(rows: pd.DataFrame, attribute: str) -> pd.DataFrame:
    labels = pd.Series(group_labels(rows, attribute), rows.index, dtype=object)
    counts = rows.groupby([labels, rows["split"]])["patient_id"].nunique().unstack(fill_value=0)
    return counts.add_prefix("patients, ").rename_axis("group").reset_index()


def _unknown(run: Run) -> list[str]:
    """How many images have no group, for each attribute that is a column."""
    images = run.predictions.drop_duplicates("image_id")
    counts = {
        name: int((group_labels(images, name) == UNKNOWN).sum())
        for name in run.attributes
        if " x " not in name
    }
    return [
        f"{name} is {UNKNOWN} for {n} of {len(images)} images, which are a group of their own."
        for name, n in counts.items()
        if n
    ]


def _card(run: Run) -> list[Block]:
    """Who was excluded and why, and what is missing, from data_card.json."""
    if not run.card:
        return [Text("No data card lies in the run folder: exclusions are not known here.")]
    rejected = run.card.get("rejected", {})
    rows = [(f"set aside: {why}", n) for why, n in rejected.get("by_reason", {}).items()]
    rows += [(f"{what} unknown", n) for what, n in run.card.get("missing", {}).items()]
    head = [("images kept", run.card.get("images")), ("patients", run.card.get("patients"))]
    table = pd.DataFrame([*head, *rows], columns=["what", "count"])
    return [Table(f"{slug(run.name)}.card", table, "From the data card; not covered by privacy.")]


def _details(view: TaskView) -> list[Section]:
    found = [_contrasts(view)] if len(view.contrasts) else []
    found += [_attribute(view, attribute) for attribute in view.frames]
    found += [told] if (told := scale_section(view)) is not None else []
    if view.probabilities is not None:
        found.append(_calibration(view))
    found.append(_every_metric(view))
    found.append(_worst_cases(view))
    return found


def _contrasts(view: TaskView) -> Section:
    words = (
        "Each group minus all other patients: AUROC, sensitivity and specificity at the same mix of"
        " views, by patients who change groups within label and view, on the logit; observed minus"
        " stated risk (above 0: stated too low) as it is. p is one-sided for"
        " worse, two-sided for the risk; of two groups the worse one holds the contrast."
    )
    table = Table(f"{stem(view)}.contrasts", view.shown_contrasts(), words, data=view.contrasts)
    return Section(f"{view.run.title()}, {view.task}: each group against the rest", [table])


def _attribute(view: TaskView, attribute: str) -> Section:
    frame, name = view.frames[attribute], stem(view, *attribute.split(" x "))
    roc = plots.roc_by_group(frame)
    scores = plots.histogram_by_group(frame, view.threshold)
    blocks: list[Block] = [
        Plot(f"{name}.roc", roc, f"ROC curves by {attribute}"),
        Plot(f"{name}.scores", scores, f"Scores of normal and abnormal images by {attribute}"),
    ]
    if " x " in attribute:
        figure = plots.heat_map(view.headline, attribute)
        blocks.append(Plot(f"{name}.heat", figure, f"AUROC of each cell of {attribute}"))
    within = view.stratified(attribute)
    if within is not None and len(within.columns) > 1:
        blocks.append(Table(f"{name}.within_view", within, "AUROC within each view."))
    if not np.isnan(view.threshold):
        words = "Largest difference between groups with enough patients, at the one threshold."
        blocks.append(Table(f"{name}.parity", view.parity(attribute), words))
    return Section(f"{view.run.title()}, {view.task}: by {attribute}", blocks)


def _calibration(view: TaskView) -> Section:
    assert view.probabilities is not None
    p, edges, words = view.probabilities
    y = view.rows["y_true"].to_numpy()
    curves = {"all": calibration.reliability(y, p, edges)}
    for attribute in list(view.frames)[:1]:
        for group in view.enough(attribute):
            inside = view.frames[attribute].labels == group
            curves[f"{attribute}: {group}"] = calibration.reliability(y[inside], p[inside], edges)
    return Section(
        f"{view.run.title()}, {view.task}: calibration",
        [
            Text(words),
            Table(f"{stem(view)}.calibration", view.shown_calibration(), data=view.calibration),
            Plot(f"{stem(view)}.calibration", plots.reliability(curves), "Calibration curves"),
        ],
    )


def _every_metric(view: TaskView) -> Section:
    words = "Groups with too few patients take no part in the worst."
    table = Table(f"{stem(view)}.metrics", view.shown_metrics(), words, words=True)
    return Section(f"{view.run.title()}, {view.task}: all metrics", [table])


def _worst_cases(view: TaskView) -> Section:
    """The most surprising images by id; the images themselves stay where they are."""
    rows = view.rows
    shown = ["image_id", "y_true", "y_score", *[a for a in view.frames if a in rows]]
    missed = rows[rows["y_true"] == 1].nsmallest(_WORST, "y_score")[shown]
    alarms = rows[rows["y_true"] == 0].nlargest(_WORST, "y_score")[shown]
    blocks: list[Block] = [
        Table(f"{stem(view)}.missed", _rounded(missed), "Abnormal images with the lowest scores."),
        Table(f"{stem(view)}.alarms", _rounded(alarms), "Normal images with the highest scores."),
    ]
    if np.isfinite(view.threshold):
        whole = view.headline[view.headline["attribute"] == OVERALL]
        (text,) = cells(whole, "underdiagnosis", interval=True)
        blocks.insert(0, Text(f"At the threshold {text} of the abnormal images are missed."))
    return Section(f"{view.run.title()}, {view.task}: worst cases", blocks)


def _rounded(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(y_true=rows["y_true"].astype(int), y_score=rows["y_score"].map(number))


def _maps(run: Run, shown: Mapping[str, bytes]) -> Section:
    kind = "PHANTOM images" if run.phantom else "Images of patients: do not pass on"
    blocks: list[Block] = [Text(kind, strong=True), Text("Left the image, right its anomaly map.")]
    for name, png in shown.items():
        blocks.append(Image(f"{slug(run.name)}._map.{slug(name)}", png, name))
    return Section(f"{run.title()}: anomaly maps", blocks)


def _limits() -> Section:
    blocks: list[Block] = [Text(line) for line in LIMITS]
    words = "Where common checklists find their answers; what no program knows is said so."
    return Section(
        "Limits, and where checklists are answered",
        [*blocks, Table("crosswalk", crosswalk(), words, words=True)],
    )


def stem(view: TaskView, *columns: str) -> str:
    """The start of the names of a view's files."""
    return slug(view.run.name, view.task, *columns)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    return "none" if value is None else str(value)
