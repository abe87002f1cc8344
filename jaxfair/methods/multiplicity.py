"""Augmentation multiplicity: several views of one image, whose mean is one unit's one gradient.

A loss of ONE example that is a mean over its views has the mean of the views' gradients, which the
step clips once: a unit moves the sum by at most C however many views it has, so multiplicity costs
no privacy. Views that are units of their own, each clipped and then added up, would move the sum by
K C. Source: De et al. 2022 (arXiv 2204.13650), section 3.
"""

from collections.abc import Callable

import jax

from jaxfair.errors import InputError
from jaxfair.methods.base import Example

__all__ = ["Augment", "refuse_views_of_nothing", "views_of"]

Augment = Callable[[Example, jax.Array], Example]


def views_of(augment: Augment, example: Example, multiplicity: int, key: jax.Array) -> Example:
    """Returns the example's views, each array with a leading axis of `multiplicity`.

    Guarantees: each view is a function of this example and of its own key alone; views have
    different keys; the same key gives the same views.
    """
    keys = jax.random.split(key, multiplicity)
    return jax.vmap(augment, in_axes=(None, 0))(example, keys)


def refuse_views_of_nothing(multiplicity: int, augment: Augment | None) -> None:
    """Raises InputError for a multiplicity above 1 without an augmentation."""
    if multiplicity > 1 and augment is None:
        raise InputError(
            f"multiplicity = {multiplicity} averages over augmented views, but there is no "
            "augmentation; configure one or use multiplicity 1."
        )
