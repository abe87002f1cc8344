"""The optimiser: it sees noisy means only, so whatever it does is post-processing."""

from dataclasses import dataclass

import optax

from jaxfair.errors import InputError, nearest

__all__ = ["OPTIMIZERS", "OptimConfig", "make_optimizer"]

OPTIMIZERS = {
    "adam": optax.adam,
    "nadam": optax.nadam,
    "sgd": lambda rate: optax.sgd(rate, momentum=0.9),
}


@dataclass(frozen=True)
class OptimConfig:
    """`config.optim`: a name of OPTIMIZERS and a learning rate (constant)."""

    name: str = "adam"
    learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            hint = nearest(self.name, OPTIMIZERS)
            raise InputError(f"optim.name is {self.name!r}; known are {known}.{hint}")
        if not self.learning_rate > 0:
            raise InputError(f"optim.learning_rate is {self.learning_rate}; it must be positive.")


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Returns the optax transformation; epsilon of Adam stands outside the root, as in torch."""
    return OPTIMIZERS[config.name](config.learning_rate)
