"""The optimiser: it sees noisy means only, so whatever it does is post-processing.

That holds for averages of the parameters too: they are functions of released parameters and
cost no privacy (De et al. 2022, arXiv 2204.13650).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxfair.errors import InputError, nearest

__all__ = [
    "AVERAGES",
    "OPTIMIZERS",
    "OptimConfig",
    "averaged_params",
    "check_parts",
    "make_optimizer",
    "nadam",
]

OPTIMIZERS = ("adam", "nadam", "sgd")
AVERAGES = ("none", "ema", "late")
OF_A_PART = {
    "name": str,
    "learning_rate": float,
    "decay_steps": int,
    "momentum": float,
    "every": int,
    "weight_decay": float,
}


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, its learning rate, and which parameters are evaluated.

    Attributes:
      name: one of OPTIMIZERS; Adam and NAdam have beta (0.9, 0.999), epsilon 1e-8.
      learning_rate: of the first step.
      rate_at_epsilon: the epsilon for which learning_rate was chosen: a private run at another
        `dp.epsilon` takes it times dp.epsilon / rate_at_epsilon (`scaled_rate`); 0 as it is.
      decay_steps: the rate falls to zero over so many steps, by half a cosine (Loshchilov and
        Hutter 2017); 0 keeps it constant.
      momentum: of "sgd", in [0, 1).
      every: only each so-manieth step moves the parameters; the gradients of the others are
        thrown away (and paid for). Of a part: its steps against those of the rest, as of k steps
        of an adversary to one of what it attacks.
      weight_decay: times the parameters is added to their gradient (L2), as in torch.optim.Adam.
      average: which parameters are evaluated: those of the last step ("none"), their
        exponential average ("ema") or their mean ("late").
      average_from: steps before this one do not count in an average.
      ema_decay: weight of the past in "ema", in [0, 1).
      ema_warm_up: the past weighs min(ema_decay, (1 + t) / (10 + t)) after t steps that counted, as
        De et al. 2022 have it; else `ema_decay` from the first, without the bias of the start.
      unit_normed: of a private run: the rate is that for a clip of 1, as in De et al. 2022; the
        noisy mean is divided by `dp.l2_clip_norm` before anything reads it.
      parts: parts of the parameters with an optimiser of their own: the path at which a part
        begins, as "head" or "encoder/conv1", and what differs there of OF_A_PART. The longest
        path that fits counts. Of a Method with stages each stage takes the parts that it has.

    Raises InputError for a value outside these.
    """

    name: str = "adam"
    learning_rate: float = 2e-4
    rate_at_epsilon: float = 0.0
    decay_steps: int = 0
    momentum: float = 0.9
    every: int = 1
    weight_decay: float = 0.0
    average: str = "none"
    average_from: int = 0
    ema_decay: float = 0.99
    ema_warm_up: bool = False
    unit_normed: bool = False
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("name", OPTIMIZERS), ("average", AVERAGES)):
            value = getattr(self, name)
            if value not in known:
                names, hint = ", ".join(known), nearest(value, known)
                raise InputError(f"optim.{name} is {value!r}; known are {names}.{hint}")
        for holds, name, rule in (
            (0 < self.learning_rate < math.inf, "learning_rate", "positive"),
            (0 <= self.rate_at_epsilon < math.inf, "rate_at_epsilon", "positive, or 0"),
            (self.decay_steps >= 0, "decay_steps", "0 or more"),
            (0 <= self.momentum < 1, "momentum", "in [0, 1)"),
            (self.every >= 1, "every", "at least 1"),
            (0 <= self.weight_decay < math.inf, "weight_decay", "0 or more"),
            (0 <= self.ema_decay < 1, "ema_decay", "in [0, 1)"),
            (self.average_from >= 0, "average_from", "0 or more"),
        ):
            if not holds:
                raise InputError(f"optim.{name} is {getattr(self, name)}; it must be {rule}.")
        for path, changes in self.parts.items():
            _check_part(path, changes)
            self.of_part(path)

    def of_part(self, path: str) -> "OptimConfig":
        """Returns the optimiser of one part, or with "" of all the rest."""
        changes = self.parts.get(path, {})
        try:
            return replace(self, **{"parts": {}, **changes})
        except InputError as error:
            raise InputError(f"optim.parts.{path}: {error}") from error


