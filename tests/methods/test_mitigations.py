"""Mitigations are functions Method -> Method; of each that fits privacy the bound still holds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import engine
from jaxfair.engine.assembly import assemble, join
from jaxfair.engine.chunk import abstract_randomness, unit_keys, zeros
from jaxfair.engine.stages import stages_of
from jaxfair.errors import InputError
from jaxfair.methods.base import carrying
from jaxfair.methods.mitigations import clips
from jaxfair.methods.mitigations.catalog import (
    MITIGATIONS,
    PRIVACY,
    check_private,
    mitigated,
)
from jaxfair.privacy.sums import clipping, fast, rounding
from tests.methods.mitigated import (
    ACTING,
    BATCH,
    CASES,
    CLIPS,
    FITS,
    PLAIN,
    QUICK,
    SPEC,
    N,
    loss_of,
    stages,
)
from tests.privacy.toy import plan_of

C = 0.5
KEYS = jax.random.split(jax.random.key(7), N)
LAST = {name: stages(name)[-1] for name in ACTING}
"""The stage of each mitigation that is its own: Method, parameters, frozen part."""


def vector(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def assembly_of(name, plan):
    method = mitigated(name, CASES[name], PLAIN)
    return assemble(
        plan, method, optax.sgd(0.1), spec=SPEC, variables=method.init(jax.random.key(0), SPEC),
        microbatch=4, mesh=engine.make_mesh(1),
    )  # fmt: skip


@functools.cache
def gradients(name):
    """`(batch, keys) -> per-example gradients` of a mitigation's last stage, compiled once."""
    method, params, frozen = LAST[name]
    grad = jax.vmap(jax.grad(loss_of(method, frozen)), in_axes=(None, 0, 0))
    return jax.jit(functools.partial(grad, params), compiler_options=QUICK)


@functools.cache
def summed(name, way):
    """`(batch, mask) -> clipped sum`, compiled once."""
    method, params, frozen = LAST[name]
    loss = loss_of(method, frozen)
    fun = lambda batch, mask: way(loss, params, batch, KEYS, mask, l2_clip_norm=C)
    return jax.jit(fun, compiler_options=QUICK)


def looped(name, keys=KEYS, units=0):
    """The clipped sum by a loop over examples, in float64."""
    each, clip = gradients(name)(BATCH, keys), rounding.bound(C, units) * (1 - 2.0**-12)
    rows = [vector(jax.tree.map(lambda a, i=i: a[i], each)) for i in range(N)]
    return sum(row * min(1, clip / max(np.linalg.norm(row), 1e-30)) for row in rows)


def test_every_mitigation_has_a_case_and_says_what_it_guarantees_and_costs():
    assert {*CASES, *CLIPS} == set(MITIGATIONS)
    for name, entry in MITIGATIONS.items():
        says = getattr(clips, name) if name in CLIPS else entry.apply
        assert "Guarantee:" in says.__doc__ and "cost" in says.__doc__.lower(), name
        assert entry.clip is not None or name not in CLIPS
        assert entry.privacy in PRIVACY and entry.why in entry.standing
        assert name in CLIPS or entry.standing.endswith(f"It costs {entry.costs}.")
        changes = (entry.sets, entry.rates, entry.clip)
        assert name in ACTING or any(changes), f"{name} changes nothing"


@pytest.mark.parametrize("name", [name for name in FITS if MITIGATIONS[name].privacy == "fits"])
def test_what_fits_privacy_passes_every_check_at_the_price_of_the_plain_method(name):
    plan = plan_of(1.0)
    assert all(stage.plan == plan for stage in stages_of(assembly_of(name, plan), assemble))
    check_private(name)


@pytest.mark.parametrize("name", [name for name in ACTING if name not in FITS])
def test_a_form_for_plain_training_is_refused_by_the_private_step(name):
    with pytest.raises(InputError, match="couples the examples"):
        assembly_of(name, plan_of())
    assembly_of(name, dataclasses.replace(plan_of(), private=False))


@pytest.mark.parametrize("name", FITS)
def test_adding_anybody_moves_the_sum_by_at_most_c(name):
    for place, size in enumerate([1e-30, 1.0, 1e4, 1e30, np.nan, np.inf]):
        wild = BATCH | {"x": BATCH["x"].at[place].multiply(size)}
        others = jnp.arange(N) != place
        sums = [summed(name, clipping.clipped_sum)(wild, others | there) for there in (False, True)]
        assert np.linalg.norm(vector(sums[1]) - vector(sums[0])) <= C * (1 + 1e-6)


