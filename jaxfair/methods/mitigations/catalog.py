"""Mitigations by name: functions Method -> Method that serve groups more evenly.

A new one is a file beside this one and a line in MITIGATIONS. Each states its guarantee, why the
private step's bound holds with it or why it does not, and what it costs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Method
from jaxfair.methods.mitigations.clips import (
    BoundedClip,
    GlobalClip,
    GroupClip,
    NormalisedClip,
    QuantileClip,
    SoftClip,
    WeightsAfterClip,
    same_method,
)
from jaxfair.methods.mitigations.dro import GroupDRO, worst_group
from jaxfair.methods.mitigations.head import BalancedHead, retrain_head
from jaxfair.methods.mitigations.jtt import TrainTwice, train_twice
from jaxfair.methods.mitigations.norms import GroupNorms, norms_by_group
from jaxfair.methods.mitigations.weights import GroupWeights, weigh_groups
from jaxfair.privacy.cliprules.base import ClipRule

__all__ = [
    "MITIGATIONS",
    "PRIVACY",
    "Mitigation",
    "check_private",
    "clip_rule",
    "described",
    "mitigated",
    "own_parts",
]

PRIVACY = {
    "fits": "fits privacy as it is",
    "pays": "fits privacy and pays for a side query in each step",
    "needs_query": "needs an accounted query, and is refused under privacy",
    "not_separable": "has no loss of one example, and is refused under privacy",
}
"""How a mitigation may stand to privacy."""


class Mitigation(NamedTuple):
    """What the house knows of a mitigation.

    Attributes:
      config: its frozen config class, `config.mitigation` of a config file.
      apply: `(config, Method) -> Method`.
      privacy: one of PRIVACY.
      why: the reason, in words that end a sentence.
      parts: `(config) -> {part: changes}` of `optim.parts`, an optimiser that its parameters need;
        None for none.
      reads_group: whether the model reads an image's group when it scores it.
      clip: `(config) -> ClipRule`, how the private step scales gradients; None for the ordinary
        clip.
    """

    config: Any
    apply: Callable[[Any, Method], Method]
    privacy: str
    why: str
    parts: Callable[[Any], dict[str, dict[str, Any]]] | None = None
    reads_group: bool = False
    clip: Callable[[Any], ClipRule] | None = None

    @property
    def standing(self) -> str:
        """How it stands to privacy, as a sentence."""
        return f"It {PRIVACY[self.privacy]}: {self.why}."


MITIGATIONS: dict[str, Mitigation] = {
    "group_weights": Mitigation(
        GroupWeights,
        weigh_groups,
        "fits",
        "the weight is a public constant that follows from the example alone, before the clip",
    ),
    "group_norms": Mitigation(
        GroupNorms,
        norms_by_group,
        "fits",
        "an example's own group says which norms it trains, and all are clipped as one gradient",
        reads_group=True,
    ),
    "group_dro": Mitigation(
        GroupDRO,
        worst_group,
        "needs_query",
        "groups are weighed by their losses in the batch, which under privacy would be a query of "
        "every patient's loss, clipped to a public bound, within each step's one noisy release "
        "(protocol P9)",
        parts=lambda config: config.parts,
    ),
    "jtt": Mitigation(
        TrainTwice,
        train_twice,
        "fits",
        "the weight follows from the example itself and from parameters that were released before",
    ),
    "balanced_head": Mitigation(
        BalancedHead,
        retrain_head,
        "fits",
        "the weight is a public constant of the example's own label and group, and the frozen rest "
        "was released before",
    ),
    "quantile_clip": Mitigation(
        QuantileClip,
        same_method,
        "pays",
        "the clip follows a noisy share of units within it, for those whom a clip that is too low "
        "would cut; a part query_share of each draw's budget is spent on it",
        clip=QuantileClip.rule,
    ),
    "bounded_clip": Mitigation(
        BoundedClip,
        same_method,
        "pays",
        "the clip follows a noisy share of units within it and stays above a bound, for groups "
        "that still learn when others have learnt; a part query_share of each draw's budget",
        clip=BoundedClip.rule,
    ),
    "soft_clip": Mitigation(
        SoftClip,
        same_method,
        "pays",
        "gradients above the clip keep their order, for those whose gradients are largest; a part "
        "query_share of each draw's budget",
        clip=SoftClip.rule,
    ),
    "global_clip": Mitigation(
        GlobalClip,
        same_method,
        "pays",
        "gradients shrink alike, so that the sum keeps its course for groups with large ones; a "
        "part query_share of each draw's budget, and slower learning",
        clip=GlobalClip.rule,
    ),
    "group_clip": Mitigation(
        GroupClip,
        same_method,
        "pays",
        "a group of whom more gradients are clipped gets a larger clip; a part query_share of each "
        "draw's budget, and noise in proportion to the largest clip of all groups",
        clip=GroupClip.rule,
    ),
    "normalised_clip": Mitigation(
        NormalisedClip,
        same_method,
        "fits",
        "every unit weighs nearly the same whatever its gradient, and its norm stays below the "
        "clip; no epsilon",
        clip=NormalisedClip.rule,
    ),
    "weights_after_clip": Mitigation(
        WeightsAfterClip,
        same_method,
        "fits",
        "the public weight of the example's own group comes after the clip, and the noise is that "
        "of the largest weight; no epsilon",
        clip=WeightsAfterClip.rule,
    ),
}


def mitigated(name: str, config: Any, method: Method) -> Method:
    """Returns `method` under the mitigation `name`; raises InputError for an unknown name."""
    return _entry(name).apply(config, method)


def described(name: str, config: Any, told: dict[str, Any]) -> dict[str, Any]:
    """Returns what a report must say of a model, with its mitigation.

    Args:
      told: what the Method says of itself (`describe`), a `note` among it. `needs`, of what the
        model reads at test time beside the image, grows by the attributes that it reads now.
    """
    entry = _entry(name)
    found = told | {
        "mitigation": name,
        "note": f"{told['note']} Trained with the mitigation {name!r}. {entry.standing}",
    }
    if entry.reads_group:
        found["needs"] = list(dict.fromkeys([*told.get("needs", ()), *config.by]))
    return found


def own_parts(name: str, config: Any) -> dict[str, dict[str, Any]]:
    """Returns the `optim.parts` that a mitigation needs for parameters of its own; {} for none."""
    parts = _entry(name).parts if name else None
    return {} if parts is None else parts(config)


def clip_rule(name: str, config: Any) -> ClipRule | None:
    """Returns the clip rule of a mitigation, which the plan prices; None for the ordinary clip.

    Args:
      name: a key of MITIGATIONS, or "" for none.
    """
    clip = _entry(name).clip if name else None
    return None if clip is None else clip(config)


def check_private(name: str) -> None:
    """Raises InputError, with the reason, for a mitigation that no private run can have.

    Args:
      name: a key of MITIGATIONS, or "" for none.
    """
    entry = _entry(name) if name else None
    if entry is not None and entry.privacy not in ("fits", "pays"):
        raise InputError(
            f"The mitigation {name!r} {PRIVACY[entry.privacy]}: {entry.why}; train it with "
            "dp.enabled=False, or choose one that fits: "
            f"{', '.join(n for n, e in MITIGATIONS.items() if e.privacy in ('fits', 'pays'))}."
        )


def _entry(name: str) -> Mitigation:
    if name not in MITIGATIONS:
        known = ", ".join(MITIGATIONS)
        raise InputError(
            f"There is no mitigation {name!r}; known are {known}.{nearest(name, MITIGATIONS)}"
        )
    return MITIGATIONS[name]
