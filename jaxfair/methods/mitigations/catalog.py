"""Mitigations by name: functions Method -> Method that serve groups more evenly.

A new one is a file beside this one and a line in MITIGATIONS. Each states its guarantee, why the
private step's bound holds with it or why it does not, and what it costs.
"""

from typing import Any

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Method
from jaxfair.methods.mitigations import averaging, clips, sizes, upsampling, whom
from jaxfair.methods.mitigations.counts import NoisyCounts, weigh_by_counts
from jaxfair.methods.mitigations.dro import GroupDRO, worst_group
from jaxfair.methods.mitigations.entry import PRIVACY, REFUSED, Mitigation, Sections
from jaxfair.methods.mitigations.finetune import FineTune, fine_tune
from jaxfair.methods.mitigations.head import BalancedHead, RefitHead, refit_head, retrain_head
from jaxfair.methods.mitigations.jtt import TrainTwice, train_twice
from jaxfair.methods.mitigations.norms import GroupNorms, norms_by_group
from jaxfair.methods.mitigations.weights import GroupWeights, weigh_groups
from jaxfair.privacy.cliprules.base import ClipRule

__all__ = [
    "MITIGATIONS",
    "PRIVACY",
    "REFUSED",
    "Mitigation",
    "check_private",
    "clip_rule",
    "described",
    "entry_of",
    "mitigated",
    "own_rates",
    "own_sections",
]

MITIGATIONS: dict[str, Mitigation] = {
    "group_weights": Mitigation(
        GroupWeights,
        weigh_groups,
        "fits",
        "the weight is a public constant that follows from the example alone, before the clip",
        "nothing",
    ),
    "group_norms": Mitigation(
        GroupNorms,
        norms_by_group,
        "fits",
        "an example's own group says which norms it trains, and all are clipped as one gradient",
        "no epsilon; each group's norms learn from its own noisy gradients",
        reads_group=True,
    ),
    "group_dro": Mitigation(
        GroupDRO,
        worst_group,
        "pays",
        "groups are weighed by their losses, which under privacy are a noisy query of every "
        "patient's loss, clipped to a public bound, within each step's one release (protocol P9)",
        "query_share of each draw's budget, and a second forward pass",
        parts=lambda config: config.parts,
        clip=lambda config: config.rule(),
    ),
    "noisy_counts": Mitigation(
        NoisyCounts,
        weigh_by_counts,
        "pays",
        "the weight of an example's own cell follows from noisy counts of draws before, and comes "
        "before the clip, or after it at the noise of the largest (after_clip)",
        "query_share of each draw's budget",
        clip=NoisyCounts.rule,
    ),
    "jtt": Mitigation(
        TrainTwice,
        train_twice,
        "fits",
        "the weight follows from the example itself and from parameters that were released before",
        "the steps of the first model, and a forward pass in each step of the second",
    ),
    "balanced_head": Mitigation(
        BalancedHead,
        retrain_head,
        "fits",
        "the weight is a public constant of the example's own label and group, and the frozen rest "
        "was released before",
        "the steps of the last stage, which are cheaper",
    ),
    "composition": Mitigation(
        whom.Composition,
        whom.compose,
        "fits",
        "a patient stays by a hash of his id and the public probability of his group",
        "no epsilon; fewer patients, and so more noise for each who stays",
        sets=whom.composed_by,
    ),
    "balance": Mitigation(
        whom.Balance,
        whom.balance,
        "fits",
        "groups are thinned by declared shares, each patient by himself; by counts the guarantee "
        "is for the selected table only",
        "no epsilon; the patients of larger groups",
        sets=whom.balanced_by,
    ),
    "upsampling": Mitigation(
        upsampling.Upsampling,
        upsampling.sample_groups,
        "fits",
        "each patient is drawn once at most, at his group's public rate, and all is priced at the "
        "largest",
        "the noise of the largest rate; each group has its own epsilon, the claim is the largest",
        rates=upsampling.rates_by_group,
    ),
    "fine_tune": Mitigation(
        FineTune,
        fine_tune,
        "fits",
        "the last stage weighs each example by a public constant of its own group, and is priced "
        "in one composition with the first",
        "the steps of the last stage, which hear the chosen groups alone",
    ),
    "core_set": Mitigation(
        whom.CoreSet,
        whom.choose,
        "fits",
        "an image stays by a public list or by what it is itself, and no list that was chosen on "
        "these patients is taken",
        "no epsilon; nearly all patients, and so far more noise",
        sets=whom.chosen_by,
    ),
    "data_size": Mitigation(
        whom.DataSize,
        whom.shrink_data,
        "fits",
        "a patient stays by a hash of his id and a public constant",
        "no epsilon; fewer patients, and so more noise for each who stays",
        sets=whom.shrunk_by,
    ),
    "model_size": Mitigation(
        sizes.ModelSize,
        sizes.resize,
        "fits",
        "the size of the network is a public constant, and its whole gradient is clipped",
        "no epsilon; a smaller network hears less noise and can say less",
        sets=sizes.sized_by,
    ),
    "averaging": Mitigation(
        averaging.Averaging,
        averaging.average,
        "fits",
        "an average of released parameters is a function of them",
        "nothing but a second copy of the parameters",
        sets=averaging.averaged_by,
    ),
    "refit_head": Mitigation(
        RefitHead,
        refit_head,
        "fits",
        "the frozen rest was released before, and the last layer is clipped and noised as ever",
        "the steps of the last stage, within the one budget",
    ),
    "quantile_clip": Mitigation(
        clips.QuantileClip,
        clips.same_method,
        "pays",
        "the clip follows a noisy share of units within it, for those whom a clip that is too low "
        "would cut; a part query_share of each draw's budget is spent on it",
        clip=clips.QuantileClip.rule,
    ),
    "bounded_clip": Mitigation(
        clips.BoundedClip,
        clips.same_method,
        "pays",
        "the clip follows a noisy share of units within it and stays above a bound, for groups "
        "that still learn when others have learnt; a part query_share of each draw's budget",
        clip=clips.BoundedClip.rule,
    ),
    "soft_clip": Mitigation(
        clips.SoftClip,
        clips.same_method,
        "pays",
        "gradients above the clip keep their order, for those whose gradients are largest; a part "
        "query_share of each draw's budget",
        clip=clips.SoftClip.rule,
    ),
    "global_clip": Mitigation(
        clips.GlobalClip,
        clips.same_method,
        "pays",
        "gradients shrink alike, so that the sum keeps its course for groups with large ones; a "
        "part query_share of each draw's budget, and slower learning",
        clip=clips.GlobalClip.rule,
    ),
    "group_clip": Mitigation(
        clips.GroupClip,
        clips.same_method,
        "pays",
        "a group of whom more gradients are clipped gets a larger clip; a part query_share of each "
        "draw's budget, and noise in proportion to the largest clip of all groups",
        clip=clips.GroupClip.rule,
    ),
    "normalised_clip": Mitigation(
        clips.NormalisedClip,
        clips.same_method,
        "fits",
        "every unit weighs nearly the same whatever its gradient, and its norm stays below the "
        "clip; no epsilon",
        clip=clips.NormalisedClip.rule,
    ),
    "weights_after_clip": Mitigation(
        clips.WeightsAfterClip,
        clips.same_method,
        "fits",
        "the public weight of the example's own group comes after the clip, and the noise is that "
        "of the largest weight; no epsilon",
        clip=clips.WeightsAfterClip.rule,
    ),
}


