"""Learning rates that follow epsilon: rules that need no search."""

from dataclasses import replace

from jaxfair.engine.optim import OptimConfig

__all__ = ["at_epsilon", "scaled_rate"]


def scaled_rate(rate: float, chosen_at: float, epsilon: float) -> float:
    """Returns the learning rate at `epsilon` of one that was chosen at epsilon `chosen_at`.

    rate x epsilon / chosen_at: at the same number of steps the best total length of all steps grows
    about linearly with epsilon, since noise falls as 1 / epsilon (Panda et al. 2024, "A new linear
    scaling rule for private adaptive hyperparameter optimization", arXiv 2212.04486). The rule is
    public and reads no data, so it costs no privacy; a rate that was chosen on the data does.

    >>> scaled_rate(16.0, chosen_at=8.0, epsilon=1.0)
    2.0
    """
    return rate * epsilon / chosen_at


def at_epsilon(config: OptimConfig, epsilon: float | None) -> OptimConfig:
    """Returns the optimiser of a run at this epsilon, by `rate_at_epsilon`; None without privacy.

    A part with a learning rate of its own keeps it.
    """
    if not config.rate_at_epsilon or epsilon is None:
        return config
    rate = scaled_rate(config.learning_rate, config.rate_at_epsilon, epsilon)
    return replace(config, learning_rate=rate)
