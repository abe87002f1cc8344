"""The table: which test and which fault belong to which sharp edge.

Nothing is listed twice: a test is named `test_edge_NN_<what holds>`, its fault `fault_NN_<what
goes wrong>`, and the number joins them.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import NamedTuple

from tests.privacy import (
    test_batched,
    test_edges_accounting,
    test_edges_claims,
    test_edges_collectives,
    test_edges_counts,
    test_edges_draws,
    test_edges_exported,
    test_edges_groups,
    test_edges_methods,
    test_edges_mitigations,
    test_edges_moments,
    test_edges_noise,
    test_edges_plan,
    test_edges_precision,
    test_edges_predicted,
    test_edges_publish_wiring,
    test_edges_published,
    test_edges_release,
    test_edges_rules,
    test_edges_run,
    test_edges_search,
    test_edges_sum,
    test_edges_views,
    test_edges_wiring,
    test_precision,
    test_rounding,
)
from tests.privacy.mutations import (
    faults_batched,
    faults_claims,
    faults_collectives,
    faults_counts,
    faults_draws,
    faults_exported,
    faults_groups,
    faults_methods,
    faults_mitigations,
    faults_moments,
    faults_plan,
    faults_precision,
    faults_predicted,
    faults_price,
    faults_publish_wiring,
    faults_published,
    faults_rounding,
    faults_rules,
    faults_run,
    faults_search,
    faults_sum,
    faults_views,
    faults_wiring,
)

__all__ = ["EDGES", "Edge"]

_TESTS = (
    test_edges_sum,
    test_edges_draws,
    test_edges_noise,
    test_edges_accounting,
    test_edges_release,
    test_edges_plan,
    test_edges_predicted,
    test_edges_wiring,
    test_edges_counts,
    test_edges_claims,
    test_edges_mitigations,
    test_edges_methods,
    test_edges_groups,
    test_edges_rules,
    test_edges_moments,
    test_precision,
    test_edges_precision,
    test_rounding,
    test_edges_collectives,
    test_batched,
    test_edges_run,
    test_edges_publish_wiring,
    test_edges_published,
    test_edges_exported,
    test_edges_views,
    test_edges_search,
)
_FAULTS = (
    faults_sum,
    faults_rounding,
    faults_collectives,
    faults_precision,
    faults_batched,
    faults_draws,
    faults_counts,
    faults_price,
    faults_plan,
    faults_predicted,
    faults_wiring,
    faults_claims,
    faults_mitigations,
    faults_methods,
    faults_groups,
    faults_rules,
    faults_moments,
    faults_run,
    faults_publish_wiring,
    faults_published,
    faults_exported,
    faults_views,
    faults_search,
)


class Edge(NamedTuple):
    """Attributes:
    number: of the edge; its test and its fault carry it.
    title: the fault, in words.
    test: passes as the package is, takes at most a temporary folder.
    fault: `() -> context manager` under which the test must fail.
    """

    number: int
    title: str
    test: Callable[..., None]
    fault: Callable[[], AbstractContextManager[None]]


def _numbered(modules: tuple[ModuleType, ...], prefix: str) -> dict[int, Callable]:
    found: dict[int, Callable] = {}
    for module in modules:
        for name, value in vars(module).items():
            match = re.match(rf"{prefix}_(\d+)_", name)
            if match and value.__module__ == module.__name__:
                number = int(match[1])
                if number in found:
                    raise ValueError(f"Edge {number} has two of {prefix}.")
                found[number] = value
    return found


def _edges() -> dict[int, Edge]:
    tests, faults = _numbered(_TESTS, "test_edge"), _numbered(_FAULTS, "fault")
    if odd := sorted(tests.keys() ^ faults.keys()):
        raise ValueError(f"These edges lack a test or a fault: {odd}.")
    title = lambda fault: fault.__name__.split("_", 2)[2].replace("_", " ")
    return {n: Edge(n, title(faults[n]), tests[n], faults[n]) for n in sorted(tests)}


EDGES = _edges()
