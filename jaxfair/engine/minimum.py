"""The one step of a run whose plan asks for the minimum of a convex objective, with its noise.

It stands where the gradient step stands: paid for before, saved after, by the same loop. What is
computed and why it is private: `jaxfair/privacy/perturbation.py`.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.data.loader import read_rows
from jaxfair.engine.feed import Feed
from jaxfair.engine.mesh import put_replicated
from jaxfair.engine.scan import Delivery
from jaxfair.engine.step import Step, TrainState
from jaxfair.errors import InputError
from jaxfair.methods.base import Linear, Method, PyTree
from jaxfair.privacy import sampling
from jaxfair.privacy.perturbation import released_minimum
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.queries import REST

__all__ = ["check_linear", "minimum_delivery"]


def minimum_delivery(
    step: Step, feed: Feed, frozen: PyTree, linear: Linear | None
) -> Delivery | None:
    """Returns a delivery whose one update is the released minimum over all units of a feed.

    None where the plan asks for noisy gradients.

    A unit takes part with one of its images, chosen as in any draw; rows are filled up to the
    plan's public number.
    """
    plan, asked = feed.plan, feed.plan.perturbation
    if asked is None or linear is None:
        return None
    rest = {query.name: query.noise_stddev for query in plan.queries}.get(REST, 0.0)

    def update(
        state: TrainState, frozen: PyTree, number: int
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        features, label = _everybody(feed, linear, number)
        theta = released_minimum(
            asked,
            features,
            label,
            np.asarray(linear.weights),
            secret=feed.secret if plan.private else None,
            noise_multiplier=plan.noise_multiplier,
            rest_stddev=rest,
        )
        head = {"kernel": theta[:-1].astype(np.float32), "bias": theta[-1].astype(np.float32)}
        params = put_replicated(feed.mesh, {"head": head})
        done = put_replicated(feed.mesh, jnp.asarray(number + 1, state.step.dtype))
        norm = jnp.asarray(np.linalg.norm(theta), jnp.float32)
        return step.init(params)._replace(step=done), {"params_norm": norm}

    def arguments(first: int, count: int) -> Iterator[tuple[Any, ...]]:
        yield from ((number,) for number in range(first, first + count))

    return Delivery(update, frozen, arguments)


def check_linear(method: Method, plan: PrivacyPlan, params: PyTree) -> None:
    """Raises InputError where a plan minimises a Method that is no linear head with its labels."""
    if plan.perturbation is None:
        return
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    fits = method.linear is not None and len(method.linear.weights) == plan.perturbation.labels
    if not fits or names != {"['head']['kernel']", "['head']['bias']"} or method.stages:
        raise InputError(
            f"dp.mechanism is {plan.perturbation.way!r}, and {method.name!r} is not the linear head"
            " that it was priced for: use 'linear_probe', or dp.mechanism='gradients'."
        )
    if jax.process_count() > 1:
        raise InputError(
            f"dp.mechanism is {plan.perturbation.way!r}, which one host computes: start the run "
            "on one host."
        )


def _everybody(feed: Feed, linear: Linear, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) and labels (n, l) of one image of each unit; NaN where nothing was asked."""
    people, draw = feed.population, feed.draw(number)
    rows = sampling.draw_images(feed.secret, number, draw, people.rows, people.ids)
    padded = np.full(max(len(rows), feed.plan.padded_to or 0), -1, np.int64)
    padded[: len(rows)] = rows
    found = read_rows(feed.fields, padded)
    label = np.array(found["label"], np.float64)
    if "label_mask" in found:
        label[~np.asarray(found["label_mask"], bool)] = np.nan
    label[padded < 0] = np.nan
    return np.asarray(found[linear.features], np.float64), label
