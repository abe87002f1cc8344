"""What the verifier asks of a config's mitigation: side queries and rates, as it implies them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxfair.privacy.cliprules import by_group, cell_counts, global_adapt, group_losses, quantile
from jaxfair.privacy.perturbation import Perturbation
from jaxfair.privacy.queries import Query, listed

__all__ = ["ASKED", "Asked", "asked_faults", "rate_faults"]

TOLERANCE = 1e-6


class Asked(NamedTuple):
    """Attributes:
    query: the name of the query in privacy.json.
    sensitivity: what one unit moves it by at most.
    share: of each draw's budget, where the config leaves `query_share` open.
    """

    query: str
    sensitivity: float
    share: float


ASKED = {
    "bounded_clip": Asked(quantile.QUERY, 0.5, 0.02),
    "global_clip": Asked(global_adapt.QUERY, 1.0, 0.02),
    "group_clip": Asked(by_group.QUERY, 1.0, 0.05),
    "group_dro": Asked(group_losses.QUERY, math.sqrt(2), 0.05),
    "noisy_counts": Asked(cell_counts.QUERY, 1.0, 0.01),
    "quantile_clip": Asked(quantile.QUERY, 0.5, 0.02),
    "soft_clip": Asked(quantile.QUERY, 0.5, 0.02),
}
"""The query of each mitigation that has one; all others ask for the gradient sum alone."""


def asked_faults(statement: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Returns where the side queries of a private statement are not those of the config.

    Args:
      statement: whose queries can be read, as `verify_costs.query_faults` says.
      config: config.json; one that `engine.open` was given by hand says nothing of queries.
    """
    if not _is_whole(config):
        return []
    if config["dp"].get("mechanism", "gradients") != "gradients":
        return _perturbed_faults(statement, config)
    chosen = config.get("mitigation") or {}
    wanted, rows = [], statement["queries"][1:]
    if asked := ASKED.get(chosen.get("name") or ""):
        share = chosen.get("query_share") or asked.share
        sigma = statement["joint_noise_multiplier"] / math.sqrt(share)
        wanted = listed([Query(asked.query, asked.sensitivity, sigma)])
    if len(rows) == len(wanted) and all(_alike(*pair) for pair in zip(rows, wanted)):
        return []
    return [f"queries beside the gradient sum are {rows}, and the config asks for {wanted}"]


def _perturbed_faults(statement: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Noise and payments of a minimum, computed again from its config (`perturbation.py`)."""
    dp, rows = config["dp"], statement["queries"][1:]
    asked = Perturbation(
        way=dp["mechanism"],
        labels=max(1, len(rows) - 1),
        weight=max(1.0, *(config["method"].get("class_weights") or (1.0,))),
        ridge=dp["ridge"],
        public_size=config["data"]["public_size"],
        l2_clip_norm=dp["l2_clip_norm"],
    )
    sigma, queries = asked.multipliers(statement["joint_noise_multiplier"])
    alike = len(rows) == len(queries) and all(map(_alike, rows, listed(queries)))
    if alike and math.isclose(sigma, statement["noise_multiplier"], rel_tol=TOLERANCE):
        return []
    return [
        f"noise_multiplier is {statement['noise_multiplier']} beside {rows}, and {dp['mechanism']} "
        f"perturbation at that budget has {sigma} beside {listed(queries)}"
    ]


def rate_faults(statement: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Returns where rates by group are not those that the config's upsampling asks for."""
    chosen, rows = config.get("mitigation") or {}, statement["group_sampling"]
    if statement["grade"] == "none":
        return []
    if chosen.get("name") != "upsampling":
        told = "group_sampling has rates by group, and the config asks for one rate for all"
        return [told] if rows and _is_whole(config) else []
    wanted = [statement["sampling_prob"] * factor for factor in chosen["factors"]]
    found = [row.get("sampling_prob") for row in rows[1:]]
    if found == wanted:
        return []
    return [f"group_sampling has the rates {found}, and the config asks for {wanted}"]


def _is_whole(config: Mapping[str, Any]) -> bool:
    """Whether it is a config of `train`, which says all that a run does."""
    return "split" in config.get("data", {})


def _alike(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    numbers = [name for name in wanted if name != "name"]
    return row["name"] == wanted["name"] and all(
        math.isclose(row[name], wanted[name], rel_tol=TOLERANCE) for name in numbers
    )
