"""The report's sections, from runs: what is said, in which order."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jaxfair.fairness import calibration
from jaxfair.fairness.frame import MIN_LABEL, MIN_PATIENTS
from jaxfair.fairness.groups import OVERALL
from jaxfair.files import slug
from jaxfair.report import plots
from jaxfair.report.alts import heat_alt, reliability_alt, roc_alt, scores_alt
from jaxfair.report.before_after import before_after, compared
from jaxfair.report.cells import Number, cells
from jaxfair.report.compare import comparison
from jaxfair.report.content import Block, Image, Plot, Section, Table, Text
from jaxfair.report.coverage import coverage_words
from jaxfair.report.first import first_page
from jaxfair.report.forest import forest_plots
from jaxfair.report.glance import glance
from jaxfair.report.headline import shown_headline
from jaxfair.report.leakage import leakage_details, leakage_section
from jaxfair.report.measured import WORDS
from jaxfair.report.one_scale import scale_section
from jaxfair.report.overview import overview, results_title
from jaxfair.report.population import population
from jaxfair.report.provenance import provenance
from jaxfair.report.single import Run
from jaxfair.report.views import TaskView, run_views
from jaxfair.report.words import LIMITS, crosswalk

__all__ = ["sections"]

_WORST = 10
_DETAILED = 2
_DRAWN = 24
"""Curves are drawn for so many attributes, counted over all labels and runs."""
_NOT_DRAWN = (
    "Of so many labels curves are not drawn here; jaxfair.report.load_run(RUN).plot_roc(attribute,"
    " label) and .plot_scores draw them."
)
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

    First the page that answers three questions; of several labels an overview and every gap; of
    several runs what changed and what the embeddings tell; then each label's results and what they
    rest on, folded; provenance at the end. Calibration and worst cases are shown for up to two
    runs, of more each has them in its own report; curves are drawn while labels times attributes
    are few. `n_draws` of each comparison: see contrasts.group_contrasts.
    """
    by_run = [run_views(run, n_draws) for run in runs]
    views = [view for own in by_run for view in own]
    several = len({view.task for view in views}) > 1
    together = compared(views) if len(runs) > 1 else []
    leaks = [told for run in runs if (told := leakage_section(run)) is not None]
    found = [first_page(runs, by_run, together)]
    if several:
        found.extend(overview(run, own) for run, own in zip(runs[:_DETAILED], by_run, strict=False))
        found.extend([glance(views), *leaks])
    found.extend(before_after(together, folded=several))
    found.extend(leaks if len(runs) > 1 and not several else [])
    found.extend(_headline(view, folded=len(views) > 1) for view in views)
    found.extend(leaks if len(runs) == 1 and not several else [])
    found.extend(comparison(views) if len(runs) > 1 else [])
    found.extend(population(run) for i, run in enumerate(runs) if _is_new(run, runs[:i]))
    drawn = sum(len(view.frames) for view in views) <= _DRAWN
    for view in views if len(runs) <= _DETAILED else []:
        found.extend(_details(view, drawn))
    found.extend(told for run in runs for told in leakage_details(run))
    found.extend(_maps(run, shown) for run in runs if (shown := run.maps(with_images=with_images)))
    return [*found, _limits(), *provenance(runs)]


def _headline(view: TaskView, folded: bool) -> Section:
    alone = folded and len(view.run.tasks) > 1  # the first page has it of one label
    blocks: list[Block] = [*(forest_plots([view]) if alone else [])]
    blocks += [Text(line, strong=i == 0) for i, line in enumerate(view.verdict())]
    words = (
        "Sensitivity, specificity, PPV and missed cases are at one threshold, fitted on validation"
        " (Youden) and applied to all. AUROC minus rest compares at the same mix of views; its p"
        " value is one-sided for worse, and corrected for all comparisons of the run. The note"
        " says what is worse for a group, in any statistic that was compared."
    )
    shown, title = shown_headline(view.headline), f"Results by group, {view.task}"
    blocks.append(Table(f"{stem(view)}.headline", shown, title, words, data=view.headline))
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
        title = f"Gaps of the AUROC, {view.task}"
        blocks.append(Table(f"{stem(view)}.gaps", view.shown_gaps(), title, words, view.gaps))
        measured, title = view.measured, f"Gaps of decisions, {view.task}"
        name, data = f"{stem(view)}.decisions", measured.table()
        blocks.append(Table(name, measured.shown(), title, WORDS, data, heads=2))
    return Section(results_title(view), blocks, folded)


def _is_new(run: Run, earlier: Sequence[Run]) -> bool:
    """False if an earlier run was tested on the same images with the same card."""
    keys = ["task", "split", "image_id"]
    own = set(run.predictions[keys].itertuples(index=False, name=None))
    return not any(
        run.card == other.card
        and own == set(other.predictions[keys].itertuples(index=False, name=None))
        for other in earlier
    )