def mitigated(name: str, config: Any, method: Method) -> Method:
    """Returns `method` under the mitigation `name`; raises InputError for an unknown name.

    Its loss may be another one then, so it is no longer said to be a linear head's.
    """
    return entry_of(name).apply(config, method)._replace(linear=None)


def described(name: str, config: Any, told: dict[str, Any]) -> dict[str, Any]:
    """Returns what a report must say of a model, with its mitigation (`Mitigation.described`)."""
    return entry_of(name).described(name, config, told)


def own_sections(name: str, config: Any, sections: Sections) -> dict[str, dict[str, Any]]:
    """Returns section -> field -> value, of what a mitigation sets; {} for none."""
    return entry_of(name).sections(config, sections) if name else {}


def own_rates(name: str, config: Any, rate: float) -> tuple[float, ...]:
    """Returns the sampling probability of each group, () for one rate for all.

    Args:
      rate: of the plan, expected batch / public size.
    """
    rates = entry_of(name).rates if name else None
    return () if rates is None else rates(config, rate)


def clip_rule(name: str, config: Any) -> ClipRule | None:
    """Returns the clip rule of a mitigation, which the plan prices; None for the ordinary clip.

    Args:
      name: a key of MITIGATIONS, or "" for none.
    """
    clip = entry_of(name).clip if name else None
    return None if clip is None else clip(config)


def check_private(name: str) -> None:
    """Raises InputError, with the reason, for a mitigation that no private run can have.

    Args:
      name: a key of MITIGATIONS, or "" for none.
    """
    entry = entry_of(name) if name else None
    if entry is not None and entry.privacy not in ("fits", "pays"):
        raise InputError(
            f"The mitigation {name!r} {PRIVACY[entry.privacy]}: {entry.why}; train it with "
            "dp.enabled=False, or choose one that fits: "
            f"{', '.join(n for n, e in MITIGATIONS.items() if e.privacy in ('fits', 'pays'))}."
        )


def entry_of(name: str) -> Mitigation:
    """Returns what is known of a mitigation.

    Raises InputError for an unknown name, and with the reason for one that is REFUSED.
    """
    if name in REFUSED:
        raise InputError(f"The mitigation {name!r} is refused: {REFUSED[name]}.")
    if name not in tuple(MITIGATIONS):
        known, hint = ", ".join(MITIGATIONS), nearest(str(name), MITIGATIONS)
        raise InputError(f"mitigation.name is {name!r}; known mitigations are {known}.{hint}")
    return MITIGATIONS[name]
