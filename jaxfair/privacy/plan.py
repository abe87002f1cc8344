"""From what a user promises to how it is kept: PrivacyConfig -> PrivacyPlan."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.cliprules.base import ClipRule, priced
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.descent import Earlier, check_protected
from jaxfair.privacy.perturbation import Perturbation
from jaxfair.privacy.promise import PrivacyPlan
from jaxfair.privacy.public import check_sizes, chosen_delta, delta_from_public_size, whole
from jaxfair.privacy.queries import Query, gradient_multiplier

__all__ = ["PrivacyConfig", "PrivacyPlan", "delta_from_public_size", "make_plan"]


def make_plan(
    config: PrivacyConfig,
    *,
    steps: int,
    expected_batch_size: int,
    public_size: int | None,
    earlier: Earlier | None = None,
    queries: tuple[Query, ...] = (),
    group_probs: tuple[float, ...] = (),
    rule: ClipRule | None = None,
    linear: Callable[[], Any] | None = None,
) -> PrivacyPlan:
    """Finds the noise for the promised epsilon. Touches no data.

    Args:
      steps: draws of the whole run.
      expected_batch_size: mean size of a draw if the population had `public_size` units.
      public_size: declared in the config (protocol P3); how many units there really are is
        private and enters nowhere.
      earlier: the run that this one starts from (`descent.read_earlier`); the budget covers both,
        and delta is the smaller of both.
      queries: what else each draw releases; the gradient's noise is found so that all queries
        of a draw together keep the budget.
      group_probs: sampling probability by group code, where groups are drawn at rates of their
        own; the budget holds for the group that is drawn most often.
      rule: how gradients are scaled; its queries are priced with the others.
      linear: gives the linear head (`methods.base.Linear`) that a `config.mechanism` minimises at
        once, in one step; asked by those alone.

    Raises InputError for a beginning where patients are not protected, a batch above the public
    size, a delta too large for it, side queries that alone exceed the budget, and a rule that
    makes no sense without privacy.

    The pieces joined by hand, for one's own loop with optax: pay, draw, clip, add noise, divide
    by the expected batch size (never by the realised one), update.

    >>> import pathlib, tempfile
    >>> import jax, jax.numpy as jnp, numpy as np, optax
    >>> from jaxfair.privacy import PrivacyConfig, clipped_sum, gaussian_like, make_plan
    >>> from jaxfair.privacy import create_secret, noise_key_data
    >>> data = {"x": np.ones((90, 3), np.float32), "y": np.ones(90, np.float32)}
    >>> def loss_fn(params, example, key):
    ...     return (example["x"] @ params["w"] - example["y"]) ** 2
    >>> config = PrivacyConfig(epsilon=3.0, l2_clip_norm=0.5)
    >>> plan = make_plan(config, steps=5, expected_batch_size=10, public_size=100)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> secret, ledger = create_secret(folder / "secret"), plan.open_ledger(folder / "ledger.jsonl")
    >>> groups = np.full(90, -1)  # nobody's group matters: one rate for all
    >>> params, optimizer = {"w": jnp.zeros(3)}, optax.sgd(0.1)
    >>> opt_state = optimizer.init(params)
    >>> about = {"stage": "train", "population": "made up", "draws": secret}
    >>> for step in range(plan.steps):
    ...     spent = plan.charge(ledger, **about, first_step=step, steps=1)
    ...     drawn = plan.draw(secret, step, groups)
    ...     rows = np.concatenate([drawn, np.zeros(32 - len(drawn), int)])  # one shape for all
    ...     mask = jnp.arange(32) < len(drawn)  # padding counts for nothing
    ...     batch = jax.tree.map(lambda a: jnp.asarray(a[rows]), data)
    ...     keys = jax.random.split(jax.random.key(step), 32)  # this loss draws nothing from them
    ...     clip = {"l2_clip_norm": plan.l2_clip_norm, "units": plan.max_draw}
    ...     total = clipped_sum(loss_fn, params, batch, keys, mask, **clip)
    ...     words = noise_key_data(secret, step, num_leaves=1)
    ...     noise = gaussian_like(total, words, plan.noise_stddev())
    ...     mean = jax.tree.map(lambda t, n: (t + n) / plan.expected_batch_size, total, noise)
    ...     updates, opt_state = optimizer.update(mean, opt_state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> statement = plan.statement(ledger, steps=5)
    >>> 2.9 < statement["epsilon"] <= 3.0
    True
    >>> plan.statement(ledger, steps=6)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    jaxfair.errors.InputError: A statement over 6 steps is asked for, but the ledger has not paid...
    """
    public_size = check_sizes(public_size, expected_batch_size)
    public_size = whole("data.public_size", public_size)
    steps = whole("train.steps", steps)
    expected_batch_size = whole("train.expected_batch_size", expected_batch_size)
    delta = _delta(config, public_size, earlier)
    asked_beside = (queries, group_probs, rule, earlier)
    perturbation = _perturbation(config, linear, expected_batch_size, public_size)
    if perturbation is not None:
        _refuse_beside(asked_beside)
        steps = 1
    shared: dict[str, Any] = {
        "sampling_prob": expected_batch_size / public_size,
        "expected_batch_size": expected_batch_size,
        "public_size": public_size,
        "steps": steps,
        "delta": delta,
        "tuning_runs": config.tuning_runs,
        "padded_draws": config.padded_draws,
        "precision": config.precision,
        "way": config.way,
        "queries": tuple(queries),
        "group_probs": tuple(group_probs),
        "earlier": earlier,
        "rule": rule,
        "perturbation": perturbation,
    }
    plain = PrivacyPlan(
        private=False, l2_clip_norm=math.inf, noise_multiplier=0.0, epsilon=math.inf,
        epsilon_rdp=math.inf, budget=math.inf, clipping="none", **shared,
    )  # fmt: skip
    if not config.enabled:
        _refuse_unless_plain(rule)
        return plain
    return _private(plain, config)


def _private(plain: PrivacyPlan, config: PrivacyConfig) -> PrivacyPlan:
    """The plan with its clip and the noise for the promised epsilon."""
    earlier, delta, steps = plain.earlier, plain.delta, plain.steps
    check_protected(earlier)
    search = config.search
    if search is not None and earlier is not None:
        raise InputError(
            f"train.start_from is {earlier.folder} and dp.search_mean is {search.mean}: a search "
            "is priced for runs that begin afresh; leave one of them out."
        )
    spent = tuple(entry.event for entry in earlier.entries) if earlier else ()
    prob = plain.priced_prob
    try:
        sigma = accounting.noise_multiplier_from_epsilon(
            config.epsilon, delta, prob, steps, spent, search
        )
    except ValueError as error:
        raise InputError(f"{error} Raise dp.epsilon: it is the budget of all stages.") from error
    asked = (*plain.queries, *priced(plain.rule, sigma))
    alone = gradient_multiplier(sigma, asked)
    if plain.perturbation is not None:
        alone, asked = plain.perturbation.multipliers(sigma)
    plan = dataclasses.replace(
        plain,
        private=True,
        l2_clip_norm=config.l2_clip_norm,
        noise_multiplier=alone,
        queries=asked,
        budget=config.epsilon,
        clipping="fast" if config.clipping == "auto" else config.clipping,
    )
    events = [*spent, plan.event(steps)]
    return dataclasses.replace(
        plan,
        search=search,
        epsilon=accounting.epsilon(events, delta, search=search),
        epsilon_rdp=accounting.epsilon_rdp(events, delta, search=search),
    )


def _refuse_unless_plain(rule: ClipRule | None) -> None:
    if rule is not None and not rule.plain:
        raise InputError(
            f"The clip rule {rule.name!r} says how gradients are clipped, and dp.enabled=False "
            "clips none: train with privacy, or without this mitigation."
        )


def _perturbation(
    config: PrivacyConfig,
    linear: Callable[[], Any] | None,
    expected_batch_size: int,
    public_size: int,
) -> Perturbation | None:
    """The objective of a config that minimises at once; None for noisy gradients."""
    if config.mechanism == "gradients":
        return None
    head = linear() if linear else None
    if head is None:
        raise InputError(
            f"dp.mechanism is {config.mechanism!r}, which is proved for a linear head on fixed "
            "features with labels of yes or no and no mitigation: use the method 'linear_probe' "
            "with target 'multi-label', or dp.mechanism='gradients'."
        )
    if expected_batch_size != public_size:
        raise InputError(
            f"dp.mechanism is {config.mechanism!r}, which takes everybody once: set "
            f"train.expected_batch_size to data.public_size ({public_size}), not "
            f"{expected_batch_size}."
        )
    return Perturbation(
        way=config.mechanism,
        labels=len(head.weights),
        weight=max(1.0, *head.weights),
        ridge=config.ridge,
        public_size=public_size,
        l2_clip_norm=config.l2_clip_norm,
    )


def _refuse_beside(asked: tuple[Any, ...]) -> None:
    """Refuses side queries, rates by group, clip rules and earlier runs beside a minimum."""
    if any(part for part in asked):
        raise InputError(
            "dp.mechanism is not 'gradients', and then nothing goes beside it: leave out the "
            "mitigation and train.start_from."
        )


def _delta(config: PrivacyConfig, public_size: int, earlier: Earlier | None) -> float:
    """The delta of a claim about all stages: no larger than that of any of them."""
    delta, before = chosen_delta(config.delta, public_size), earlier.delta if earlier else None
    if before is None or delta <= before or not config.enabled:
        return delta
    if config.delta is not None:
        raise InputError(
            f"dp.delta is {delta}, above the {before} of the run in {earlier and earlier.folder} "
            "that this one starts from, and the claim is about both: leave dp.delta out."
        )
    return before
