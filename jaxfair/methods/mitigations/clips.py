"""What the clip rules of `jaxfair/privacy/cliprules` are told by a config; one class for each.

The guarantee of each stands with the rule, in the file of its name there.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.methods.base import Method
from jaxfair.methods.mitigations.groups import Grouped, group_of
from jaxfair.methods.mitigations.weights import GroupWeights
from jaxfair.privacy.cliprules.base import ClipRule
from jaxfair.privacy.cliprules.bounded import bounded_clip
from jaxfair.privacy.cliprules.by_group import group_clip
from jaxfair.privacy.cliprules.global_adapt import global_clip
from jaxfair.privacy.cliprules.normalised import normalised_clip
from jaxfair.privacy.cliprules.quantile import quantile_clip
from jaxfair.privacy.cliprules.soft import soft_clip
from jaxfair.privacy.cliprules.weighted import weights_after_clip

__all__ = [
    "BoundedClip",
    "GlobalClip",
    "GroupClip",
    "NormalisedClip",
    "QuantileClip",
    "SoftClip",
    "WeightsAfterClip",
    "same_method",
]


@dataclasses.dataclass(frozen=True)
class QuantileClip:
    """The clip follows a quantile of the norms of gradients.

    Attributes:
      quantile: share of units whose norms are to be within the clip.
      rate: by how much the logarithm of the clip moves in a step, for a share that is off by 1.
      first: the clip of the first step, in units of dp.l2_clip_norm.
      query_share: part of each draw's budget for the side query, in (0, 1).

    Raises InputError for numbers that cannot be.
    """

    quantile: float = 0.5
    rate: float = 0.2
    first: float = 1.0
    query_share: float = 0.02

    def __post_init__(self) -> None:
        self.rule()

    def rule(self) -> ClipRule:
        """Returns the rule, its numbers checked."""
        return quantile_clip(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class BoundedClip(QuantileClip):
    """The clip follows a quantile of the norms of gradients, and is never below a bound.

    Attributes:
      quantile: share of units whose norms are to be within the clip.
      rate: by how much the logarithm of the clip moves in a step, for a share that is off by 1.
      first: the clip of the first step, in units of dp.l2_clip_norm.
      query_share: part of each draw's budget for the side query, in (0, 1).
      lowest: the smallest clip, in units of dp.l2_clip_norm.
    """

    lowest: float = 0.5

    def rule(self) -> ClipRule:
        """Returns the rule, its numbers checked."""
        return bounded_clip(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class SoftClip(QuantileClip):
    """Gradients are bent below a clip smoothly, which follows a quantile of their norms.

    Attributes:
      quantile: share of units whose norms are to be within the clip.
      rate: by how much the logarithm of the clip moves in a step, for a share that is off by 1.
      first: the clip of the first step, in units of dp.l2_clip_norm.
      query_share: part of each draw's budget for the side query, in (0, 1).
    """

    def rule(self) -> ClipRule:
        """Returns the rule, its numbers checked."""
        return soft_clip(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class NormalisedClip:
    """Every gradient is brought to nearly one length.

    Attributes:
      gamma: in units of dp.l2_clip_norm; gradients far below it keep their proportions.

    Raises InputError for a gamma that is not positive.
    """

    gamma: float = 0.01

    def __post_init__(self) -> None:
        self.rule()

    def rule(self) -> ClipRule:
        """Returns the rule, its numbers checked."""
        return normalised_clip(gamma=self.gamma)


@dataclasses.dataclass(frozen=True)
class GlobalClip:
    """All gradients below a bound shrink by one factor; the bound follows a noisy count.

    Attributes:
      rate: by how much the logarithm of the bound falls in a step with nobody above; about this
        share of units stays above.
      first: the bound of the first step, in units of dp.l2_clip_norm, at least 1.
      tolerance: a unit counts as above from this multiple of the bound on.
      query_share: part of each draw's budget for the side query, in (0, 1).

    Raises InputError for numbers that cannot be.
    """

    rate: float = 0.1
    first: float = 4.0
    tolerance: float = 1.0
    query_share: float = 0.02

    def __post_init__(self) -> None:
        self.rule()

    def rule(self) -> ClipRule:
        """Returns the rule, its numbers checked."""
        return global_clip(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class GroupClip(Grouped):
    """Groups of whom more gradients are clipped get a larger clip.

    Attributes:
      memory: how much of the noisy counts before is kept in each step, in [0, 1).
      query_share: part of each draw's budget for the side query, in (0, 1).

    Raises InputError for numbers that cannot be.
    """

    memory: float = 0.9
    query_share: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rule()

    def rule(self) -> ClipRule:
        """Returns the rule, its numbers checked."""
        return group_clip(
            groups=self.groups,
            group=lambda example: _number(self, example),
            memory=self.memory,
            query_share=self.query_share,
        )


@dataclasses.dataclass(frozen=True)
class WeightsAfterClip(GroupWeights):
    """Each example's clipped gradient times the public weight of its group.

    Attributes:
      weights: a public constant in (0, 1000] for each group, in their order.
    """

    def rule(self) -> ClipRule:
        """Returns the rule."""
        return weights_after_clip(
            weights=self.weights, group=lambda example: _number(self, example)
        )


def same_method(config: Any, method: Method) -> Method:
    """Returns `method`: a clip rule changes the private step and no loss."""
    return method


def _number(config: Grouped, example: Any) -> jax.Array:
    """The number of an example's group, -1 for unknown."""
    number = group_of(config, example)
    return jnp.where(number < config.groups, number, -1)