def _details(view: TaskView, drawn: bool) -> list[Section]:
    found = [_contrasts(view)] if len(view.contrasts) else []
    found += [_attribute(view, attribute, drawn) for attribute in view.frames]
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
    what = f"Each group against the rest, {view.task}"
    shown = view.shown_contrasts()
    table = Table(f"{stem(view)}.contrasts", shown, what, words, view.contrasts, heads=2)
    title = f"{view.run.title()}, {view.task}: each group against the rest"
    return Section(title, [table], folded=True)


def _attribute(view: TaskView, attribute: str, drawn: bool) -> Section:
    name = stem(view, *attribute.split(" x "))
    blocks: list[Block] = _curves(view, attribute, name) if drawn else [Text(_NOT_DRAWN)]
    within = view.stratified(attribute)
    if within is not None and len(within.columns) > 1:
        title = f"AUROC by {attribute} within each view, {view.task}"
        blocks.append(Table(f"{name}.within_view", within, title))
    if not np.isnan(view.threshold):
        words = "Largest difference between groups with enough patients, at the one threshold."
        title = f"Decisions by {attribute}, {view.task}"
        blocks.append(Table(f"{name}.parity", view.parity(attribute), title, words))
    return Section(f"{view.run.title()}, {view.task}: by {attribute}", blocks, folded=True)


def _curves(view: TaskView, attribute: str, name: str) -> list[Block]:
    frame, table = view.frames[attribute], view.headline
    roc = plots.roc_by_group(frame)
    scores = plots.histogram_by_group(frame, view.threshold)
    blocks: list[Block] = [
        Plot(f"{name}.roc", roc, roc_alt(table, attribute)),
        Plot(f"{name}.scores", scores, scores_alt(table, attribute)),
    ]
    if " x " in attribute:
        figure = plots.heat_map(table, attribute)
        blocks.append(Plot(f"{name}.heat", figure, heat_alt(table, attribute)))
    return blocks


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
            Table(
                f"{stem(view)}.calibration",
                view.shown_calibration(),
                f"Calibration by group, {view.task}",
                data=view.calibration,
            ),
            Plot(
                f"{stem(view)}.calibration",
                plots.reliability(curves),
                reliability_alt(view.calibration),
            ),
        ],
        folded=True,
    )


def _every_metric(view: TaskView) -> Section:
    words = "Groups with too few patients take no part in the worst."
    what = f"All metrics, {view.task}"
    table = Table(f"{stem(view)}.metrics", view.shown_metrics(), what, words, words=True)
    return Section(f"{view.run.title()}, {view.task}: all metrics", [table], folded=True)


def _worst_cases(view: TaskView) -> Section:
    """The most surprising images by id; the images themselves stay where they are."""
    rows = view.rows
    shown = ["image_id", "y_true", "y_score", *[a for a in view.frames if a in rows]]
    missed = rows[rows["y_true"] == 1].nsmallest(_WORST, "y_score")[shown]
    alarms = rows[rows["y_true"] == 0].nlargest(_WORST, "y_score")[shown]
    blocks: list[Block] = [
        Table(f"{stem(view)}.missed", _rounded(missed), "Abnormal images, lowest scores"),
        Table(f"{stem(view)}.alarms", _rounded(alarms), "Normal images, highest scores"),
    ]
    if np.isfinite(view.threshold):
        whole = view.headline[view.headline["attribute"] == OVERALL]
        (text,) = cells(whole, "underdiagnosis", interval=True)
        blocks.insert(0, Text(f"At the threshold {text} of the abnormal images are missed."))
    return Section(f"{view.run.title()}, {view.task}: worst cases", blocks, folded=True)


def _rounded(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(y_true=rows["y_true"].astype(int), y_score=rows["y_score"].map(Number))


def _maps(run: Run, shown: Mapping[str, bytes]) -> Section:
    kind = "PHANTOM images" if run.phantom else "Images of patients: do not pass on"
    blocks: list[Block] = [Text(kind, strong=True), Text("Left the image, right its anomaly map.")]
    for name, png in shown.items():
        alt = f"Image {name} and its anomaly map"
        blocks.append(Image(f"{slug(run.name)}._map.{slug(name)}", png, alt))
    return Section(f"{run.title()}: anomaly maps", blocks, folded=True)


def _limits() -> Section:
    blocks: list[Block] = [Text(line) for line in LIMITS]
    words = "Where common checklists find their answers; what no program knows is said so"
    return Section(
        "Limits, and where checklists are answered",
        [*blocks, Table("crosswalk", crosswalk(), words, words=True)],
        folded=True,
    )


def stem(view: TaskView, *columns: str) -> str:
    """The start of the names of a view's files."""
    return slug(view.run.name, view.task, *columns)
