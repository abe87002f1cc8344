"""Arms of a study, and the cells of its grid: one run each.

An arm is a way of training, as sections of a config; a cell is an arm at one epsilon, fold and
seed. Every arm has as many settings to choose among as any other: the search is part of the study.
"""

import itertools
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxfair.experiment import experiment

__all__ = ["NOTHING", "PLAIN", "Arm", "Cell", "Data", "Grid", "config_of"]

PLAIN = math.inf
Section = Mapping[str, Any]
NOTHING: Section = types.MappingProxyType({})


class Arm(NamedTuple):
    """A way of training.

    Attributes:
      name: of its folders, without "_".
      title: of its row in tables.
      method: the section `method`, with its name.
      mitigation: the section `mitigation`, with its name; {} for none.
      optim: what differs in the section `optim`.
      when_private: fields of `method` that differ in a private run, whatever setting is tried.
      private: "" where it trains at an epsilon, else why it does not.
      skip: part of a study -> why it does not train there.
      needs: what the model asks of a patient beside the image when it is used; "" for nothing.
      published: its name in the published tables; "" where they have no such row.
      settings: what is tried on the validation of the first fold: each a field of a section, as
        {"method.weight": 0.1}; equally many for every arm.
    """

    name: str
    title: str
    method: Section
    mitigation: Section = NOTHING
    optim: Section = NOTHING
    when_private: Section = NOTHING
    private: str = ""
    skip: Mapping[str, str] = NOTHING
    needs: str = ""
    published: str = ""
    settings: tuple[Section, ...] = (NOTHING,)


class Data(NamedTuple):
    """What the arms are trained on.

    Attributes:
      name: of its folder.
      title: for readers; where the images are drawn it says PHANTOM.
      section: the section `data` of a config.
      attributes: whose groups are compared, columns or intersections; settings are chosen by the
        first.
      task: the label that is told.
      independent: fields of `data` of a test set in which attribute and label are independent;
        {} where there is none.
      differs: a sentence on how it differs from the published data.
      missing: why it cannot be had here; "" where it can.
    """

    name: str
    title: str
    section: Section
    attributes: tuple[str, ...]
    task: str
    independent: Section = NOTHING
    differs: str = ""
    missing: str = ""


class Cell(NamedTuple):
    """One run."""

    arm: str
    epsilon: float
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """The run's folder: arm-erm_epsilon-8_fold-0_seed-1."""
        return f"arm-{self.arm}_epsilon-{self.epsilon:g}_fold-{self.fold}_seed-{self.seed}"

    @classmethod
    def named(cls, name: str) -> "Cell":
        """Returns the cell of a folder's name."""
        arm, epsilon, fold, seed = (part.split("-", 1)[1] for part in name.split("_"))
        return cls(arm, float(epsilon), int(fold), int(seed))


class Grid(NamedTuple):
    """What is trained of each arm.

    Attributes:
      epsilons: PLAIN is without privacy.
      folds, seeds: every pair of them.
    """

    epsilons: Sequence[float]
    folds: Sequence[int]
    seeds: Sequence[int]

    def cells(self, arms: Iterable[Arm]) -> list[Cell]:
        """Returns the runs, whole seeds first: what is there after a part is a smaller study."""
        order = itertools.product(self.seeds, self.folds, self.epsilons, arms)
        return [
            Cell(arm.name, epsilon, fold, seed)
            for seed, fold, epsilon, arm in order
            if epsilon == PLAIN or not arm.private
        ]


def config_of(
    cell: Cell, arm: Arm, data: Section, training: Mapping[str, Section], chosen: Section
) -> ConfigDict:
    """Returns the config of one run; `dp.tuning_runs` is the number of the arm's settings.

    Args:
      data: the section `data`, which has a rule with folds.
      training: sections optim, dp and train that all arms share.
      chosen: of the arm's settings, the one that the search took.
    """
    private = math.isfinite(cell.epsilon)
    dp = {**training["dp"], "enabled": private, "tuning_runs": len(arm.settings)}
    config = experiment(
        arm.name,
        data={**data, "fold": cell.fold},
        method={**arm.method, **(arm.when_private if private else {})},
        optim={**training["optim"], **arm.optim},
        dp={**dp, **({"epsilon": cell.epsilon} if private else {})},
        train=training["train"],
        mitigation=arm.mitigation or None,
    )
    config.seed = cell.seed
    fixed = {f"method.{name}" for name in arm.when_private} if private else set()
    config.update_from_flattened_dict({k: v for k, v in chosen.items() if k not in fixed})
    return config
