"""One suite for every stage of every Method that has several, and for every arm of the fair ones.

Their encoders pass on twelve numbers and learn nothing, so that each stage compiles in a moment;
real encoders pass test_every_method.py, which asks the last stage.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.methods import catalog
from jaxfair.methods.gaussian import GaussianConfig, make_gaussian
from jaxfair.methods.mitigations.catalog import mitigated
from jaxfair.methods.mitigations.dro import GroupDRO
from jaxfair.methods.pca import PCAConfig, make_pca
from jaxfair.privacy.sums import fast, rounding
from tests.methods import mitigated as small
from tests.methods.staged import (
    adversarial,
    drawn,
    fairread,
    fcro,
    opened,
    published,
    stages_of,
)
from tests.methods.test_every_method import CASES as METHODS

B, C = 6, 0.3
KEYS = jax.random.split(jax.random.key(5), B)


class Case(NamedTuple):
    """Attributes:
    stages: `() -> [(Method, params, frozen)]`.
    batch: `() -> arrays` of B examples.
    silent: beginnings of the parameters of each stage that only a known attribute teaches.
    """

    stages: Callable[[], list]
    batch: Callable[[], dict[str, Any]]
    silent: tuple[tuple[str, ...], ...] = ()


def first_rows():
    """Three examples lack an attribute or both, and one its label."""
    return {name: jnp.asarray(values[:B]) for name, values in drawn().items()}


def staged(make, silent=(), **fields):
    return Case(lambda: stages_of(make(**fields)), first_rows, silent)


def last(make, silent=(), **fields):
    return Case(lambda: stages_of(make(**fields))[-1:], first_rows, (silent,))


def unlearning(**fields):
    """The adversarial method with its reversal on; its schedule sets that during a run."""

    def begun():
        (method, params, frozen), *_ = stages_of(adversarial(**fields))
        return [(method, params, frozen | {"strength": jnp.float32(0.7)})]

    return Case(begun, first_rows, (("adversary", "attributes"),))


def mitigating(name):
    return Case(lambda: small.stages(name), lambda: {n: a[:B] for n, a in small.BATCH.items()})


def buying_losses():
    """Group DRO as it is under privacy: weights of noisy losses that were bought before."""
    config = GroupDRO(**small.SEX, private=True)
    rule, method = config.rule(), mitigated("group_dro", config, small.PLAIN)
    params, frozen = method.init(jax.random.key(0), small.SPEC)
    told = {name: 0.5 + jnp.arange(len(v)) for name, v in rule.method_inputs(rule.init()).items()}
    return [(method, small.moved(params, 1), frozen | told)]


def adding_up(make, config):
    """Passes over numbers that were prepared; `init` would make an extractor."""

    def begun():
        first = make(config)
        variables = {"moment": jnp.eye(5)}, {"turn": jnp.eye(4), "shift": jnp.zeros(4)}
        found = [(first, *variables)]
        for stage in first.stages:
            found.append((stage.method, *stage.begin(*found[-1][1:], None, None)))
        return found

    numbers = 3 * np.random.default_rng(2).normal(size=(B, 4)).astype(np.float32)
    return Case(begun, lambda: {"numbers": jnp.asarray(numbers)})


FUSED = ("fusion/adversary",)
CASES = {
    "fcro": staged(fcro, (("",), (), ())),
    "fairread": staged(fairread, (("",), (), (), FUSED), dropout=0.1),
    "fairread, conditional": last(fairread, FUSED, conditional=True, alpha=0.5),
    "fairread, attributes dropped": last(fairread, FUSED, at_test="dropped"),
    "fairread, published": last(published, FUSED, dropout=0.1),
    "fairread, not tuned": last(fairread, tuned=False, alpha=0.0),
    "adversarial": unlearning(orthogonality="example"),
    "adversarial, LNTL": unlearning(adversary_on="features", reversal=0.0),
    "adversarial, AL": unlearning(adversary_on="logit"),
    "adversarial, demographic parity": unlearning(conditional=False, embedding_weight=0.5),
    "norms of groups": mitigating("group_norms"),
    "group DRO": Case(buying_losses, lambda: {n: a[:B] for n, a in small.BATCH.items()}),
    "JTT": mitigating("jtt"),
    "last layer on balanced data": mitigating("balanced_head"),
    "gaussian": adding_up(make_gaussian, GaussianConfig(grid=2, dims=4, passes=2)),
    "pca": adding_up(make_pca, PCAConfig(grid=2, dims=4, passes=1, directions=2)),
}
STAGES = {
    **{"fcro": 3, "fairread": 4, "JTT": 2, "last layer on balanced data": 2, "gaussian": 2},
}
CLIPPED = [("fcro", 1), ("fairread", 3), ("fairread, published", 0)]
"""What fast clipping meets in no other test: a moment, and re-fusion of vectors and of maps."""

EVERY = [(name, place) for name in CASES for place in range(STAGES.get(name, 1))]


@functools.cache
def built(name):
    return CASES[name].stages(), CASES[name].batch()


def loss_of(method, frozen):
    return lambda params, example, key: method.loss(params, frozen, example, key)[0]


@functools.cache
def compiled(name, place):
    """`batch -> (losses (B,), gradients)` of a stage, compiled once."""
    method, params, frozen = built(name)[0][place]
    each = jax.vmap(jax.value_and_grad(loss_of(method, frozen)), in_axes=(None, 0, 0))
    found = jax.jit(each, compiler_options=small.QUICK)
    return lambda batch, keys=KEYS: jax.device_get(found(params, batch, keys))


def row(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


@pytest.fixture(params=EVERY, ids=lambda found: f"{found[0]}-{found[1]}")
def stage(request):
    return request.param


@pytest.mark.parametrize("name", CASES)
def test_every_stage_of_a_case_is_asked(name):
    assert len(built(name)[0]) == STAGES.get(name, 1)


def test_every_method_with_stages_and_a_group_has_a_case():
    grouped = {kind for kind, config, _ in METHODS.values() if hasattr(config, "attributes")}
    several = {
        kind for kind, config, _ in METHODS.values() if catalog.make_method(kind, config).stages
    }
    assert grouped | several <= {name.split(",")[0] for name in CASES}


def test_losses_of_a_stage_are_finite_float32_and_follow_from_their_keys(stage):
    name, place = stage
    method, params, _ = built(name)[0][place]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert not method.couples_examples and method.batch_loss is None
    (losses, grads), (again, same) = (compiled(name, place)(built(name)[1]) for _ in range(2))
    assert losses.shape == (B,) and losses.dtype == np.float32
    assert np.isfinite(losses).all() and np.isfinite(flat(grads)).all() and flat(grads).any()
    np.testing.assert_array_equal(losses, again)
    jax.tree.map(np.testing.assert_array_equal, grads, same)


def test_an_example_of_a_stage_adds_what_it_would_add_alone(stage):
    """Beside others, and in the company of copies of itself."""
    call, batch = compiled(*stage), built(stage[0])[1]
    losses, grads = call(batch)
    for i in range(B):
        alone, own = call(jax.tree.map(lambda a, i=i: jnp.stack([a[i]] * B), batch))
        assert alone[i] == losses[i]
        jax.tree.map(np.testing.assert_array_equal, row(own, i), row(grads, i))


@pytest.mark.parametrize(("name", "place"), CLIPPED)
def test_fast_clipping_of_a_stage_is_the_loop_and_padding_is_nobody_even_as_nan(name, place):
    (stages, batch), mask = built(name), jnp.arange(B) < B - 1
    method, params, frozen = stages[place]
    spoilt = jax.tree.map(
        lambda a: a.at[B - 1].set(jnp.nan) if jnp.issubdtype(a.dtype, jnp.floating) else a, batch
    )
    total = functools.partial(fast.clipped_sum, loss_of(method, frozen), l2_clip_norm=C)
    found = jax.jit(total, compiler_options=small.QUICK)(params, spoilt, KEYS, mask)
    _, grads = compiled(name, place)(batch)
    rows = [flat(row(grads, i)) for i in range(B - 1)]
    clip = rounding.bound(C, 0) * (1 - 2.0**-12)
    truth = sum(g * min(1, clip / max(np.linalg.norm(g), 1e-30)) for g in rows)
    np.testing.assert_allclose(flat(found), truth, atol=2e-5 * np.abs(truth).max())


@pytest.mark.slow
@pytest.mark.parametrize("make", [fcro, fairread, adversarial], ids=lambda make: make.__name__)
def test_a_private_run_of_all_stages_is_the_same_on_1_2_and_8_devices(make, tmp_path):
    ends, ledgers = [], []
    for devices in (1, 2, 8):
        folder = tmp_path / f"{devices}"
        trainer = opened(folder, make(), private=True, devices=devices, microbatch=6)
        trainer.run()
        ends.append(flat(trainer.params()))
        ledgers.append((folder / "ledger.jsonl").read_bytes())
    assert ledgers[0] == ledgers[1] == ledgers[2]
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], atol=1e-4 * np.abs(ends[0]).max())


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].silent])
def test_who_has_no_known_attribute_teaches_nobody_to_tell_attributes(name):
    _, batch = built(name)
    unknown = batch | {"group": jnp.full_like(batch["group"], -1)}
    for place, beginnings in enumerate(CASES[name].silent):
        for given, heard in ((batch, True), (unknown, False)):
            losses, grads = compiled(name, place)(given)
            assert np.isfinite(losses).all()
            told = {
                jax.tree_util.keystr(path, simple=True, separator="/"): leaf
                for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
            }
            for start in beginnings:
                found = [leaf for path, leaf in told.items() if path.startswith(start)]
                assert found and any(np.any(leaf) for leaf in found) == heard, (start, given)


@pytest.mark.parametrize("name", CASES)
def test_scores_of_an_arm_are_its_own_rows_alone_and_the_same_again(name):
    stages, batch = built(name)
    method, params, frozen = stages[-1]
    score = jax.jit(method.score, compiler_options=small.QUICK)
    copies = jax.tree.map(lambda a: jnp.stack([a[0]] * B), batch)
    first, again, alone = (score(params, frozen, rows) for rows in (batch, batch, copies))
    assert set(first) == set(method.tasks)
    for task in method.tasks:
        assert first[task].shape == (B,) and first[task].dtype == jnp.float32
        assert np.isfinite(first[task]).all()
        np.testing.assert_array_equal(first[task], again[task])
        np.testing.assert_allclose(first[task][0], alone[task][0], rtol=1e-6)
