"""Who trains: mitigations that compose the training set and leave the Method as it is.

They are carried out by `data.composing`. Shares, lists and parts are public constants; of a run
that counts patients instead, `selection: coupled` says so.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxfair.errors import InputError
from jaxfair.methods.base import Method
from jaxfair.methods.mitigations.groups import Grouped, check_shares

__all__ = [
    "Balance",
    "Composition",
    "CoreSet",
    "DataSize",
    "balance",
    "balanced_by",
    "choose",
    "chosen_by",
    "compose",
    "composed_by",
    "shrink_data",
    "shrunk_by",
]

Sections = Mapping[str, Mapping[str, Any]]
Changes = dict[str, dict[str, Any]]

CHOSEN_ON = {
    "public": "",
    "test": "chosen by scores on the test set, it makes every score of the run optimistic",
    "validation": "chosen by scores on validation patients, it is a release about them that no "
    "ledger holds",
    "training": "chosen by models of the same patients, it is a function of them without noise, "
    "and no epsilon holds for anybody",
}
"""On what a list of ids was chosen, and why it is refused; "" for what is not."""


@dataclasses.dataclass(frozen=True)
class Composition(Grouped):
    """Patients of each group train with a public probability, by a hash of their id.

    Attributes:
      keep: a probability in [0, 1] for each group, in their order; smaller ones keep a part of who
        larger ones keep, so that compositions are nested. The unknown stay.

    Raises InputError for other numbers.
    """

    keep: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keep", tuple(self.keep))
        chances = all(isinstance(q, int | float) and 0 <= q <= 1 for q in self.keep)
        if len(self.keep) != self.groups or not chances or not any(self.keep):
            raise InputError(
                f"mitigation.keep is {self.keep}; give each of the {self.groups} groups by "
                f"{' and '.join(self.by)} a probability in [0, 1], not all of them 0."
            )


def compose(config: Composition, method: Method) -> Method:
    """Returns `method` as it is; `composed_by` says who trains.

    Guarantee: whether a patient trains follows from his own id and group and from public constants,
    so adding or removing one changes nobody else's place (protocol P4, P15), and each who trains
    moves a sum by at most C as before. Cost: no epsilon; fewer patients, whose `data.public_size`
    (of those who stay) makes the rate of the draws and so the noise.
    """
    return method


def composed_by(config: Composition, sections: Sections) -> Changes:
    """The fields of the section data by which a composition is carried out."""
    return {"data": {"keep_by": config.by, "keep": config.keep}}


@dataclasses.dataclass(frozen=True)
class Balance(Grouped):
    """All groups train with as many patients: larger ones are thinned by a hash of the id.

    Attributes:
      shares: the declared share of each group among training patients, adding up to 1; public
        constants. Group g stays with probability min(shares) / shares[g].
      counted: count the patients instead, exactly; then the guarantee is for the selected table
        only (`selection: coupled`), and `shares` is left out.

    Raises InputError for other numbers, and where neither or both are given.
    """

    shares: tuple[float, ...] = ()
    counted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.shares) == self.counted:
            raise InputError(
                "The mitigation 'balance' needs mitigation.shares, the declared share of each "
                "group, or mitigation.counted=True, which counts patients and weakens the "
                "guarantee; give one of the two."
            )
        if not self.counted:
            shares = check_shares(self.shares, self.groups, f"groups by {' and '.join(self.by)}")
            object.__setattr__(self, "shares", shares)


def balance(config: Balance, method: Method) -> Method:
    """Returns `method` as it is; `balanced_by` says who trains.

    Guarantee: with `shares`, who trains follows from each one's own id and group and from public
    constants, as in `compose`. With `counted` patients decide over each other's place, and the
    statement says `selection: coupled`. Cost: no epsilon; fewer patients.
    """
    return method


def balanced_by(config: Balance, sections: Sections) -> Changes:
    """The fields of the section data by which groups are balanced."""
    if config.counted:
        return {"data": {"keep_by": config.by, "keep_balanced": True}}
    keep = tuple(min(config.shares) / share for share in config.shares)
    return {"data": {"keep_by": config.by, "keep": keep}}


@dataclasses.dataclass(frozen=True)
class DataSize:
    """A public part of the patients trains, by a hash of their id.

    Attributes:
      portion: of all patients, in (0, 1]; smaller ones keep a part of who larger ones keep.

    Raises InputError for a value outside these.
    """

    portion: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.portion <= 1:
            raise InputError(f"mitigation.portion is {self.portion}; it must be in (0, 1].")


def shrink_data(config: DataSize, method: Method) -> Method:
    """Returns `method` as it is; `shrunk_by` says who trains.

    Guarantee: whether a patient trains follows from his own id and a public constant. The choice
    is public, and so amplifies nothing: the rate of the draws is that of who stays. Cost: no
    epsilon; fewer patients, which is more noise at the same epsilon. It is a control, no remedy.
    """
    return method


def shrunk_by(config: DataSize, sections: Sections) -> Changes:
    """The field of the section data by which a part is chosen."""
    return {"data": {"keep_portion": config.portion}}


@dataclasses.dataclass(frozen=True)
class CoreSet:
    """A core set trains: a public list, or what images are by themselves.

    Attributes:
      ids: file of patients or images, one id a line; "" for no list.
      chosen_on: on what that list was chosen: only "public", on data and rules that owe nothing to
        this population's patients, is accepted.
      where: what an image must be itself, as ("view=PA", "sex=F"); several values of one attribute
        are alternatives.

    Raises InputError for a list that was chosen on patients here, with the reason.
    """

    ids: str = ""
    chosen_on: str = ""
    where: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = (self.where,) if isinstance(self.where, str) else tuple(self.where)
        object.__setattr__(self, "where", where)
        if not self.ids and not where:
            raise InputError(
                "The mitigation 'core_set' needs mitigation.ids, a public list, or "
                "mitigation.where, what images are by themselves, as ('view=PA',)."
            )
        if not self.ids:
            return
        if self.chosen_on not in CHOSEN_ON:
            raise InputError(
                f"mitigation.chosen_on is {self.chosen_on!r}; say on what the list of "
                f"mitigation.ids was chosen: {', '.join(CHOSEN_ON)} (only 'public' is accepted)."
            )
        if CHOSEN_ON[self.chosen_on]:
            raise InputError(
                f"mitigation.chosen_on is {self.chosen_on!r}, and such a core set is refused: "
                f"{CHOSEN_ON[self.chosen_on]}; use a public list, or mitigation.where."
            )


def choose(config: CoreSet, method: Method) -> Method:
    """Returns `method` as it is; `chosen_by` says who trains.

    Guarantee: a list that owes nothing to these patients is a public constant, and whether an image
    is on it, or is of the kind that is asked for, follows from its own id and attributes. A list of
    those who did best in earlier trainings on the same patients is a function of all of them, and
    is refused; ranking couples, whatever it ranks by. Cost: no epsilon; far fewer patients, which
    is far more noise at the same epsilon.
    """
    return method


def chosen_by(config: CoreSet, sections: Sections) -> Changes:
    """The fields of the section data by which a core set is chosen."""
    return {"data": {"keep_ids": config.ids or None, "keep_where": config.where}}
