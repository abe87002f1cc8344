"""The arms of the study: every mitigation that there is, each with as many settings as any other.

The table of mitigations is read when the study runs, so one that is new appears by itself: with its
defaults, and with its first number smaller and larger. Where a mitigation asks for public constants
of groups it gets those that the data set declares. What cannot be had is a row with its reason.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.gaps.sets import Groups, Source
from experiments.gaps.trainings import DETECTORS, SUMS, budget_of, config_of, tried_of
from jaxfair.config import method_from_settings, settings_from_config
from jaxfair.errors import InputError
from jaxfair.methods.mitigations.catalog import MITIGATIONS, own_rates

__all__ = ["BASE", "CONTROL", "SCALED", "Arm", "arms_of", "plain_arm", "settings_of"]

BASE, CONTROL = "plain", "control"
"""DP-SGD without a mitigation, and the positive control: half of the planted gap gone."""

SCALED = ("one_scale", "scores of each group on one scale, after training, from validation images")
"""Name and title of a row that trains nothing: plain DP-SGD's scores by `fairness.normal_scores`.
It costs nobody who trained any epsilon, reads validation patients, whom no guarantee covers, and
needs the group at test time. A group's own AUROC stays, so the row is in no family of tests."""

Section = Mapping[str, Any]


class Arm(NamedTuple):
    """A way of training.

    Attributes:
      name: of its folders and rows.
      title: a line for readers.
      mitigation: each setting's section `mitigation`; None for none.
      changes: each setting's flat fields, the last word.
    """

    name: str
    title: str
    mitigation: tuple[Section | None, ...]
    changes: tuple[Section, ...]


def arms_of(source: Source, method: str, size: str) -> tuple[list[Arm], list[str]]:
    """Returns the arms of a Method on a source, and why others are left out.

    Args:
      source: the data.
      method: key of METHODS.
      size: of the study.

    Whatever settings a mitigation refuses are replaced by learning rates, so that budgets stay
    equal; one whose every setting is refused is left out.
    """
    rates = tried_of(method)
    budget = budget_of(method, size)
    nothing = (None,) * budget
    arms = [plain_arm(method, size)]
    if source.planted:
        halved = tuple({**dict(source.planted), **own} for own in rates[:budget])
        title = "positive control: half of the planted gap gone at the source"
        arms.append(Arm(CONTROL, title, nothing, halved))
    left_out = []
    for name in MITIGATIONS:
        arm: Arm | str = _why_not(name, method, size)
        if not arm:
            arm = _arm(name, source, method, size, rates)
        if isinstance(arm, Arm):
            arms.append(arm)
        else:
            left_out.append(f"{name}: {arm}")
    return arms, left_out


def plain_arm(method: str, size: str) -> Arm:
    """Returns a Method alone, with as many settings as any arm."""
    budget = budget_of(method, size)
    title = "DP-SGD without a mitigation" if method not in SUMS else "noisy sums, without SGD"
    return Arm(BASE, title, (None,) * budget, tried_of(method)[:budget])


def settings_of(name: str, source: Source) -> list[tuple[Section, Section]]:
    """Returns what is tried of a mitigation: its fields, and flat fields beside them."""
    groups = source.groups
    fields = {field.name for field in dataclasses.fields(MITIGATIONS[name].config)}
    by = {"by": (groups.by,)} if "by" in fields else {}
    tried = KNOWN[name](groups) if name in KNOWN else _defaults(MITIGATIONS[name].config)
    size = int(source.section["public_size"])
    return [({**by, **own}, _whom(name, own, groups, size)) for own in tried]


def _why_not(name: str, method: str, size: str) -> str:
    """Why a mitigation that has a config is not compared; "" where it is."""
    if name == "balanced_head" and method in DETECTORS:
        return "no label trains, so there are no cells of label and group"
    if name == "model_size" and method == "classifier":
        return "it would put a network in the place of fixed features, which is another study"
    if name == "model_size" and method == "fae" and size != "full":
        return (
            "the network of this size is the small one already; --full compares it with the large"
        )
    return ""


def _arm(name: str, source: Source, method: str, size: str, rates: Sequence[Section]) -> Arm | str:
    """The arm, or the sentence with which its last setting was refused."""
    fitting: list[tuple[Section, Section]] = []
    budget = budget_of(method, size)
    reason = ""
    candidates = settings_of(name, source)
    for fields, beside in (*candidates, *_with_rates(candidates, rates)):
        if len(fitting) == budget:
            break
        mitigation = {"name": name, **fields}
        refused = _refusal(source, method, size, mitigation, beside)
        reason = reason or refused
        if not refused:
            fitting.append((mitigation, beside))
    if len(fitting) < budget:
        return reason
    title = MITIGATIONS[name].config.__doc__.splitlines()[0].rstrip(".")
    return Arm(name, title, *map(tuple, zip(*fitting, strict=True)))


