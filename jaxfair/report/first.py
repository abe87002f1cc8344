"""The first page: what the guarantee covers, three questions, and every comparable group."""

from collections.abc import Sequence

from jaxfair.report.answers import answers_of, side_by_side
from jaxfair.report.before_after import Compared
from jaxfair.report.bought import bought
from jaxfair.report.cells import listed
from jaxfair.report.content import Answers, Block, Section, Text
from jaxfair.report.forest import forest_plots
from jaxfair.report.mitigated import cost_lines
from jaxfair.report.single import Run
from jaxfair.report.statement import costs, phantom_lines
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
    blocks += [Text(line) for line in _further(runs)]
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
    """What each run's guarantee covers, and what not."""
    loud = set(_phantom(runs))
    said = [[line for line in run.opening() if line not in loud] for run in runs]
    return _together(runs, said)


def _further(runs: Sequence[Run]) -> list[str]:
    """What the model is, and what its epsilon was spent on beside the gradients."""
    said = []
    for run in runs:
        claim = run.privacy or {}
        note = [str(run.model["note"])] if "note" in run.model else []
        said.append([*costs(claim), *cost_lines(claim, run.model), *note])
    return _together(runs, said)


def _together(runs: Sequence[Run], said: Sequence[Sequence[str]]) -> list[str]:
    """Lines that several runs say, once; those of all runs last."""
    by_line: dict[str, list[str]] = {}
    for run, lines in zip(runs, said, strict=True):
        for line in lines:
            by_line.setdefault(line, []).append(run.name)
    told = sorted(by_line.items(), key=lambda item: len(item[1]) == len(runs))
    return [line if len(names) == len(runs) else f"{listed(names)}: {line}" for line, names in told]