@pytest.mark.parametrize("name", FITS)
def test_nobody_decides_what_another_one_adds(name):
    before = gradients(name)(BATCH, KEYS)
    for place in range(3):
        others = np.arange(N) != place
        put = lambda a, i=place: a.at[i].set(a[i - 1])
        after = gradients(name)(jax.tree.map(put, BATCH), KEYS)
        for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
            np.testing.assert_array_equal(one[others], two[others])


@pytest.mark.parametrize("name", FITS)
def test_fast_clipping_gives_the_sum_of_the_loop(name):
    truth, everybody = looped(name), jnp.ones(N, bool)
    for way in (fast.clipped_sum, clipping.clipped_sum):
        found = vector(summed(name, way)(BATCH, everybody))
        np.testing.assert_allclose(found, truth, atol=1e-5 * np.abs(truth).max())


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_private_step_of_the_second_training_sums_as_the_loop_on_any_mesh(devices):
    method, params, frozen = LAST["jtt"]
    made = join(
        plan_of(clip=C), method, optax.sgd(0.1), spec=SPEC, variables=(params, frozen),
        microbatch=8 // devices, mesh=engine.make_mesh(devices),
    )  # fmt: skip
    fields = {name: np.asarray(value).__getitem__ for name, value in BATCH.items()}
    state, keys = made.begin(), zeros(abstract_randomness(made.num_leaves))
    for rows in (range(8), range(8, N)):
        state, _ = made.update(state, made.chunk(fields, rows), keys, is_last=False)
    keys = unit_keys(keys.examples, jnp.arange(N))
    truth = looped("jtt", keys, made.plan.max_draw)
    np.testing.assert_allclose(vector(state.clipped_sum), truth, atol=3e-5 * np.abs(truth).max())


@pytest.mark.parametrize("name", ACTING)
def test_losses_follow_from_their_keys_and_are_finite_for_the_unknown_too(name):
    method, params, frozen = LAST[name]
    call = jax.vmap(lambda example, key: loss_of(method, frozen)(params, example, key))
    if method.batch_loss is not None:
        call = lambda batch, keys: method.batch_loss(params, frozen, batch, jnp.ones(N, bool), keys)
    call = jax.jit(call, compiler_options=QUICK)
    once, again, other = call(BATCH, KEYS), call(BATCH, KEYS), call(BATCH, KEYS[::-1])
    np.testing.assert_array_equal(once, again)
    assert np.isfinite(once).all() and not np.array_equal(once, other)


@pytest.mark.parametrize("name", ACTING)
def test_the_score_of_an_image_depends_on_no_other(name):
    method, params, frozen = LAST[name]
    score = jax.jit(method.score, compiler_options=QUICK)
    scores = score(params, frozen, BATCH)
    changed = score(params, frozen, jax.tree.map(lambda a: a.at[1:].set(a[0]), BATCH))
    for task in PLAIN.tasks:
        assert scores[task].shape == (N,) and jnp.isfinite(scores[task]).all()
        assert scores[task][0] == changed[task][0] and scores[task][1] != changed[task][1]


def test_what_does_not_fit_is_refused_with_the_reason(monkeypatch):
    entry = MITIGATIONS["group_weights"]._replace(privacy="not_separable", why="it reads a batch")
    monkeypatch.setitem(MITIGATIONS, "of_batches", entry)
    with pytest.raises(InputError) as caught:
        check_private("of_batches")
    said = str(caught.value)
    assert "has no loss of one example" in said and "it reads a batch" in said
    assert "dp.enabled=False" in said and "\n" not in said and "noisy_counts" in said


def test_an_unknown_mitigation_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'group_weights'"):
        mitigated("group_weight", CASES["group_weights"], PLAIN)


def test_what_a_method_prepares_hands_the_group_on():
    prepared = PLAIN._replace(prepare=lambda frozen, raw: {"x": 2 * raw["x"]})
    example = carrying(prepared, SPEC).prepare({}, {"x": jnp.ones(3), "group": jnp.arange(2)})
    assert set(example) == {"x", "group"} and float(example["x"][0]) == 2.0
    without = {"x": SPEC["x"]}
    assert carrying(prepared, without) is prepared and carrying(PLAIN, SPEC) is PLAIN
