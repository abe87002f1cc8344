"""The table of sharp edges is whole, and the runner tells caught from not caught."""

import contextlib

import pytest

from tests.privacy.mutations.__main__ import outcome, verdict
from tests.privacy.mutations.table import EDGES, Edge


@pytest.mark.parametrize("number", sorted(EDGES))
def test_every_fault_can_be_put_in(number):
    with EDGES[number].fault():
        assert callable(EDGES[number].test)


def test_every_edge_has_a_test_and_a_fault():
    assert len(EDGES) >= 60
    assert all(edge.test.__name__.startswith(f"test_edge_{n:02d}_") for n, edge in EDGES.items())
    assert len({edge.test for edge in EDGES.values()}) == len(EDGES)


def flag(values):
    """An edge whose test looks at one flag, and whose fault turns it."""

    def test():
        assert values["good"]

    @contextlib.contextmanager
    def fault():
        values["good"] = not values["good"]
        yield
        values["good"] = not values["good"]

    return Edge(1, "flag", test, fault)


def test_a_fault_that_its_test_sees_is_caught():
    assert verdict(flag({"good": True}))["caught"]


def test_a_test_that_fails_clean_or_a_fault_that_changes_nothing_is_not_caught():
    assert not verdict(flag({"good": False}))["caught"]
    idle = flag({"good": True})._replace(fault=contextlib.nullcontext)
    assert not verdict(idle)["caught"]


def test_a_fault_that_crashes_is_not_caught():
    def broken():
        raise TypeError("the fault is wrong, not the code")

    assert outcome(broken) == "TypeError: the fault is wrong, not the code"
    assert verdict(flag({"good": True})._replace(test=broken))["caught"] is False


def test_a_cheap_edge_is_caught_in_this_process():
    assert verdict(EDGES[13])["caught"]
    assert verdict(EDGES[37])["caught"]
