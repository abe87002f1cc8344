"""Clipping at a quantile of the norms, but never below a bound.

Source: Zhao, Rehn, Heikkila, Tajeddine, Honkela 2025, "Mitigating Disparate Impact of
Differentially Private Learning through Bounded Adaptive Clipping" (arXiv 2506.01396).
"""

from jaxfair.privacy.cliprules.base import ClipRule, scale_to
from jaxfair.privacy.cliprules.quantile import adaptive_rule

__all__ = ["bounded_clip"]


def bounded_clip(
    *, quantile: float, rate: float, first: float = 1.0, lowest: float, query_share: float
) -> ClipRule:
    """Returns `quantile_clip` with z never below `lowest`.

    As training goes on the majority's gradients shrink and an adaptive threshold follows them, so
    that the larger ones of a group that is still learning are cut; a lower bound keeps them.

    Guarantee: that of `quantile_clip`, for which any public bound on z will do; z <- max(lowest,
    z exp(-rate (share - quantile))). Cost: `query_share` of each draw's budget.

    Args:
      lowest: the smallest threshold in units of C, positive and at most `first`.

    Raises InputError for numbers outside.
    """
    return adaptive_rule(
        "bounded_clip", scale_to, quantile=quantile, rate=rate, first=first, lowest=lowest,
        query_share=query_share,
    )  # fmt: skip
