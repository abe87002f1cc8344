"""Faults by which a second moment rests on more of somebody than was promised."""

import jax.numpy as jnp

from jaxfair.methods import normal_law
from tests.privacy.mutations.putting import replaced


def fault_180_numbers_are_not_clipped_before_their_second_moment():
    """The step would still clip, but whoever is far out would count less and weigh as he likes."""

    def unclipped(x, radius):
        return jnp.concatenate([jnp.ones(1), x / radius]) * jnp.float32(2**-0.5)

    return replaced(normal_law, "with_one", unclipped)


def fault_181_noise_is_taken_from_the_symmetric_part():
    """Then the signal counts as noise, and nothing of it stands out."""
    return replaced(normal_law, "noise_size", lambda m: jnp.std((m + m.T) / 2))
