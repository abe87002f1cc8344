"""Several runs side by side: with and without DP, epsilons, seeds, mitigations."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.fairness import selection
from jaxfair.fairness.compare import MIN_SEEDS, private_against_plain
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.groups import OVERALL, natural
from jaxfair.files import slug
from jaxfair.report import plots
from jaxfair.report.alts import epsilon_alt, gap_alt
from jaxfair.report.cells import Number, cells, name, number
from jaxfair.report.content import Block, Plot, Section, Table, Text
from jaxfair.report.statement import of_number
from jaxfair.report.views import TaskView

__all__ = ["comparison"]


def comparison(views: Sequence[TaskView]) -> list[Section]:
    """Returns one section per task that more than one run has."""
    found = []
    for task in sorted({view.task for view in views}, key=natural):
        same = [view for view in views if view.task == task]
        if len(same) > 1:
            found.append(_task(task, same))
    return found


def _task(task: str, views: Sequence[TaskView]) -> Section:
    blocks: list[Block] = [
        Table(
            f"_comparison.{slug(task)}.auroc",
            _side_by_side(views),
            f"AUROC of {task} by group and run",
        ),
        Table(
            f"_comparison.{slug(task)}.gaps",
            _gaps(views),
            f"Max-min gaps of the AUROC of {task} by run",
        ),
    ]
    if len({view.run.epsilon for view in views}) > 1:
        words = epsilon_alt(_utility(views))
        blocks.append(
            Plot(f"_comparison.{slug(task)}.utility", plots.against_epsilon(_utility(views)), words)
        )
        words = gap_alt(_gap_points(views))
        blocks.append(
            Plot(
                f"_comparison.{slug(task)}.gap",
                plots.gap_against_epsilon(_gap_points(views)),
                words,
            )
        )
    blocks.extend(_losses(task, views))
    blocks.extend(_choice(task, views))
    return Section(f"Comparison of runs, {task}", blocks, folded=True)


def _label(view: TaskView) -> str:
    epsilon = view.run.epsilon
    return f"{view.run.name} ({'no DP' if epsilon is None else f'epsilon {of_number(epsilon)}'})"


def _short(epsilon: float) -> str:
    """8 and not 8.0; all digits where a short form would be another number."""
    text = f"{epsilon:g}"
    return text if float(text) == epsilon else repr(epsilon)


def _side_by_side(views: Sequence[TaskView]) -> pd.DataFrame:
    columns = {}
    for view in views:
        table = view.headline
        keys = table[["attribute", "group"]].itertuples(index=False, name=None)
        columns[_label(view)] = dict(zip(keys, cells(table, "auroc", interval=True), strict=True))
    shown = pd.DataFrame(columns).fillna("")
    shown.insert(0, "group", [name(a, g) for a, g in shown.index])
    return shown.reset_index(drop=True)


def _gaps(views: Sequence[TaskView]) -> pd.DataFrame:
    columns = {}
    for view in views:
        rows = view.shown_gaps().to_dict("records")
        columns[_label(view)] = {
            row["attribute"]: f"{row['max-min AUROC']} (chance {row['by chance alone: mean']},"
            f" p {row['p']})"
            for row in rows
        }
    return pd.DataFrame(columns).rename_axis("attribute").reset_index()


def _utility(views: Sequence[TaskView]) -> pd.DataFrame:
    """Columns epsilon, group, value, low, high; single attributes only."""
    parts = []
    for view in views:
        table = view.headline
        table = table[~table["attribute"].str.contains(" x ") & ~table["too_few"]]
        parts.append(
            pd.DataFrame(
                {
                    "epsilon": np.inf if view.run.epsilon is None else view.run.epsilon,
                    "attribute": table["attribute"],
                    "group": table["group"],
                    "value": table["auroc"],
                    "low": table["auroc_low"],
                    "high": table["auroc_high"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _gap_points(views: Sequence[TaskView]) -> pd.DataFrame:
    parts = [
        view.gaps.assign(epsilon=np.inf if view.run.epsilon is None else view.run.epsilon)
        for view in views
    ]
    return pd.concat(parts, ignore_index=True)


def _losses(task: str, views: Sequence[TaskView]) -> list[Block]:
    plain = [view for view in views if view.run.epsilon is None]
    blocks: list[Block] = []
    for epsilon in sorted({view.run.epsilon for view in views if view.run.epsilon is not None}):
        private = [view for view in views if view.run.epsilon == epsilon]
        if plain and private:
            blocks.extend(_loss(task, plain, private, epsilon))
    return blocks


def _loss(
    task: str, plain: Sequence[TaskView], private: Sequence[TaskView], epsilon: float
) -> list[Block]:
    attributes = [a for a in private[0].frames if " x " not in a]
    arms = [view.rows for view in plain], [view.rows for view in private]
    try:
        parts = [private_against_plain(*arms, attribute=a) for a in [OVERALL, *attributes]]
    except InputError as error:
        return [Text(f"Loss to privacy is not shown: {error}")]
    for part, attribute in zip(parts, [OVERALL, *attributes], strict=True):
        part.insert(0, "attribute", attribute)
    table = pd.concat(parts, ignore_index=True)
    table["too_few"] = [
        g in private[0].small(a) for a, g in table[["attribute", "group"]].to_numpy()
    ]
    table.loc[table["too_few"], table.columns[2:-1]] = np.nan
    seeds = f"{len(plain)} plain and {len(private)} private seeds"
    words = f"Plain minus private AUROC at epsilon {of_number(epsilon)}, {seeds}."
    if min(len(plain), len(private)) < MIN_SEEDS:
        words += (
            f" Below {MIN_SEEDS} seeds in each arm there is no interval: one training seed may be"
            " lucky, and test patients cannot tell."
        )
    return [
        Table(
            f"_comparison.{slug(task)}.loss_{_short(epsilon)}",
            _shown_loss(table),
            f"AUROC that privacy costs at epsilon {of_number(epsilon)}, {task}",
            words,
            data=table,
        )
    ]


def _shown_loss(table: pd.DataFrame) -> pd.DataFrame:
    renamed = table.rename(columns={"value": "loss", "ci_low": "loss_low", "ci_high": "loss_high"})
    return pd.DataFrame(
        {
            "group": [name(a, g) for a, g in table[["attribute", "group"]].to_numpy()],
            "plain": cells(renamed, "plain"),
            "private": cells(renamed, "private"),
            "lost": cells(renamed, "loss", interval=True),
            "lost more than the rest": cells(renamed, "disparity", interval=True, missing=""),
            "sd, test patients": cells(renamed, "sd_patients"),
            "sd, plain seeds": cells(renamed, "sd_plain_seed", missing="one seed"),
            "sd, private seeds": cells(renamed, "sd_private_seed", missing="one seed"),
        }
    )


def _all_hidden(rows: pd.DataFrame, attribute: str) -> bool:
    frame = GroupFrame(rows, attribute, split="validation")
    return set(frame.groups) == set(frame.hidden)


def _choice(task: str, views: Sequence[TaskView]) -> list[Block]:
    """Worst groups on validation, the Pareto front and the distance to the ideal."""
    attributes = [a for a in views[0].frames if " x " not in a]
    blocks: list[Block] = []
    for attribute in attributes:
        models = {}
        for view in views:
            rows = view.run.predictions
            models[view.run.name] = (rows[rows["task"] == task], view.run.epsilon)
        if any(_all_hidden(rows, attribute) for rows, _ in models.values()):
            continue
        table = selection.candidates(models, attribute)
        front = selection.pareto(table)
        shown = pd.DataFrame(
            {
                "model": table.index,
                "epsilon": ["no DP" if np.isinf(e) else of_number(e) for e in table["epsilon"]],
                "overall": [Number(v) for v in table["overall"]],
                "worst group": [
                    f"{number(v)} ({g})"
                    for v, g in zip(table["worst"], table["worst_group"], strict=True)
                ],
                "on the front": ["yes" if m in front else "" for m in table.index],
                "distance to ideal": [Number(v) for v in selection.distance_to_ideal(table)],
            }
        )
        words = (
            f"Choice by {attribute} on validation: the front holds what no other run beats in"
            f" overall, worst group and epsilon together; best worst group:"
            f" {selection.minimax(table)}. Choosing by validation patients is not covered by the"
            " guarantee."
        )
        title = f"Choice of a run by {attribute}, {task}"
        blocks.append(Table(f"_choice.{slug(task, attribute)}", shown, title, words))
    return blocks
