"""fast.clipped_sum equals the loop over single examples, whatever the model is made of."""

import contextlib
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxfair.privacy.sums import clipping, fast, ways

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SETTINGS = {
    "deadline": None,
    "database": None,
    "phases": [hypothesis.Phase.generate],
    "suppress_health_check": list(hypothesis.HealthCheck),
}
B = 5


class Drawn(NamedTuple):
    """A model drawn by hypothesis: initial parameters, input shape, forward function."""

    name: str
    params: dict[str, np.ndarray]
    shape: tuple[int, ...]
    apply: Callable[..., Any]


def loop_clipped_sum(loss_fn, params, batch, keys, mask, *, l2_clip_norm):
    """The truth: one example after the other, so that no example can touch another."""
    grads = lax.map(lambda xk: jax.grad(loss_fn)(params, *xk), (batch, keys))
    grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
    scales = clipping.scales_from_norms(clipping.per_example_norms(grads), mask, l2_clip_norm)
    return jax.tree.map(lambda g: clipping._weighted_sum(scales, g), grads)


def run(way, loss_fn, params, batch, mask=None, l2_clip_norm=1.0):
    n = jax.tree.leaves(batch)[0].shape[0]
    mask = jnp.ones(n, bool) if mask is None else jnp.asarray(mask)
    keys = jax.random.split(jax.random.key(7), n)
    call = compiled(way, loss_fn)
    return jax.tree.map(np.asarray, call(params, batch, keys, mask, l2_clip_norm))


def compiled(way, loss_fn):
    def call(params, batch, keys, mask, l2_clip_norm):
        return way(loss_fn, params, batch, keys, mask, l2_clip_norm=l2_clip_norm)

    return jax.jit(call, compiler_options=QUICK)


def norm(tree) -> float:
    return float(
        np.sqrt(sum(np.sum(np.square(x.astype(np.float64))) for x in jax.tree.leaves(tree)))
    )


def difference(a, b) -> float:
    return norm(jax.tree.map(np.subtract, a, b)) / max(norm(b), 1e-99)


def array(draw, *shape):
    seed = draw(st.integers(0, 2**32 - 1))
    fan_in = max(1, int(np.prod(shape[:-1])))
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