def make_optimizer(
    config: OptimConfig, *, everywhere: bool = True, l2_clip_norm: float = 1.0
) -> optax.GradientTransformation:
    """Returns the optax transformation; epsilon of Adam stands outside the root, as in torch.

    Args:
      l2_clip_norm: C, by which "unit_normed" divides; 1 for a run without a clip.
      everywhere: whether its `init` refuses parameters that lack one of `config.parts`. False for
        a Method with stages, of which one has a part and another has not; `check_parts` asks all.
    """
    optimizer = _of_parts(config, everywhere) if config.parts else _of_all(config)
    if config.unit_normed and l2_clip_norm != 1:
        optimizer = optax.chain(optax.scale(1 / l2_clip_norm), optimizer)
    if config.average == "none":
        return optimizer
    return optax.chain(optimizer, _averaging(config))


def check_parts(config: OptimConfig, stages: Sequence[Any]) -> None:
    """Raises InputError for a path of `config.parts` at which no parameters begin.

    Args:
      stages: the parameters of each stage, or their shapes.
    """
    names = {_name(path) for params in stages for path, _ in _leaves_of(params)}
    for path in config.parts:
        if not any(_begins(name, path) for name in names):
            known = ", ".join(sorted({name.split("/")[0] for name in names}))
            raise InputError(
                f"optim.parts.{path} is no part of the parameters; they begin with {known}."
            )


def _check_part(path: str, changes: Any) -> None:
    """Refuses what is no change of a part: a value of `parts`, a name or a type."""
    if not isinstance(changes, Mapping):
        raise InputError(
            f"optim.parts.{path} is {changes!r}; it must be what differs there of "
            f"{', '.join(OF_A_PART)}, as {{'learning_rate': 0.1}}."
        )
    for name, value in changes.items():
        if name not in OF_A_PART:
            raise InputError(
                f"optim.parts.{path} sets {name!r}; a part has {', '.join(OF_A_PART)}."
                f"{nearest(name, OF_A_PART)}"
            )
        kind = OF_A_PART[name]
        if isinstance(value, bool) or not isinstance(
            value, (int, float) if kind is float else kind
        ):
            raise InputError(f"optim.parts.{path}.{name} is {value!r}; it must be {kind.__name__}.")


def _of_all(config: OptimConfig) -> optax.GradientTransformation:
    if config.name == "sgd":
        optimizer = optax.sgd(config.learning_rate, momentum=config.momentum)
    else:
        optimizer = {"adam": optax.adam, "nadam": nadam}[config.name](config.learning_rate)
    if config.weight_decay:
        optimizer = optax.chain(optax.add_decayed_weights(config.weight_decay), optimizer)
    if config.every > 1:
        moves = lambda step: (step + 1) % config.every == 0
        optimizer = optax.conditionally_mask(optimizer, moves)
    if not config.decay_steps:
        return optimizer
    share = optax.cosine_decay_schedule(1.0, config.decay_steps)
    return optax.chain(optimizer, optax.scale_by_schedule(share))


def _of_parts(config: OptimConfig, everywhere: bool) -> optax.GradientTransformation:
    """One optimiser a part; each leaf belongs to the longest path that it begins with."""
    paths = sorted(config.parts, key=len, reverse=True)

    def label(path: Any, leaf: Any) -> str:
        return next((p for p in paths if _begins(_name(path), p)), "")

    def labels(params: Any) -> Any:
        if everywhere:
            check_parts(config, [params])
        return jax.tree_util.tree_map_with_path(label, params)

    return optax.multi_transform({p: _of_all(config.of_part(p)) for p in ["", *paths]}, labels)


