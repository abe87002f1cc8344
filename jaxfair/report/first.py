"""The first page: what the guarantee covers, three questions, and every comparable group."""

from collections.abc import Sequence

from jaxfair.report.answers import answers_of, side_by_side
from jaxfair.report.before_after import Compared
from jaxfair.report.bought import bought
from jaxfair.report.cells import listed
from jaxfair.report.content import Answers, Block, Section, Text
from jaxfair.report.forest import forest_plots
from jaxfair.report.single import Run
from jaxfair.report.statement import phantom_lines
from jaxfair.report.views import TaskView

__all__ = ["first_page"]


def first_page(
    runs: Sequence[Run], views: Sequence[Sequence[TaskView]], found: Sequence[Compared]
) -> Section:
    """Returns the section that a report begins with.

    Args:
      runs: of the report.
      views: the labels of each run.
      found: labels of several runs side by side.
    """
    blocks: list[Block] = [Text(line, loud=True) for line in _phantom(runs)]
    blocks += [Text(line) for line in _opening(runs)]
    blocks += bought(found)
    asked = [answers_of(run, own) for run, own in zip(runs, views, strict=True)]
    blocks.append(Answers(asked[0] if len(runs) == 1 else side_by_side(runs, asked)))
    labels = {view.task for own in views for view in own}
    if len(labels) == 1:
        blocks += forest_plots([view for own in views for view in own])
    title = f"Fairness report: {', '.join(run.name for run in runs)}"
    phantom = any(run.phantom for run in runs)
    return Section(f"PHANTOM data. {title}" if phantom else title, blocks)


def _phantom(runs: Sequence[Run]) -> list[str]:
    """Said once for all runs."""
    lines = [line for run in runs for line in phantom_lines(run.privacy, run.phantom)]
    return list(dict.fromkeys(lines))


def _opening(runs: Sequence[Run]) -> list[str]:
    """What each run's guarantee covers, and what not; runs that say the same, together."""
    said: dict[str, list[str]] = {}
    for run in runs:
        loud = phantom_lines(run.privacy, run.phantom)
        for line in run.opening():
            if line not in loud:
                said.setdefault(line, []).append(run.name)
    return [
        line if len(names) == len(runs) else f"{listed(names)}: {line}"
        for line, names in said.items()
    ]