@st.composite
def convolutions(draw, transposed=False) -> Drawn:
    ndim = draw(st.integers(1, 3))
    space = {1: (2, 13), 2: (2, 9), 3: (2, 5)}[ndim]
    per_axis = lambda lo, hi: tuple(draw(st.integers(lo, hi)) for _ in range(ndim))
    shape, kernel = per_axis(*space), per_axis(1, 3)
    strides, dilation = per_axis(1, 3), per_axis(1, 2)
    groups = 1 if transposed else draw(st.sampled_from([1, 1, 2, 3]))
    c, o = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 5))
    padding = draw(
        st.sampled_from(["SAME", "explicit"])
        if not transposed
        else st.sampled_from(["SAME", "VALID"])
    )
    if padding == "explicit":
        reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        padding = tuple((draw(st.integers(0, 2)) + r, draw(st.integers(0, 2))) for r in reach)
    layout = {1: "W", 2: "HW", 3: "DHW"}[ndim]
    numbers = (f"N{layout}C", f"{layout}IO", f"N{layout}C")
    if draw(st.booleans()):
        numbers = (f"NC{layout}", f"OI{layout}", f"NC{layout}")
    params = {"kernel": array(draw, *kernel, c // groups, o), "bias": array(draw, o)}

    def apply(p, x, key):
        w = p["kernel"]
        if numbers[0][1] == "C":
            x, w = jnp.moveaxis(x, -1, 1), jnp.transpose(w, (ndim + 1, ndim, *range(ndim)))
        options = {"rhs_dilation": dilation, "dimension_numbers": numbers}
        if transposed:
            y = lax.conv_transpose(x, w, strides, padding, **options)
        else:
            y = lax.conv_general_dilated(
                x, w, strides, padding, feature_group_count=groups, **options
            )
        return (y if numbers[0][1] != "C" else jnp.moveaxis(y, 1, -1)) + p["bias"]

    images = draw(st.sampled_from([1, 1, 2]))  # a unit may hold several images
    name = "transposed" if transposed else "conv"
    return Drawn(f"{name}{ndim}d", params, (images, *shape, c), apply)


@st.composite
def denses(draw) -> Drawn:
    lead = draw(st.sampled_from([(), (1,), (7,), (40,), (3, 4)]))
    c, o = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    params = {"kernel": array(draw, c, o), "bias": array(draw, o)}
    return Drawn("dense", params, (*lead, c), lambda p, x, key: x @ p["kernel"] + p["bias"])


@st.composite
def attentions(draw) -> Drawn:
    t, c, heads = (
        draw(st.integers(1, 9)),
        2 * draw(st.integers(1, 4)),
        draw(st.sampled_from([1, 2])),
    )
    params = {name: array(draw, c, heads, c // heads) for name in "qkv"}
    params["out"] = array(draw, heads, c // heads, c)

    def apply(p, x, key):
        q, k, v = (jnp.einsum("tc,chd->thd", x, p[name]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("thd,uhd->htu", q, k))
        return x + jnp.einsum("htu,uhd,hdc->tc", weights, v, p["out"])

    return Drawn("attention", params, (t, c), apply)


@st.composite
def norms(draw) -> Drawn:
    c, groups = 2 * draw(st.integers(1, 4)), draw(st.sampled_from([1, 2]))
    params = {"scale": 1 + array(draw, c), "bias": array(draw, c), "kernel": array(draw, 3, c, c)}

    def apply(p, x, key):
        y = lax.conv_general_dilated(
            x[None], p["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )[0]
        y = y.reshape(-1, groups, c // groups)
        y = (y - y.mean((0, 2), keepdims=True)) * lax.rsqrt(y.var((0, 2), keepdims=True) + 1e-3)
        return y.reshape(-1, c) * p["scale"] + p["bias"]

    return Drawn("norm", params, (draw(st.integers(2, 12)), c), apply)


@st.composite
def embeddings(draw) -> Drawn:
    rows, c, t = draw(st.integers(2, 9)), draw(st.integers(1, 6)), draw(st.integers(1, 9))
    params = {"table": array(draw, rows, c), "position": array(draw, t, c)}

    def apply(p, x, key):
        ids = jnp.clip(jnp.abs(x[:, 0] * 3), 0, rows - 1)
        ids = jnp.where(jnp.isfinite(ids), ids, 0).astype(int)
        y = (p["table"][ids] + p["position"]) * x[:, :1]
        return y @ p["table"].T  # tied with the output

    return Drawn("embedding", params, (t, 1), apply)


@st.composite
def tied(draw) -> Drawn:
    t, c, o = (draw(st.integers(1, 9)) for _ in range(3))
    params = {"kernel": array(draw, c, o), "gain": array(draw, c)}
    standardise = draw(st.booleans())

    def apply(p, x, key):
        w = p["kernel"] * p["gain"][:, None]
        if standardise:
            w = (w - w.mean(0)) * 3
        inner = jax.checkpoint(lambda w, x: jnp.tanh(x @ w))
        return inner(w, x) @ p["kernel"].T + jnp.tanh(x @ w @ w.T)

    return Drawn("tied", params, (t, c), apply)


@st.composite
def scanned(draw) -> Drawn:
    t, c = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    params = {"kernels": array(draw, 3, c, c), "skip": array(draw, c, c)}

    def apply(p, x, key):
        dropped = x * jax.random.bernoulli(key, 0.7, x.shape)
        y, _ = lax.scan(lambda h, w: (jnp.tanh(h @ w), None), dropped, p["kernels"])
        return y + x @ p["skip"]

    return Drawn("scan", params, (t, c), apply)


LAYERS = st.one_of(
    convolutions(), convolutions(), convolutions(), convolutions(transposed=True),
    denses(), attentions(), norms(), embeddings(), tied(), scanned(),
)  # fmt: skip


def loss_of(model: Drawn, dtype=jnp.float32):
    def loss(params, x, key):
        params = jax.tree.map(lambda p: p.astype(dtype), params)
        y = model.apply(params, x.astype(dtype), key).astype(jnp.float32)
        return jnp.sum(jnp.sin(y + 0.3) * y)

    return loss


def batch_of(draw, model: Drawn):
    x = np.stack([array(draw, *model.shape) * scale for scale in (1, 0.1, 2, 1, 3)])
    x *= np.sqrt(max(1, np.prod(model.shape[:-1])))
    mask = np.array([True, True, draw(st.booleans()), draw(st.booleans()), True])
    x[3, ...] = np.where(mask[3], x[3], np.nan)
    if draw(st.booleans()):
        x[1].flat[draw(st.integers(0, x[1].size - 1))] = draw(st.sampled_from([np.nan, np.inf]))
    return jnp.asarray(x), jnp.asarray(mask)


@contextlib.contextmanager
def forced(way):
    """Takes `way` for every leaf for which it is exact, whatever the cost rule says."""
    if way == "auto":
        yield
        return
    rule = ways._choose_way

    def choose(producer, sites, shape, costs):
        chosen = rule(producer, sites, shape, costs)
        many = len(sites) > 1 or (sites and sites[0].positions > ways.GHOST_POSITIONS)
        if chosen == "vmap" or not producer.isometric or (way == "ghost" and many):
            return chosen
        return way

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ways, "_choose_way", choose)
        patch.setattr(ways, "KEPT_SHARE", 0.0)
        yield


def check_equal_to_loop(data) -> None:
    model = data.draw(LAYERS)
    x, mask = batch_of(data.draw, model)
    clip = data.draw(st.sampled_from([1e-3, 1.0, 1e6]))
    way = data.draw(st.sampled_from(["auto", "ghost", "product"]))
    hypothesis.note(f"{model.name} {model.shape} clip {clip} way {way}")
    args = (loss_of(model), model.params, x, mask, clip)
    with forced(way):
        ours = run(fast.clipped_sum, *args)
    assert difference(ours, run(loop_clipped_sum, *args)) <= 1e-5


def check_bfloat16(data) -> None:
    model = data.draw(LAYERS)
    x, _ = batch_of(data.draw, model)
    loss = loss_of(model, jnp.bfloat16)
    mask = np.arange(B) == 0
    ours, truth = (
        run(w, loss, model.params, x, mask) for w in (fast.clipped_sum, loop_clipped_sum)
    )
    assert norm(ours) <= 1.0
    assert norm(jax.tree.map(np.subtract, ours, truth)) <= 1e-2 * max(norm(truth), 0.1)


def parts(count, short):
    """Numbers of parts, those from `short` on slow."""
    return [pytest.param(i, marks=[pytest.mark.slow] * (i >= short)) for i in range(count)]


@pytest.mark.parametrize("part", parts(10, short=1))
def test_drawn_layers_equal_the_loop_in_float32(part):
    drawn(check_equal_to_loop, 45, part)


@pytest.mark.parametrize("part", parts(5, short=1))
def test_drawn_layers_in_bfloat16_stay_within_the_clip(part):
    drawn(check_bfloat16, 20, part)


def drawn(check, count, part):
    """Runs `check` on `count` draws; each part has its own."""
    test = hypothesis.given(st.data())(lambda data: check(data))
    test = hypothesis.settings(max_examples=count, **SETTINGS)(test)
    hypothesis.seed(part)(test)()


def test_a_kernel_summed_over_the_colours_of_a_grey_image_is_recognised():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((4, 9, 9, 1)), jnp.float32)
    params = {"kernel": jnp.asarray(rng.standard_normal((3, 3, 3, 8)), jnp.float32)}

    def loss(p, x, key):
        summed = jnp.sum(p["kernel"], 2, keepdims=True)
        numbers = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x[None], summed, (2, 2), "SAME", dimension_numbers=numbers)
        return jnp.sum(jnp.tanh(y))

    ((_, way, _),) = fast.explain(loss, params, x[0], jax.random.key(0))
    assert way == "kept"
    for clip in (1e-3, 1e3):
        truth = run(loop_clipped_sum, loss, params, x, l2_clip_norm=clip)
        assert difference(run(fast.clipped_sum, loss, params, x, l2_clip_norm=clip), truth) < 1e-5


def conv(ndim, groups=1, stride=1, dilation=1, transposed=False):
    """A convolution of 6 to 8 channels as a model with one leaf."""
    letters = "DHW"[-ndim:]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    params = {"kernel": np.ones((*(3,) * ndim, 6 // groups, 8), np.float32)}
    options = {"dimension_numbers": numbers, "rhs_dilation": (dilation,) * ndim}

    def apply(p, x, key):
        if transposed:
            return lax.conv_transpose(x, p["kernel"], (stride,) * ndim, "SAME", **options)
        return lax.conv_general_dilated(
            x, p["kernel"], (stride,) * ndim, "SAME", feature_group_count=groups, **options
        )

    return Drawn("conv", params, (1, *(6,) * ndim, 6), apply)


def attention(p, x, key):
    q, k, v = (jnp.einsum("tc,chd->thd", x, p[name]) for name in "qkv")
    mixed = jnp.einsum("htu,uhd->thd", jax.nn.softmax(jnp.einsum("thd,uhd->htu", q, k)), v)
    normed = (mixed - mixed.mean(-1, keepdims=True)) * lax.rsqrt(mixed.var(-1, keepdims=True) + 1)
    return jnp.einsum("thd,hdc->tc", normed * p["scale"] + p["bias"], p["out"])


def attention_model():
    """Attention with a LayerNorm at every position."""
    params = {name: np.ones((6, 2, 3), np.float32) for name in "qkv"}
    params |= {"out": np.ones((2, 3, 6)), "scale": np.ones(3), "bias": np.zeros(3)}
    return Drawn("attention", jax.tree.map(np.float32, params), (5, 6), attention)


RECOGNISED = {
    **{f"{n}D": conv(n) for n in (1, 2, 3)},
    **{f"{n}D with a stride": conv(n, stride=2) for n in (1, 2, 3)},
    **{f"{n}D dilated": conv(n, dilation=2) for n in (1, 2, 3)},
    **{f"{n}D in groups": conv(n, groups=2) for n in (1, 2, 3)},
    **{f"{n}D transposed": conv(n, stride=2, transposed=True) for n in (1, 2, 3)},
    "dense": Drawn("", {"kernel": np.ones((6, 8))}, (4, 6), lambda p, x, key: x @ p["kernel"]),
    "tied": Drawn(
        "", {"kernel": np.ones((6, 8))}, (4, 6),
        lambda p, x, key: jnp.tanh(x @ p["kernel"]) @ p["kernel"].T,
    ),
    "attention": attention_model(),
}  # fmt: skip


@pytest.mark.parametrize("name", RECOGNISED)
def test_no_kernel_of_a_known_layer_is_materialised(name):
    model = RECOGNISED[name]
    example = jax.ShapeDtypeStruct(model.shape, jnp.float32)
    params = jax.tree.map(jnp.float32, model.params)
    rows = fast.explain(loss_of(model), params, example, jax.random.key(0))
    slow = {path for path, way, _ in rows if way == "vmap"}
    assert slow <= {"['scale']", "['bias']"}, rows


def test_embeddings_and_weights_in_loops_are_materialised_and_listed():
    table = {"table": jnp.ones((9, 4)), "kernels": jnp.ones((3, 4, 4))}

    def loss(p, ids, key):
        y, _ = lax.scan(lambda h, w: (jnp.tanh(h @ w), None), p["table"][ids], p["kernels"])
        return jnp.sum(y)

    rows = fast.explain(loss, table, jax.ShapeDtypeStruct((5,), jnp.int32), jax.random.key(0))
    told = {path: (way, reason) for path, way, reason in rows}
    assert told == {
        "['kernels']": ("vmap", "made by scan"),
        "['table']": ("vmap", "made by scatter-add"),
    }


def small_model():
    """Every way at once: kept, ghost, product and vmap leaves, two of them tied."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(
        rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32
    )
    params = {
        "stem": draw(3, 3, 2, 8), "deep": draw(3, 3, 8, 24), "up": draw(4, 4, 24, 8),
        "head": draw(512, 6), "scale": 1 + draw(8), "tied": draw(6, 6),
    }  # fmt: skip
    conv = functools.partial(
        lax.conv_general_dilated, padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

    def loss(p, x, key):
        y = jnp.tanh(conv(x[None], p["stem"], (1, 1))) * p["scale"] ** 3
        y = jnp.tanh(conv(y, p["deep"], (4, 4)))
        y = jnp.tanh(lax.conv_transpose(y, p["up"], (4, 4), "SAME"))
        y = 0.1 * jnp.tanh(y.reshape(-1)[:512] @ p["head"])
        return jnp.sum(jnp.sin(jnp.tanh(y @ p["tied"]) @ p["tied"] + y))

    return loss, params, draw(8, 8, 8, 2) * 8


@functools.cache
def truth_of_small_model(l2_clip_norm=1e-3):
    return run(loop_clipped_sum, *small_model(), l2_clip_norm=l2_clip_norm)


def test_the_ways_taken_are_listed_leaf_by_leaf():
    loss, params, x = small_model()
    example = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    rows = fast.explain(loss, params, example, jax.random.key(0))
    assert {path: way for path, way, _ in rows} == {
        "['deep']": "ghost", "['head']": "ghost", "['scale']": "vmap",
        "['stem']": "kept", "['tied']": "product", "['up']": "ghost",
    }  # fmt: skip
    assert all(reason for _, _, reason in rows)


def test_the_sum_equals_the_plain_way():
    loss, params, x = small_model()
    ours = run(fast.clipped_sum, loss, params, x, l2_clip_norm=1e-3)
    plain = run(clipping.clipped_sum, loss, params, x, l2_clip_norm=1e-3)
    assert difference(ours, plain) <= 1e-5
    assert difference(ours, truth_of_small_model()) <= 1e-5


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_shards_of_a_batch_add_up_to_the_single_device_sum(devices):
    loss, params, x = small_model()
    mask, keys = jnp.arange(8) != 5, jax.random.split(jax.random.key(7), 8)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def step(params, x, keys, mask):
        local = fast.clipped_sum(loss, params, x, keys, mask, l2_clip_norm=1e-3)
        return lax.psum(local, "data")

    specs = (P(), P("data"), P("data"), P("data"))
    step = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
    ours = jax.jit(step, compiler_options=QUICK)(params, x.at[5].set(jnp.nan), keys, mask)
    truth = run(clipping.clipped_sum, loss, params, x, mask, l2_clip_norm=1e-3)
    assert difference(jax.tree.map(np.asarray, ours), truth) <= 1e-5


def test_each_leaf_counts_in_the_norm():
    """Were one leaf's norm skipped, a gradient in that leaf alone would pass unclipped."""
    loss, params, x = small_model()
    for leaf in params:
        alone = lambda p, x, key, leaf=leaf: 100 * loss({**params, leaf: p[leaf]}, x, key)
        total = run(fast.clipped_sum, alone, {leaf: params[leaf]}, x[:1])
        assert 0.9 < norm(total) <= 1.0, leaf


@pytest.mark.parametrize(
    "leaf", [0, 2, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 3, 4, 5))]
)
def test_the_equality_tests_would_notice_a_leaf_without_norm(leaf, monkeypatch):
    loss, params, x = small_model()
    joint = fast.joint
    monkeypatch.setattr(fast, "joint", lambda norms: joint(norms[:leaf] + norms[leaf + 1 :]))
    ours = run(fast.clipped_sum, loss, params, x, l2_clip_norm=1e-3)
    monkeypatch.undo()
    assert difference(ours, truth_of_small_model()) > 1e-5


def test_products_summed_one_by_one_give_the_same_sum(monkeypatch):
    monkeypatch.setattr(fast, "ENTRIES_AT_ONCE", 0)
    loss, params, x = small_model()
    ours = run(fast.clipped_sum, loss, params, x, l2_clip_norm=1e-3)
    assert difference(ours, truth_of_small_model()) <= 1e-5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_patches_are_made_of_the_map_and_not_held(dtype):
    def loss(p, example, key):
        x = jnp.pad(example.astype(dtype), ((1, 1), (0, 0)))
        patches = jnp.concatenate([x[:-2], x[1:-1], x[2:]], axis=1)
        return jnp.sum(jnp.sin(patches @ p["w"].astype(dtype)).astype(jnp.float32))

    rng = np.random.default_rng(3)
    params = {"w": jnp.asarray(rng.standard_normal((12, 5)), jnp.float32)}
    x = jnp.asarray(rng.standard_normal((6, 8, 4)), jnp.float32)
    (leaf,) = ways.choose_ways(loss, params, x[0], jax.random.key(0)).leaves
    assert sorted(v.aval.shape for v in leaf.cuts[0]) == [(8, 4), (8, 5)]
    way = run(fast.clipped_sum, loss, params, x, l2_clip_norm=0.5)
    truth = run(loop_clipped_sum, loss, params, x, l2_clip_norm=0.5)
    assert difference(way, truth) <= (1e-5 if dtype == jnp.float32 else 1e-2)


def test_several_examples_at_once_give_the_same_sum(monkeypatch):
    monkeypatch.setattr(fast, "EXAMPLES_AT_ONCE", {"cpu": 3})
    loss, params, x = small_model()
    ours = run(fast.clipped_sum, loss, params, x, l2_clip_norm=1e-3)
    assert difference(ours, truth_of_small_model()) <= 1e-5


def test_padding_and_bad_rows_contribute_exactly_zero():
    loss, params, x = small_model()
    good = np.array([True, False, False, True, False, True, False, True])
    bad = x.at[1].set(jnp.nan).at[2, 0, 0, 0].set(jnp.nan).at[4].set(jnp.inf).at[6].set(3.0)
    mask = good | np.array([0, 0, 1, 0, 1, 0, 0, 0], bool)
    ours = run(fast.clipped_sum, loss, params, bad, mask)
    truth = run(fast.clipped_sum, loss, params, x.at[~good].set(0.0), good)
    assert all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(truth)))


@pytest.mark.parametrize("way", [fast.clipped_sum, clipping.clipped_sum])
def test_a_bad_row_of_a_grouped_convolution_stays_alone(way):
    """Under vmap the filter gradients of grouped convolutions become one convolution."""
    params = {
        "kernel": jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 4)), jnp.float32)
    }

    def loss(p, x, key):
        filters = p["kernel"] * jnp.mean(x)  # each example has its own, so no leaf is cut
        y = lax.conv_general_dilated(
            x[None], filters, (1,), "SAME",
            dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=2,
        )  # fmt: skip
        return jnp.sum(jnp.tanh(y))

    x = jax.random.normal(jax.random.key(0), (3, 6, 4))
    ours = run(way, loss, params, x.at[1].set(jnp.nan))
    truth = run(loop_clipped_sum, loss, params, x, [True, False, True])
    assert norm(truth) > 0
    assert difference(ours, truth) <= 1e-5


def test_a_batch_without_real_rows_gives_exact_zeros():
    loss, params, x = small_model()
    for batch, mask in ((x.at[:].set(jnp.nan), np.zeros(8, bool)), (x[:0], np.zeros(0, bool))):
        total = run(fast.clipped_sum, loss, params, batch, mask)
        assert all(np.array_equal(g, np.zeros_like(g)) for g in jax.tree.leaves(total))


def test_gradients_of_any_size_are_clipped_to_c():
    loss, params, x = small_model()
    scaled = lambda p, example, key: example["size"] * loss(p, example["x"], key)
    calls = [compiled(way, scaled) for way in (fast.clipped_sum, clipping.clipped_sum)]
    keys, mask = jax.random.split(jax.random.key(7), 1), jnp.ones(1, bool)
    for size in (1e-24, 1e-12, 1.0, 1e12, 1e30):
        batch = {"x": x[:1], "size": jnp.full(1, size)}
        ours, truth = (call(params, batch, keys, mask, size * 1e-3) for call in calls)
        ours, truth = (jax.tree.map(lambda g: np.float64(g), t) for t in (ours, truth))
        assert 0.99e-3 < norm(ours) / size <= 1e-3
        assert difference(ours, truth) <= 1e-5


def loss_of_products(p, example, key):
    """Its gradient is the product x^T c of what the example holds."""
    return jnp.sum((example["x"] @ p["kernel"]) * example["c"])


@pytest.mark.parametrize(
    ("way", "positions", "depth"),
    [
        ("ghost", 2, 512),
        ("ghost", 2, 1024),
        ("ghost", 3, 2304),
        ("ghost", 4, 7500),
        ("ghost", 64, 512),
        ("product", 64, 16),
        ("product", 1024, 32),
        ("product", 4096, 32),
    ],
)
def test_constant_rows_that_cancel_are_clipped_to_c_and_not_dropped(way, positions, depth):
    """Equal values round alike, so sums go astray together: 11 C was seen before sums were cut."""
    params = {"kernel": jnp.zeros((depth, 48))}
    keys, mask = jax.random.split(jax.random.key(7), 1), jnp.ones(1, bool)
    with forced(way):
        call = jax.jit(functools.partial(fast.clipped_sum, loss_of_products))
        lefts = (1.0, 1e-1, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
        for left, made in itertools.product(lefts, (cancelling_rows, cancelling_halves)):
            x, c = made(positions, depth, left)
            true = np.linalg.norm(x.astype(np.float64).T @ c.astype(np.float64))
            batch = {"x": jnp.asarray(x)[None], "c": jnp.asarray(c)[None]}
            total = call(params, batch, keys, mask, l2_clip_norm=true / 2)
            ours = norm(jax.tree.map(np.asarray, total)) / (true / 2)
            assert 0 < ours <= 1
            assert left < 1 or made is cancelling_halves or ours > 0.999


def cancelling_rows(positions, depth, left):
    """Constant rows, and cotangents of which the share `left` outlives the sum over positions."""
    rng = np.random.default_rng(int(1 / left))
    size = rng.uniform(1, 2, positions).astype(np.float32)
    c = rng.standard_normal((positions, 48))
    c -= (1 - left) * np.outer(size, size @ c) / (size @ size)
    return np.repeat(size[:, None], depth, axis=1), c.astype(np.float32)


def cancelling_halves(positions, depth, left):
    """One constant everywhere, and cotangents that are the same, up to half way, and then minus."""
    rng = np.random.default_rng(int(1 / left))
    half = positions // 2
    sign = np.r_[np.full(half, 1 + left), np.full(positions - half, -half / (positions - half))]
    x = np.full((positions, depth), rng.uniform(1, 2), np.float32)
    return x, np.outer(sign, rng.uniform(1, 2, 48)).astype(np.float32)


@pytest.mark.parametrize("way", ["ghost", "product"])
def test_cancelling_positions_never_exceed_c(way):
    """Nearly constant activations against cotangents that sum to zero: <AA', BB'> cancels."""
    rng = np.random.default_rng(3)
    params = {"kernel": jnp.asarray(rng.standard_normal((40, 30)), jnp.float32)}

    def loss(p, x, key):
        y = x @ p["kernel"]
        return jnp.sum(jnp.sin(y - y.mean(0)))

    with forced(way):
        call = compiled(fast.clipped_sum, loss)
        keys, mask = jax.random.split(jax.random.key(7), 1), jnp.ones(1, bool)
        for offset in (1.0, 1e2, 1e4, 1e6):
            x = jnp.asarray(rng.standard_normal((1, 16, 40)) + offset, jnp.float32)
            ours = norm(jax.tree.map(np.asarray, call(params, x, keys, mask, 0.5)))
            assert 0 < ours <= 0.5
            assert offset > 1 or ours > 0.499


def test_what_the_loss_closes_over_may_be_traced():
    loss, params, x = small_model()

    @functools.partial(jax.jit, compiler_options=QUICK)
    def step(params, x, shift):
        keys, mask = jax.random.split(jax.random.key(7), 8), jnp.ones(8, bool)
        moved = lambda p, x, key: loss(p, x + shift, key)
        return fast.clipped_sum(moved, params, x, keys, mask, l2_clip_norm=1e-3)

    ours = jax.tree.map(np.asarray, step(params, x - 2, jnp.float32(2)))
    assert difference(ours, truth_of_small_model()) <= 1e-4
