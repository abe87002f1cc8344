"""Clip rules on the toy bench: the rules that ship, and ones that lie about their bounds."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.privacy import noise
from jaxfair.privacy.cliprules.base import ClipRule, SideQuery, priced
from jaxfair.privacy.cliprules.bounded import bounded_clip
from jaxfair.privacy.cliprules.by_group import group_clip
from jaxfair.privacy.cliprules.cell_counts import cell_counts
from jaxfair.privacy.cliprules.global_adapt import global_clip
from jaxfair.privacy.cliprules.group_losses import group_losses
from jaxfair.privacy.cliprules.normalised import normalised_clip
from jaxfair.privacy.cliprules.quantile import quantile_clip
from jaxfair.privacy.cliprules.soft import soft_clip
from jaxfair.privacy.cliprules.weighted import weights_after_clip
from tests.privacy.toy import SECRET, Bench, examples_of, method_of, plan_of

__all__ = [
    "MADE",
    "bench_of",
    "grouped_examples",
    "lying",
    "noisy_answers",
    "plan_with",
    "rule_of",
    "summed",
    "taken_up",
]

GROUPS = 3
BY_GROUP = lambda example: example["group"]
KNOWN_LAST = lambda example: jnp.where(example["group"] < 0, GROUPS, example["group"])
COUNTS = {"cells": GROUPS, "cell": BY_GROUP, "most": 4.0, "query_share": 0.1}
LOSSES = {"groups": GROUPS + 1, "group": KNOWN_LAST, "rate": 0.3, "bound": 2.0, "memory": 0.5,
          "query_share": 0.1}  # fmt: skip
ADAPTIVE = {"rate": 0.3, "query_share": 0.1}
MADE = {
    "quantile_clip": lambda: quantile_clip(quantile=0.6, first=0.5, **ADAPTIVE),
    "bounded_clip": lambda: bounded_clip(quantile=0.6, first=0.8, lowest=0.4, **ADAPTIVE),
    "soft_clip": lambda: soft_clip(quantile=0.6, first=2.0, **ADAPTIVE),
    "global_clip": lambda: global_clip(first=3.0, tolerance=0.7, **ADAPTIVE),
    "group_clip": lambda: group_clip(groups=GROUPS, group=BY_GROUP, memory=0.5, query_share=0.1),
    "normalised_clip": lambda: normalised_clip(gamma=0.05),
    "weights_after_clip": lambda: weights_after_clip(weights=(0.2, 3.0, 1.5), group=BY_GROUP),
    "cell_counts": lambda: cell_counts(**COUNTS),
    "cell_counts, after": lambda: cell_counts(**COUNTS, after_clip=True),
    "group_losses": lambda: group_losses(**LOSSES),
    "group_losses, after": lambda: group_losses(**LOSSES, after_clip=True),
}
"""Made anew by each test that puts a fault into a rule's file."""


def lying() -> ClipRule:
    """Factors and answers that look at the whole batch, and are unbounded, negative and NaN."""
    wild = jnp.array([-1.0, 1e30, jnp.nan, jnp.inf, 1.0])
    return ClipRule(
        "lying",
        init=lambda: {"seen": jnp.zeros(2)},
        factor=lambda norms, groups, state: wild[groups + 1] * (1 + jnp.mean(norms)) + groups[0],
        queries=(SideQuery("loud", 0.5, 2, 0.1),),
        answers=lambda norms, losses, groups, state: {
            "loud": jnp.stack([norms * 1e3 + jnp.sum(norms), wild[groups + 1]], axis=1)
        },
        update=lambda state, noisy, batch: {"seen": noisy["loud"]},
        group=BY_GROUP,
    )


def rule_of(name):
    return lying() if name == "lying" else MADE[name]()


def plan_with(rule, sigma=1.0, **fields):
    """A plan that prices the rule; its gradient noise is `sigma` C, 0 for none."""
    queries = (*fields.pop("queries", ()), *priced(rule, sigma or 1.0))
    return plan_of(sigma, rule=rule, queries=queries, **fields)


def bench_of(rule, sigma=0.0, clipping="vmap", prob=1.0, **fields):
    plan = plan_with(rule, sigma, clipping=clipping, prob=prob)
    return Bench(method_of(), plan, **{"microbatch": 4, "chunk": 8} | fields)


def grouped_examples(scales, groups, seed=0):
    return examples_of(scales, seed) | {"group": np.asarray(groups, np.int32)}


def summed(bench, examples, state=None):
    """The sums of one draw before noise: (clipped sum, answers), flat float64."""
    return taken_up(bench, bench.feed(examples), state)


def taken_up(bench, source, state=None):
    """The sums of the first draw of a feed before noise, as of `summed`."""
    begun = bench.start()
    if state is not None:
        begun = begun._replace(rule_state=jax.tree.map(jnp.copy, state))  # a step takes it over
    for chunk, randomness, _ in source.chunks(0, 1):
        begun, _ = bench.assembly.update(begun, chunk, randomness, is_last=False)
    flat = lambda tree: np.concatenate(
        [np.zeros(0), *(np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree))]
    )
    return flat(begun.clipped_sum), flat(begun.answers)


def noisy_answers(plan, answers, step, secret=SECRET):
    """What `update` is told: the answers with the noise of this step, made again from the keys."""
    words = jnp.asarray(noise.answer_key_data(secret, step, len(plan.rule.queries)))
    noisy = {}
    for number, query in enumerate(plan.queries):
        like = [jnp.zeros(len(answers[query.name]))]
        drawn = noise.gaussian_like(like, words[number : number + 1], query.noise_stddev)[0]
        noisy[query.name] = answers[query.name] + drawn
    return noisy
