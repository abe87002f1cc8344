"""Gradients of one length: automatic clipping.

Source: Bu, Wang, Zha, Karypis 2023, "Automatic Clipping: Differentially Private Deep Learning Made
Easier and Stronger" (arXiv 2206.07136), AUTO-S.
"""

from jaxfair.privacy.cliprules.base import ClipRule
from jaxfair.privacy.cliprules.quantile import check_positive

__all__ = ["normalised_clip"]


def normalised_clip(*, gamma: float) -> ClipRule:
    """Returns the rule that divides a gradient of norm n by n + gamma C.

    Every unit weighs nearly the same, those with small gradients too; nothing follows the data.

    Guarantee: C n / (n + gamma C) is below C for every n, since gamma is positive. Nothing is asked
    beside the gradient, and it costs nothing.

    Args:
      gamma: in units of C, positive; gradients far below gamma C keep their proportions.

    Raises InputError for another gamma.
    """
    check_positive(gamma=gamma)
    return ClipRule(
        "normalised_clip", init=dict, factor=lambda norms, groups, state: 1 / (norms + gamma)
    )
