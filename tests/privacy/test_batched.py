"""The batched way gives the sum of the loop, of operands rounded once, and keeps the clip."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxfair.errors import InputError
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.sums import (
    batched,
    choice,
    clipping,
    costs,
    fast,
    formats,
    graph,
    machines,
    merged,
    ways,
)
from tests.privacy.contributions import QUICK, contributing, norms_of, plan_of_loss, summed
from tests.privacy.test_fast import (
    LAYERS,
    SETTINGS,
    array,
    conv,
    difference,
    loop_clipped_sum,
    loss_of,
    parts,
    run,
    small_model,
)
from tests.privacy.toy import (
    Bench,
    C,
    conv_loss,
    conv_params,
    examples_of,
    looped,
    method_of,
    plan_of,
)

FORMATS = list(formats.FORMATS)
SOME = [pytest.param(n, marks=[pytest.mark.slow] * (n == "tf32")) for n in FORMATS]
GPU = machines.MACHINES["gpu"]
OFF = {"float32": 1e-5, "tf32": 1e-2, "bfloat16": 5e-2}
"""How far the rounding of operands may move a sum of few examples, as a share of it."""


def check_contributions(data) -> None:
    """Ordinary, large, huge, NaN and masked rows, each below C and the sum of all what was made."""
    model = data.draw(LAYERS)
    form = formats.FORMATS[data.draw(st.sampled_from(FORMATS))]
    hypothesis.note(f"{model.name} {model.shape} {form.name}")
    x = np.stack([array(data.draw, *model.shape) * scale for scale in (1, 30, 1, 2, 1)])
    x *= np.sqrt(max(1, np.prod(model.shape[:-1])))
    x[2].flat[0] = data.draw(st.sampled_from([np.nan, np.inf, 3e38]))
    mask = np.array([True, True, True, True, False])
    call = contributing(loss_of(model), form)
    for clip in (1e-3, 1.0, 1e6):
        found, sums, operands = call(model.params, jnp.asarray(x), jnp.asarray(mask), clip)
        sizes = norms_of(found)
        assert (sizes <= clip).all(), (clip, sizes)
        assert sizes[4] == 0
        assert clip > 1e-3 or sizes[:2].max() > 0.9 * clip or sizes[:2].max() < 1e-4
        total = np.sqrt(sum(float(np.sum(np.square(np.float64(s)))) for s in sums))
        assert total <= sizes.sum() * (1 + 1e-5)
    assert_of_the_format(operands, form)


def assert_of_the_format(operands, form):
    for leaf in operands:
        for x in jax.tree.leaves(leaf) if isinstance(leaf, list) else []:
            np.testing.assert_array_equal(formats.rounded(x, form), x)


@pytest.mark.parametrize("part", parts(8, short=1))
def test_a_contribution_recomputed_in_float64_of_the_rounded_operands_is_at_most_c(part):
    test = hypothesis.given(st.data())(lambda data: check_contributions(data))
    count = 4 if part == 0 else 30
    test = hypothesis.settings(max_examples=count, **SETTINGS)(test)
    hypothesis.seed(part)(test)()


@pytest.mark.parametrize("name", SOME)
def test_the_batched_sum_is_that_of_the_loop(name):
    loss, params, x = small_model()
    x = x.at[1].set(jnp.nan)
    mask = np.arange(8) != 5
    ours = run(way_of(name), loss, params, x, mask, l2_clip_norm=1e-3)
    truth = run(loop_clipped_sum, loss, params, x, mask & (np.arange(8) != 1), l2_clip_norm=1e-3)
    assert difference(ours, truth) <= OFF[name]


def way_of(name):
    def way(loss_fn, params, batch, keys, mask, *, l2_clip_norm):
        how = choice.How("fast", name, "accelerator")
        clip = {"l2_clip_norm": l2_clip_norm}
        return choice.clipped_sum(how, loss_fn, params, batch, keys, mask, **clip)

    return way


def of_every_shape():
    """Convolutions of 1 to 3 dimensions, plain, strided, dilated, grouped and transposed."""
    kinds = [{}, {"stride": 2}, {"dilation": 2}, {"groups": 2}, {"stride": 2, "transposed": True}]
    return [(n, kind) for n in (1, 2, 3) for kind in kinds]


@pytest.mark.parametrize(("ndim", "kind"), of_every_shape())
def test_the_sum_over_examples_of_a_convolution_is_one_convolution(ndim, kind):
    model = conv(ndim, **kind)
    example = jax.ShapeDtypeStruct(model.shape, jnp.float32)
    form = formats.FORMATS["float32"]
    (leaf,) = plan_of_loss(loss_of(model), model.params, example, form).leaves
    (eqn,) = leaf.producer.sites
    assert merged.is_convolution(leaf, 0)
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(3, *v.aval.shape)), jnp.float32) for v in eqn.invars)
    made = jax.make_jaxpr(lambda a, b: merged.merged_convolution(eqn, a, b, form))(a, b)
    names = [e.primitive.name for e in made.eqns]
    assert names.count("conv_general_dilated") == 1
    assert not {"dot_general", "scan", "while"} & set(names)
    ours = merged.merged_convolution(eqn, a, b, form)
    alone = jax.jit(lambda a, b: graph.bind(eqn, [a, b])[0])
    truth = sum(np.asarray(alone(a[i], b[i]), np.float64) for i in range(3))
    np.testing.assert_allclose(ours, truth, atol=1e-5 * np.abs(truth).max())


def two_leaves():
    """A convolution and a product of several positions, whose gradients are of one size."""
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 1, 6), "dense": (6, 5)}
    params = {n: jnp.asarray(rng.normal(size=s) / 3, jnp.float32) for n, s in shapes.items()}

    def loss(p, x, key):
        numbers = ("NHWC", "HWIO", "NHWC")
        maps = jax.lax.conv_general_dilated(
            x[None], p["conv"], (1, 1), "SAME", dimension_numbers=numbers
        )
        return jnp.sum(jnp.sin(jnp.tanh(maps.reshape(-1, 6)) @ p["dense"]))

    return loss, params, jnp.asarray(rng.normal(size=(4, 5, 5, 1)), jnp.float32)


def test_edge_240_operands_are_rounded_once_before_norm_and_sum():
    loss, params, x = two_leaves()
    for name in ("tf32", "bfloat16"):
        form = formats.FORMATS[name]
        found, _, operands = contributing(loss, form)(params, x, jnp.ones(4, bool), 1e-2)
        assert_of_the_format(operands, form)
        assert (norms_of(found) <= 1e-2).all()
        assert norms_of(found).min() > 0.98e-2


def test_edge_241_the_margin_is_that_of_the_precision():
    """Equal rows, whose scaled operand rounds up in every entry: nearly half a unit of TF32."""
    loss = lambda p, x, key: jnp.sum((x["x"] @ p["w"]) * x["c"])
    params, mask = {"w": jnp.zeros((4, 6))}, jnp.ones(1, bool)
    call = jax.jit(
        lambda x: summed("tf32", loss, params, x, mask, 1.0)["w"], compiler_options=QUICK
    )
    worst = 0.0
    for size in np.random.default_rng(0).uniform(1, 2, 60):
        batch = {"x": jnp.ones((1, 3, 4)), "c": jnp.full((1, 3, 6), size, jnp.float32)}
        worst = max(worst, float(np.linalg.norm(np.float64(call(batch)))))
    assert 0.999 < worst <= 1.0


def test_edge_242_no_leaf_is_left_out_of_the_batched_norm():
    loss, params, x = two_leaves()
    made = lambda f, p, x, clip: jax.jit(
        lambda p, x: summed("float32", f, p, x, jnp.ones(1, bool), clip), compiler_options=QUICK
    )(p, x)
    for leaf in params:
        alone = lambda p, x, key, leaf=leaf: 100 * loss({**params, leaf: p[leaf]}, x, key)
        total = made(alone, {leaf: params[leaf]}, x[:1], 1.0)
        size = np.linalg.norm(np.float64(total[leaf]))
        assert 0.9 < size <= 1.0
    both = made(loss, params, x[:1], 1e-2)
    size = np.sqrt(sum(np.sum(np.square(np.float64(g))) for g in both.values()))
    assert 0.9e-2 < size <= 1e-2


def test_a_step_on_two_devices_takes_the_precision_of_its_plan_and_keeps_the_clip():
    plan = plan_of(clipping="fast", precision="bfloat16", public_size=4)
    bench = Bench(method_of(conv_loss, conv_params), plan, devices=2, microbatch=2, chunk=4)
    examples = examples_of([1e3, 1.0, np.nan, 30.0])
    exact = looped(bench, {name: a[[0, 1, 3]] for name, a in examples.items()})
    total = bench.noisy_sum(examples)
    assert 1e-5 < np.linalg.norm(total - exact) / np.linalg.norm(exact) < OFF["bfloat16"]
    for scale in (1e3, 1e6):
        alone = np.linalg.norm(bench.noisy_sum(examples_of([scale])))
        assert 0.97 * C < alone <= C


@pytest.mark.parametrize("name", SOME)
def test_cancelling_positions_are_clipped_to_c_and_not_dropped(name):
    """The cotangents of many positions add up to a thousandth of themselves."""
    loss = lambda p, x, key: jnp.sum((x["x"] @ p["w"]) * x["c"])
    rng, mask = np.random.default_rng(0), jnp.ones(1, bool)
    for t, p, q in ((4, 300, 200), (300, 16, 12)):
        params = {"w": jnp.zeros((p, q))}
        call = jax.jit(lambda x, clip, params=params: summed(name, loss, params, x, mask, clip))
        c = rng.normal(size=(1, t, q))
        c -= 0.999 * c.mean(axis=1, keepdims=True)
        batch = {"x": jnp.full((1, t, p), 1.7), "c": jnp.asarray(c, jnp.float32)}
        true = np.linalg.norm(np.einsum("btp,btq->pq", *(np.float64(v) for v in batch.values())))
        size = np.linalg.norm(np.float64(call(batch, true / 2)["w"])) / (true / 2)
        assert 0 < size <= 1, (t, size)


def test_the_way_follows_from_precision_and_device_unless_it_is_named():
    assert not choice.How("fast").is_batched
    assert not choice.How("vmap", way="accelerator").is_batched
    assert choice.How("fast", way="accelerator").is_batched
    assert choice.How("fast", "tf32").is_batched
    assert choice.rule(choice.How("fast")) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"precision": "tf23"}, "dp.precision is 'tf23'; it must be float32 or tf32 or bfloat16"),
        ({"precision": "tf32", "clipping": "vmap"}, "dp.precision is 'tf32'; it must be float32"),
        ({"precision": "tf32", "way": "loop"}, "dp.way is 'loop'; it must be auto or accelerator"),
        ({"way": "gpu"}, "dp.way is 'gpu'"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, words):
    with pytest.raises(InputError, match=words):
        PrivacyConfig(**fields)


def test_rounds_divide_the_batch_and_fit_the_cache():
    loss, params, x = small_model()
    form = formats.FORMATS["tf32"]
    small = GPU._replace(cache=20_000.0, room=20_000.0)
    for leaf in plan_of_loss(loss, params, x[0], form).leaves:
        if leaf.sites:
            count = costs.at_once(leaf.way, leaf.sites, 12, form, small)
            assert count in (1, 2, 3, 4, 6, 12)
            held = sum(4 * s.groups * s.rows * s.cols for s in leaf.sites)
            assert leaf.way == "ghost" or count == 1 or count * held <= 20_000
    assert costs.at_once("ghost", leaf.sites, 12, form, GPU._replace(room=1e12)) == 12


def test_the_cost_rule_prefers_what_it_predicts_to_be_fastest():
    loss, params, x = small_model()
    form = formats.FORMATS["tf32"]
    for leaf in plan_of_loss(loss, params, x[0], form).leaves:
        if leaf.way in ("ghost", "product") and len(leaf.sites) == 1:
            took = {way: costs.seconds(way, leaf.sites, form, GPU) for way in ("ghost", "product")}
            assert took[leaf.way] == min(took.values())


def test_margins_of_float32_are_those_of_the_plain_way():
    assert formats.FLOAT32.margin == clipping.CLIP_MARGIN
    assert formats.FLOAT32.slack == fast.SLACK
    assert costs.GHOST_POSITIONS["float32"] == ways.GHOST_POSITIONS
    assert batched.rule_of(formats.FLOAT32) is not None
