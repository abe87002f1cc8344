"""What the devices tell each other in a step, read from the compiled program."""

import math
import re

import jax
import pytest

from tests.privacy.toy import Bench, conv_loss, conv_params, method_of, plan_of

DEVICES = 8
TALK = re.compile(r"= (.*?) (all-\w+|reduce-scatter|collective-\w+)(?:-start)?\(")


def talk(text):
    """(kind, bytes that a device has in the end) of each collective of a compiled program."""
    for shapes, kind in TALK.findall(text):
        sizes = re.findall(r"\b[a-z]+(\d+)\[([\d,]*)\]", shapes)
        yield (
            kind,
            sum(int(b) // 8 * math.prod(map(int, filter(None, n.split(",")))) for b, n in sizes),
        )


@pytest.fixture(scope="module")
def compiled():
    plan, method = plan_of(1.0, clipping="fast"), method_of(conv_loss, conv_params)
    bench = Bench(method, plan, DEVICES, microbatch=1, chunk=DEVICES)
    return bench, bench.assembly.compiled().as_text()


def test_devices_gather_two_numbers_for_each_parameter_and_nothing_else(compiled):
    """No example, gradient or parameter is moved, and nothing is laid out anew."""
    bench, text = compiled
    found = list(talk(text))
    assert {kind for kind, _ in found} == {"all-gather"}
    count = sum(leaf.size for leaf in jax.tree.leaves(bench.params))
    assert sum(size for _, size in found) == DEVICES * 2 * 4 * count


def test_a_leaf_is_gathered_at_most_twice(compiled):
    bench, text = compiled
    assert len(list(talk(text))) <= 2 * len(jax.tree.leaves(bench.params))
