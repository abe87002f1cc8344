"""Which programs a model file may hold: those of every Method, and none that may not end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.model_file import compiled as ready
from jaxfair.model_file.function import exported, named_leaves, restored
from tests.methods import test_every_method as catalogue
from tests.methods.made import made
from tests.model_file.made import PARAMS, SPEC, tiny

SLOW = ("fairread-published", "reverse_distillation", "fae", "adversarial")
ALIKE = ("pca", "classifier")
"""Methods that are compiled here: one with linear algebra, and one with a network."""


def last_stage(case):
    method, spec = catalogue.first_of(case), catalogue.CASES[case][2]
    params, frozen = made(method, spec, method.stages)
    method = method.stages[-1].method if method.stages else method
    return method, params, frozen, spec


@pytest.mark.parametrize(
    "case",
    [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in catalogue.CASES],
)
def test_what_a_method_exports_is_read_back(case):
    """No operation of a Method of ours is refused when it is written, nor when it is read."""
    assert callable(restored(exported(*last_stage(case))))


@pytest.mark.parametrize("case", ALIKE)
def test_a_program_made_ready_says_what_it_says_otherwise_and_is_far_from_its_limits(case):
    method, params, frozen, spec = last_stage(case)
    program = restored(exported(method, params, frozen, spec))
    leaves = named_leaves(params, frozen)
    image = np.random.default_rng(0).random((2, *spec["image"].shape)).astype(np.float32)
    given = {"image": image}
    made_ready = ready.compiled(program, leaves, given)
    found, wanted = made_ready(leaves, given), jax.jit(program)(leaves, given)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)
    work = made_ready.cost_analysis()["flops"]
    assert 0 < work < (ready.WORK * 2 + ready.WORK_OF_A_NUMBER * image.size) / 100


def test_a_method_with_a_loop_is_refused_when_it_is_exported():
    def score(params, frozen, batch):
        halved = jax.lax.while_loop(lambda x: x.max() > 1, lambda x: x / 2, batch["image"])
        return {"mass": halved.mean((1, 2, 3)), "maps": halved[..., 0]}

    with pytest.raises(InputError, match="'line' cannot be exported: its program has a loop"):
        exported(tiny()._replace(score=score), PARAMS, {"offset": jnp.zeros(())}, SPEC)