def _begins(name: str, path: str) -> bool:
    return f"{name}/".startswith(f"{path.strip('/')}/")


def _name(path: Any) -> str:
    """The path of a leaf, as "encoder/conv1/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _leaves_of(params: Any) -> Any:
    return jax.tree_util.tree_leaves_with_path(params)


def averaged_params(params: Any, opt_state: Any) -> Any:
    """Returns what is evaluated: the average in `opt_state` where one is kept, else `params`."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda s: isinstance(s, _AverageState))
    return next((s.mean for s in states if isinstance(s, _AverageState)), params)


def nadam(learning_rate: float, *, momentum_decay: float = 4e-3) -> optax.GradientTransformation:
    """Returns NAdam with its momentum schedule (Dozat 2016), as `torch.optim.NAdam` has it.

    With mu_t = b1 (1 - 0.96^(t psi) / 2), psi = `momentum_decay`, b1 = 0.9, b2 = 0.999:

        m_hat = mu_{t+1} m_t / (1 - mu_1 ... mu_{t+1}) + (1 - mu_t) g_t / (1 - mu_1 ... mu_t)
        theta <- theta - rate m_hat / (sqrt(v_t / (1 - b2^t)) + 1e-8)
    """
    b1, b2, epsilon = 0.9, 0.999, 1e-8

    def init(params: Any) -> _NadamState:
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)  # two: a buffer is donated once
        return _NadamState(jnp.zeros((), jnp.int32), jnp.ones(()), zeros(), zeros())

    def update(grads: Any, state: _NadamState, params: Any = None) -> tuple[Any, _NadamState]:
        step = state.step + 1
        mu = lambda t: b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
        now, ahead = mu(step), mu(step + 1)
        product = state.mu_product * now
        first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.first, grads)
        second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.second, grads)

        def move(m: jax.Array, v: jax.Array, g: jax.Array) -> jax.Array:
            m_hat = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
            moved = -learning_rate * m_hat / (jnp.sqrt(v / (1 - b2**step)) + epsilon)
            return moved.astype(g.dtype)

        updates = jax.tree.map(move, first, second, grads)
        return updates, _NadamState(step, product, first, second)

    return optax.GradientTransformation(init, update)


class _NadamState(NamedTuple):
    step: jax.Array
    mu_product: jax.Array
    first: Any
    second: Any


class _AverageState(NamedTuple):
    step: jax.Array
    mean: Any


def _averaging(config: OptimConfig) -> optax.GradientTransformation:
    """Keeps the average of the parameters after each step, and changes no update.

    The n-th parameters that count enter with the weight 1 / n, or with (1 - d) / (1 - d^n)
    where the past decays by d: the exponential average without its bias towards the start. With a
    warm-up they enter with 1 - min(d, n / (9 + n)), so that the first parameters, of which the
    average begins, are soon forgotten.
    """

    def weight(n: jax.Array) -> jax.Array:
        decay = config.ema_decay
        if config.average == "late":
            return 1 / n
        if config.ema_warm_up:
            return 1 - jnp.minimum(decay, n / (9 + n))
        return (1 - decay) / (1 - decay**n)

    def init(params: Any) -> _AverageState:
        return _AverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: _AverageState, params: Any) -> tuple[Any, _AverageState]:
        count = jnp.maximum(state.step + 1 - config.average_from, 1).astype(jnp.float32)
        enters = weight(count)
        if config.average_from:  # nothing of what came before it stays
            enters = jnp.where(count == 1, 1.0, enters)
        reached = optax.apply_updates(params, updates)
        mean = jax.tree.map(
            lambda a, p: (a + enters * (p - a)).astype(a.dtype), state.mean, reached
        )
        return updates, _AverageState(state.step + 1, mean)

    return optax.GradientTransformation(init, update)