def _with_rates(
    candidates: Sequence[tuple[Section, Section]], rates: Sequence[Section]
) -> Iterator[tuple[Section, Section]]:
    """The same settings once more, at other learning rates."""
    for own in rates[1:]:
        for fields, beside in candidates:
            yield fields, {**beside, **own}


def _refusal(source: Source, method: str, size: str, mitigation: Section, changes: Section) -> str:
    """Why a private run with this mitigation has no config; "" where it has one."""
    try:
        config = config_of(
            "check", method, source.section, epsilon=8.0, seed=1, size=size,
            mitigation=mitigation, changes=changes,
        )  # fmt: skip
        settings = settings_from_config(config)
        method_from_settings(settings)
        rate = settings.train.expected_batch_size / settings.data.public_size
        own_rates(settings.mitigation_name, settings.mitigation, rate)
    except InputError as error:
        return str(error)
    return ""


def _defaults(config: Any) -> list[dict[str, Any]]:
    """Defaults, and the first number of its own smaller and larger."""
    own = [f for f in dataclasses.fields(config) if isinstance(f.default, float)]
    if not own:
        return [{}]
    name, value = own[0].name, own[0].default
    if 0 < value < 1:
        return [{}, {name: value / 2}, {name: (1 + value) / 2}]
    return [{}, {name: value / 3}, {name: value * 3}]


def _weights(groups: Groups, power: float) -> tuple[float, ...]:
    """The rarer the group, the larger its weight; by the declared shares the mean is 1."""
    raw = [(1 / share) ** power for share in groups.shares]
    mean = sum(share * w for share, w in zip(groups.shares, raw, strict=True))
    return tuple(round(w / mean, 4) for w in raw)


def _keep(groups: Groups, power: float) -> tuple[float, ...]:
    least = min(groups.shares)
    return tuple(round((least / share) ** power, 4) for share in groups.shares)


def _powers(field: str, make: Callable[[Groups, float], Any]) -> Callable[[Groups], list[dict]]:
    return lambda groups: [{field: make(groups, power)} for power in (1.0, 0.5, 1.5)]


def _over(share: Sequence[float], **fixed: Callable[[Groups], Any]) -> Callable[[Groups], list]:
    return lambda groups: [
        {**{name: of(groups) for name, of in fixed.items()}, "share": part} for part in share
    ]


AFTER = {"after_clip": True}
"""Weights of a loss do nothing where its gradient is clipped anyway; both forms are tried."""

KNOWN: dict[str, Callable[[Groups], list[dict[str, Any]]]] = {
    "group_weights": _powers("weights", _weights),
    "weights_after_clip": _powers("weights", _weights),
    "upsampling": _powers("factors", _weights),
    "composition": _powers("keep", _keep),
    "balance": lambda groups: [{"shares": groups.shares}],
    "balanced_head": _over((0.25, 0.1, 0.5), shares=lambda groups: groups.cells),
    "fine_tune": _over((0.25, 0.1, 0.5), chosen=lambda groups: (groups.least,)),
    "core_set": lambda groups: [
        {"where": (f"{groups.by}={groups.values[groups.least]}",)}, {"where": (groups.core,)},
    ],
    "noisy_counts": lambda groups: [{}, AFTER, {**AFTER, "most": 5.0}],
    "group_dro": lambda groups: [{}, AFTER, {**AFTER, "rate": 0.03}],
    "data_size": lambda groups: [{"portion": part} for part in (0.5, 0.25, 0.75)],
}  # fmt: skip
"""Mitigations that ask for constants of groups, or have two forms -> what is tried."""

_STAYING: dict[str, Callable[[Section, Groups], float]] = {
    "composition": lambda own, g: sum(s * k for s, k in zip(g.shares, own["keep"], strict=True)),
    "balance": lambda own, g: min(g.shares) * len(g.shares),
    "core_set": lambda own, g: g.shares[g.least],
    "data_size": lambda own, g: own["portion"],
}
"""Mitigations of who trains -> the declared part of the patients that stays."""


def _whom(name: str, own: Section, groups: Groups, size: int) -> dict[str, Any]:
    """The declared number of who stays, where a mitigation thins the patients."""
    if name not in _STAYING:
        return {}
    staying = max(30, round(size * _STAYING[name](own, groups)))
    return {"data.public_size": staying}
