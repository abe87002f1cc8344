"""Resizing, SSIM and the upper tail against torch, scipy and numpy."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxfair.models import resize, ssim, tail


def images(seed, *shape):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize("size", [(32, 32), (128, 128), (3, 9), (1, 1), (5, 16)])
def test_aligned_resize_equals_torch(size):
    nets = pytest.importorskip("tests.models.torch_nets")
    x = images(0, 2, 5, 16, 3)
    truth = nets.F.interpolate(nets.to_torch(x), size, mode="bilinear", align_corners=True)
    np.testing.assert_allclose(
        resize.resize_aligned(jnp.asarray(x), size), nets.from_torch(truth), atol=2e-6
    )


def test_aligned_resize_keeps_corners_and_straight_lines():
    line = jnp.linspace(0, 1, 16)[None, :, None, None] * jnp.ones((1, 16, 4, 1))
    y = resize.resize_aligned(line, (31, 4))[0, :, 0, 0]
    np.testing.assert_allclose(y, np.linspace(0, 1, 31), atol=1e-6)


def test_blur_weights_are_the_published_ones():
    matrix = ssim.blur_matrix(9)
    expected = [0.120078, 0.233881, 0.292082, 0.233881, 0.120078]
    np.testing.assert_allclose(matrix[4, 2:7], expected, atol=1e-6)
    assert matrix[0, :3].sum() == pytest.approx(sum(expected[2:]), abs=1e-5)


def test_ssim_and_its_gradient_equal_a_depthwise_convolution_in_torch():
    nets = pytest.importorskip("tests.models.torch_nets")
    x, y = 3 * images(1, 2, 9, 8, 5), 3 * images(2, 2, 9, 8, 5)
    ours, grad = jax.value_and_grad(lambda x: jnp.mean(ssim.ssim_map(x, jnp.asarray(y))))(x)
    x_torch = nets.to_torch(x).requires_grad_()
    theirs = nets.ssim(x_torch, nets.to_torch(y)).mean()
    theirs.backward()
    assert float(ours) == pytest.approx(theirs.item(), rel=1e-5)
    truth = nets.from_torch(x_torch.grad)
    np.testing.assert_allclose(grad, truth, atol=1e-5 * np.abs(truth).max())


def written_down(x, y):
    """SSIM as its equation, differentiated by jax."""
    mu_x, mu_y, squares, xy = map(ssim.blur, (x, y, x * x + y * y, x * y))
    both, product = mu_x**2 + mu_y**2, mu_x * mu_y
    top = (2 * product + ssim.C1) * (2 * (xy - product) + ssim.C2)
    return top / ((both + ssim.C1) * (squares - both + ssim.C2))


@pytest.mark.parametrize("shape", [(2, 9, 8, 5), (1, 4, 4, 1)])
def test_ssim_and_both_its_gradients_are_those_of_the_equation(shape):
    x, y = jnp.asarray(3 * images(8, *shape)), jnp.asarray(2 * images(9, *shape))
    weights = jnp.asarray(images(10, *shape))
    grads = lambda of: jax.grad(lambda *xy: jnp.sum(weights * of(*xy)), (0, 1))(x, y)
    for ours, truth in zip(grads(ssim.ssim_map), grads(written_down), strict=True):
        np.testing.assert_allclose(ours, truth, atol=2e-6 * np.abs(truth).max())


def test_a_gradient_of_ssim_passes_over_the_maps_four_times():
    """A row and a column product of four maps, and of three back; nothing is turned around."""
    x = jnp.zeros((2, 8, 8, 3))
    grad = jax.grad(lambda x, y: jnp.mean(ssim.ssim_map(x[None], y[None])))
    grad = jax.jit(jax.vmap(grad))  # as a step asks for it: one example at a time
    lines = grad.lower(x, x).compile().as_text().splitlines()
    made = [
        m.groups() for m in (re.search(r"= f32(\S+?)\{\S* (\w+)\(", line) for line in lines) if m
    ]
    products = [
        math.prod(map(int, shape[1:-1].split(","))) for shape, name in made if name == "dot"
    ]
    assert sorted(products) == [3 * x.size] * 2 + [4 * x.size] * 2
    assert not {"transpose", "convolution"} & {name for _, name in made}


def test_ssim_equals_a_gaussian_filter_cut_to_five_taps():
    def blur(x):
        return ndimage.gaussian_filter(x.astype(float), 1.5, truncate=1.3, mode="constant")

    x, y = images(3, 20, 20), images(4, 20, 20)
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    truth = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    ours = ssim.ssim_map(x[None, ..., None], y[None, ..., None])[0, ..., 0]
    np.testing.assert_allclose(ours, truth, atol=1e-4)


def test_ssim_of_a_map_with_itself_is_one_and_stays_float32():
    x = jnp.asarray(images(5, 1, 8, 8, 3)).astype(jnp.bfloat16)
    value = ssim.ssim_map(x, x)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 1, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 1.0])
def test_quantile_inside_a_region_equals_numpy(n, q):
    values, region = images(6, 100), np.arange(100) % (100 // n) == 0
    ours = tail.quantile(jnp.asarray(values), q, jnp.asarray(region))
    assert float(ours) == pytest.approx(np.quantile(values[region], q), abs=1e-6)


def test_the_tail_mean_counts_only_what_lies_strictly_above():
    values = jnp.asarray([0.0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3])
    everywhere = jnp.ones(12, bool)
    assert float(tail.mean_above_quantile(values, 0.9, everywhere)) == 3
    assert float(tail.mean_above_quantile(values, 0.9, values < 2)) == 1
    assert float(tail.mean_above_quantile(jnp.full(12, 2.0), 0.9, everywhere)) == 2


def test_an_empty_region_counts_as_the_whole_map():
    values = jnp.asarray(images(7, 50))
    whole = tail.mean_above_quantile(values, 0.9, jnp.ones(50, bool))
    assert tail.mean_above_quantile(values, 0.9, jnp.zeros(50, bool)) == whole
    assert np.isnan(tail.quantile(values, 0.9, jnp.zeros(50, bool)))
