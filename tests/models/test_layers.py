"""Layers against plain lax and torch, batched and under vmap(grad)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxfair.errors import InputError
from jaxfair.models import layers, norms

# size, kernel, stride, padding, c_in, c_out: small maps go through patches, large ones do not
SHAPES = [
    ((8, 8), 5, 2, 2, 3, 4),
    ((2, 2), 5, 1, 2, 6, 5),
    ((9, 7), 3, 2, 1, 2, 3),
    ((40, 40), 7, 2, 3, 3, 4),
    ((6, 5), 1, 1, 0, 4, 7),
    ((33, 20), 1, 2, 0, 4, 7),
    ((4, 5, 6), 3, 2, 1, 2, 3),
    ((12, 12, 12), 3, 1, 1, 2, 3),
]


def plain(x, kernel, stride, padding):
    letters = "DHW"[-(x.ndim - 2) :]
    return lax.conv_general_dilated(
        x, kernel, (stride,) * len(letters), ((padding,) * 2,) * len(letters),
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        precision="highest",
    )  # fmt: skip


def arrays(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]


def close(ours, theirs, tolerance=1e-5):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize("size, k, stride, pad, c_in, c_out", SHAPES)
def test_convolution_and_its_gradients_equal_lax(size, k, stride, pad, c_in, c_out):
    x, kernel = arrays(0, (2, *size, c_in), (*(k,) * len(size), c_in, c_out))
    y, pull = jax.vjp(lambda x, w: layers.convolve(x, w, stride=stride, padding=pad), x, kernel)
    truth, pull_truth = jax.vjp(lambda x, w: plain(x, w, stride, pad), x, kernel)
    close(y, truth)
    (cotangent,) = arrays(1, y.shape)
    for ours, theirs in zip(pull(cotangent), pull_truth(cotangent)):
        close(ours, theirs)


@pytest.mark.parametrize("limit", ["INPUT_GRADIENT_LIMIT", "FILTER_GRADIENT_LIMIT"])
def test_gradients_on_maps_beyond_the_limit_equal_lax(limit, monkeypatch):
    monkeypatch.setattr(layers, limit, 0)
    test_convolution_and_its_gradients_equal_lax(*SHAPES[3])


@pytest.mark.parametrize("size", [(4, 4), (33, 20), (4, 5, 6)])
def test_a_grey_image_counts_as_repeated_to_the_channels_of_the_kernel(size):
    x, cotangent = arrays(0, (2, *size, 1), (2, *size, 5))
    module = layers.Conv(5, 3, padding=1, use_bias=True, channels=3)
    params = module.init(jax.random.key(0), x)
    assert params["params"]["kernel"].shape == (*(3,) * len(size), 3, 5)
    repeated = lambda p, x: module.apply(p, jnp.repeat(x, 3, axis=-1))
    truth, pull_truth = jax.vjp(repeated, params, x)
    y, pull = jax.vjp(module.apply, params, x)
    close(y, truth)
    jax.tree.map(close, pull(cotangent), pull_truth(cotangent))


def test_the_filter_gradient_of_a_batch_is_never_held_per_example():
    x, kernel = arrays(0, (7, 12, 12, 3), (3, 3, 3, 4))
    conv = lambda w, xi: layers.convolve(xi[None], w, stride=1, padding=1)
    loss = lambda w: jnp.sum(jnp.sin(jax.vmap(conv, in_axes=(None, 0))(w, x)))
    program = jax.jit(jax.grad(loss)).lower(kernel).as_text()
    assert "7x27x4" not in program and "7x3x3x3x4" not in program and "27x4" in program


@pytest.mark.parametrize("size, k, stride, pad, c_in, c_out", SHAPES[:4])
def test_per_example_filter_gradients_equal_a_loop(size, k, stride, pad, c_in, c_out):
    x, kernel = arrays(0, (3, *size, c_in), (k, k, c_in, c_out))

    def loss(w, xi, conv):
        return jnp.sum(jnp.sin(conv(xi[None], w)))

    def ours_conv(a, b):
        return layers.convolve(a, b, stride=stride, padding=pad)

    grad = jax.grad(lambda w, xi: loss(w, xi, ours_conv))
    ours = jax.vmap(grad, in_axes=(None, 0))(kernel, x)
    for i in range(3):
        truth = jax.grad(lambda w: loss(w, x[i], lambda a, b: plain(a, b, stride, pad)))(kernel)  # noqa: B023
        close(ours[i], truth)


@pytest.mark.parametrize("size, kernel, stride", [((4, 3), 6, 2), ((5,), 9, 3), ((2, 3, 2), 6, 2)])
def test_upsampling_equals_the_transposed_convolution_of_lax(size, kernel, stride):
    n, c_in, c_out = len(size), 3, 5
    x, weight = arrays(2, (2, *size, c_in), (c_in, c_out, *(kernel,) * n))
    layer = layers.UpConv(c_out, kernel, stride)

    def ours(x, weight):
        return layer.apply({"params": {"kernel": layers.phases_from_transposed(weight, stride)}}, x)

    def truth(x, weight):
        letters = "DHW"[-n:]
        flipped = jnp.flip(jnp.moveaxis(weight, (0, 1), (-2, -1)), tuple(range(n)))
        reach = kernel - 1 - (kernel - stride) // 2
        return lax.conv_general_dilated(
            x, flipped, (1,) * n, ((reach, reach),) * n, lhs_dilation=(stride,) * n,
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"), precision="highest",
        )  # fmt: skip

    y, pull = jax.vjp(ours, x, weight)
    y_truth, pull_truth = jax.vjp(truth, x, weight)
    assert y.shape == (2, *(s * stride for s in size), c_out)
    close(y, y_truth)
    (cotangent,) = arrays(3, y.shape)
    for a, b in zip(pull(cotangent), pull_truth(cotangent)):
        close(a, b)


def test_no_gradient_of_an_upsampling_runs_over_a_dilated_input():
    layer = layers.UpConv(4, 6)
    x = jnp.ones((3, 32, 32, 2))
    params = layer.init(jax.random.key(0), x)

    def loss(params, xi):
        return jnp.sum(jnp.square(layer.apply(params, xi[None])))

    text = str(jax.make_jaxpr(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(params, x))
    assert "conv_general_dilated" in text
    assert "lhs_dilation=(2, 2)" not in text


def test_an_upsampling_that_is_not_an_odd_multiple_is_refused():
    with pytest.raises(InputError, match="odd multiple of the stride, as 6"):
        layers.UpConv(4, 4, 2).init(jax.random.key(0), jnp.ones((1, 4, 4, 2)))


def test_small_maps_and_windows_of_one_become_matrix_products():
    def is_convolution(side, k, stride=1):
        kernel = jnp.ones((k, k, 2, 4))
        conv = lambda x: layers.convolve(x, kernel, stride=stride, padding=k // 2)
        return "conv_general_dilated" in str(jax.make_jaxpr(conv)(jnp.ones((1, side, side, 2))))

    assert not is_convolution(4, 3)
    assert not is_convolution(8, 3, stride=2)
    assert is_convolution(8, 3)
    assert not is_convolution(40, 1)
    assert not is_convolution(40, 1, stride=2)


def test_default_initialisation_is_uniform_within_one_over_root_fan_in():
    x = jnp.ones((1, 4, 4, 16))
    kernel = layers.Conv(64, 3, padding=1).init(jax.random.key(0), x)["params"]["kernel"]
    bound = 1 / np.sqrt(9 * 16)
    assert np.abs(kernel).max() <= bound
    assert np.std(kernel) == pytest.approx(bound / np.sqrt(3), rel=0.02)
    kernel = layers.UpConv(64, 6).init(jax.random.key(0), x)["params"]["kernel"]
    assert np.std(kernel) == pytest.approx(1 / np.sqrt(64 * 36 * 3), rel=0.02)


def test_dropout_drops_whole_channels_and_keeps_the_mean():
    x = jnp.ones((1, 4, 4, 2000))

    class Net(layers.nn.Module):
        @layers.nn.compact
        def __call__(self, x):
            return layers.dropout_channels(0.1, x, train=True)

    y = np.asarray(Net().apply({}, x, rngs={"dropout": jax.random.key(0)}))
    assert (y == y[:, :1, :1]).all()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.9)}
    assert y.mean() == pytest.approx(1, abs=0.03)


def test_group_counts_follow_both_rules():
    gcd = [norms.group_count(c) for c in (100, 150, 200, 300, 256)]
    assert gcd == [4, 2, 8, 4, 32]
    fixed = [norms.group_count(c, "25/32") for c in (100, 150, 200, 300, 256, 10)]
    assert fixed == [25, 25, 25, 25, 32, 10]
    with pytest.raises(InputError, match="30 channels cannot be split into 25 groups"):
        norms.group_count(30, "25/32")


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 2), (5, 4, 6)])
def test_a_max_pool_by_slices_equals_the_one_of_xla(size, monkeypatch):
    (x,) = arrays(5, (2, *size, 3))
    x = jnp.round(x).at[0, 0, 0, 0].set(jnp.inf)  # many entries are equal
    found = []
    for backends in (("cpu",), ()):
        monkeypatch.setattr(layers, "SLICED_POOLS", backends)
        y, pull = jax.vjp(layers.max_pool, x)
        found += [y, pull(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))[0]]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])


def test_a_nan_stays_in_the_windows_that_hold_it():
    y = layers.max_pool(jnp.zeros((1, 8, 8, 1)).at[0, 3, 3].set(jnp.nan))
    assert np.isnan(y[0, 1:3, 1:3]).all()
    assert np.isnan(y).sum() == 4


def test_group_norm_equals_the_one_of_flax_with_its_gradients():
    x, cotangent = arrays(6, (2, 5, 4, 6, 12), (2, 5, 4, 6, 12))
    ours, theirs = norms.group_norm(12), layers.nn.GroupNorm(4, epsilon=1e-5)
    scale, bias = arrays(7, (12,), (12,))
    pulled = []
    for layer in (ours, theirs):
        call = lambda p, x, layer=layer: layer.apply({"params": p}, x)
        y, pull = jax.vjp(call, {"scale": scale, "bias": bias}, 3 * x + 2)
        pulled.append(jax.tree.leaves((y, pull(cotangent))))
    for a, b in zip(*pulled, strict=True):
        close(a, b)


def test_group_norm_keeps_low_precision_outside_and_float32_inside():
    (x,) = arrays(8, (2, 16, 16, 8))
    half = jax.tree.map(
        lambda a: a.astype(jnp.bfloat16), {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    )
    y = norms.group_norm(8).apply({"params": half}, (x + 64).astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    truth = norms.group_norm(8).apply(
        {"params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}},
        (x + 64).astype(jnp.bfloat16).astype(jnp.float32),
    )
    close(y.astype(jnp.float32), truth, 1e-2)


def test_group_norm_equals_torch():
    torch_nets = pytest.importorskip("tests.models.torch_nets")
    (x,) = arrays(4, (2, 5, 6, 12))
    x = x * 10 + 100
    y = norms.group_norm(12).init_with_output(jax.random.key(0), x)[0]
    truth = torch_nets.nn.GroupNorm(4, 12)(torch_nets.to_torch(x))
    close(y, torch_nets.from_torch(truth), 1e-4)
