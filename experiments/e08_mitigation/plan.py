"""What is run: parts, arms, seeds, and which setting of an arm validation prefers."""

import itertools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.arms.study import preferred
from experiments.e08_mitigation.arms import BASE, CONTROL, Arm, arms_of, plain_arm
from experiments.gaps.levels import compared
from experiments.gaps.runs import Run, kept_of, predictions
from experiments.gaps.sets import Source, drawn_films, drawn_findings, hospital, lesions
from experiments.gaps.trainings import config_of, detectors
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.metrics import auroc

__all__ = ["Part", "Plan", "chosen", "make", "runs_of", "tried"]

SEEDS = {"quick": (1,), "default": (1, 2, 3, 4, 5), "full": (1, 2, 3, 4, 5)}
EPSILONS = {"quick": (8.0,), "default": (math.inf, 8.0, 1.0), "full": (math.inf, 8.0, 1.0)}
COMPARED = 8.0
"""In the default size, for the sake of time, mitigations are compared at this epsilon alone; at the
others a Method is trained plainly and with the positive control."""

UNPADDED = {"dp.padded_draws": False}
"""A padded draw takes more than twice the work for the same sum. It hides the size of a draw from
who watches the clock; the images here are drawn or public."""


class Part(NamedTuple):
    """One Method on one source, in all arms.

    Attributes:
      source: the data.
      method: key of METHODS.
      arms: what is compared; without a mitigation where the Method is beside the first detector.
      left_out: mitigations that have no private config here, with the reason.
      epsilons, seeds: every pair of them for each arm that it `trains`.
      size: of the study.
    """

    source: Source
    method: str
    arms: tuple[Arm, ...]
    left_out: tuple[str, ...]
    epsilons: Sequence[float]
    seeds: Sequence[int]
    size: str

    def trains(self, arm: Arm, epsilon: float) -> bool:
        """Returns whether an arm is trained at an epsilon."""
        everything = self.size != "default" or epsilon == COMPARED
        return everything or arm.name in (BASE, CONTROL)


class Plan(NamedTuple):
    """The whole study: parts, and sources that are not at hand with the reason."""

    parts: tuple[Part, ...]
    missing: tuple[str, ...]


def make(size: str, root: str | None = None) -> Plan:
    """Returns the study of a size."""
    films = drawn_films(size, root)
    wanted = [(films, name) for name in detectors()]
    others = (drawn_findings(size), lesions(size), hospital(size))
    wanted += [(source, "linear_probe" if source.describes else "classifier") for source in others]
    wanted += [(lesions(size), "linear_probe")] if size != "quick" else []
    missing = [f"{source.title}: {source.missing}" for source in others if source.missing]
    parts = [_part(source, method, size) for source, method in wanted if not source.missing]
    return Plan(tuple(parts), tuple(missing))


def runs_of(part: Part, arm: Arm, epsilon: float, settings: Sequence[int]) -> Iterator[Run]:
    """Yields the runs of some settings of an arm: of the first seed, or of all where it is one."""
    seeds = part.seeds[: None if len(settings) == 1 else 1]
    for seed, setting in itertools.product(seeds, settings):
        config = config_of(
            "e08_mitigation", part.method, part.source.section, epsilon=epsilon, seed=seed,
            size=part.size, mitigation=arm.mitigation[setting],
            changes={**arm.changes[setting], **UNPADDED}, tried=len(arm.changes),
        )  # fmt: skip
        yield Run(part.source.name, part.method, arm.name, setting, epsilon, 1, seed, config)


def tried(part: Part, arm: Arm, epsilon: float) -> list[Run]:
    """Returns every setting of an arm with the first seed; none of an arm that is not trained."""
    settings = range(len(arm.changes)) if part.trains(arm, epsilon) else ()
    return list(runs_of(part, arm, epsilon, settings))


def chosen(out: pathlib.Path, part: Part, arm: Arm, epsilon: float) -> list[Run]:
    """Returns the runs of the setting that validation prefers; none where none was trained.

    Among the settings whose AUROC is within `arms.study.WITHIN` of the best, that with the smallest
    gap, as everywhere in these studies.
    """
    done = [run for run in tried(part, arm, epsilon) if kept_of(out, run).done]
    if not done:
        return []
    place = preferred([_on_validation(out, part, run) for run in done]) if len(done) > 1 else 0
    return list(runs_of(part, arm, epsilon, [done[place].setting]))


def _on_validation(out: pathlib.Path, part: Part, run: Run) -> tuple[float, float]:
    """AUROC, and the largest gap between groups that can be compared; NaN where none can."""
    table = predictions(out, run, "validation")
    table = table[table["task"] == part.source.task].reset_index(drop=True)
    labels = group_labels(table, part.source.attribute)
    value = lambda rows: auroc(rows["y_true"], rows["y_score"])
    each = [value(table[labels == group]) for group in compared(table, labels)]
    return float(np.nan_to_num(value(table))), float(np.ptp(each)) if len(each) > 1 else np.nan


def _part(source: Source, method: str, size: str) -> Part:
    if method in detectors()[1:]:  # other detectors are arms themselves
        arms, left_out = [plain_arm(method, size)], []
    else:
        arms, left_out = arms_of(source, method, size)
    epsilons: Sequence[float] = EPSILONS[size]
    if source.describes:
        epsilons = (math.inf, 8.0)
    seeds = SEEDS[size][:1] if source.describes else SEEDS[size]
    return Part(source, method, tuple(arms), tuple(left_out), epsilons, seeds, size)
