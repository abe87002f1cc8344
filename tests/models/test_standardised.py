"""Standardised filters and norms without a scale: against torch, against their own definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.models import layers, norms
from jaxfair.models.resnet import BasicBlock, Bottleneck, ResNet
from tests.models.test_networks import assert_equal_to_torch, images, shapes_of


def kernel(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(1.0, 2.0, shape), jnp.float32)


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (2, 2, 2, 3, 4), (1, 1, 6, 2)])
def test_every_filter_has_mean_zero_and_variance_one_over_its_fan_in(shape):
    found = np.asarray(norms.standardised(kernel(*shape)), np.float64).reshape(-1, shape[-1])
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found.var(0) * len(found), 1, rtol=1e-5)


def test_a_filter_may_be_moved_and_stretched_and_stays_what_it_is():
    w = kernel(3, 3, 4, 5)
    moved = w * jnp.array([0.5, 1, 2, 3, 9.0]) + jnp.array([-1, 0, 1, 2, 3.0])
    np.testing.assert_allclose(norms.standardised(moved), norms.standardised(w), atol=1e-5)


def test_a_filter_of_equal_entries_is_zero_and_has_a_finite_gradient():
    fun = lambda w: jnp.sum(norms.standardised(w) ** 2)
    value, grad = jax.value_and_grad(fun)(jnp.ones((3, 3, 2, 2)))
    assert float(value) == 0 and np.isfinite(grad).all()


def test_a_grey_image_reads_the_standardised_filters_of_all_channels():
    conv = layers.Conv(4, 3, padding=1, channels=3, standardise=True)
    grey = images(1, 6, 6, 1)
    variables = conv.init(jax.random.key(0), grey)
    np.testing.assert_allclose(
        conv.apply(variables, grey), conv.apply(variables, np.repeat(grey, 3, -1)), atol=1e-5
    )


def test_an_unscaled_norm_learns_its_shift_alone():
    module = norms.make_norm("unscaled", 8)
    x = images(2, 5, 5, 8)
    params = module.init(jax.random.key(0), x)["params"]
    assert set(params) == {"bias"}
    params = {"bias": jnp.arange(8.0)}
    nets = pytest.importorskip("tests.models.torch_nets")
    theirs = nets.F.group_norm(nets.to_torch(x), 8, None, nets.torch.arange(8.0))
    ours = module.apply({"params": params}, x)
    np.testing.assert_allclose(ours, nets.from_torch(theirs), atol=1e-5)


@pytest.mark.parametrize(("axes", "norm"), [(2, "unscaled"), (3, "group")])
def test_a_standardised_block_equals_torch(axes, norm):
    nets = pytest.importorskip("tests.models.torch_nets")
    theirs = nets.BasicBlock if axes == 2 else nets.BasicBlock3d
    net = nets.standardise(theirs(32, 64, 2, NORMS(nets)[norm], nets.F.mish))
    module = BasicBlock(64, 2, norm=norm, activation="mish", standardise=True)
    assert_equal_to_torch(nets, module, net, images(2, *(6,) * axes, 32))


def NORMS(nets):
    return {"group": nets.group_norm, "unscaled": nets.unscaled_norm}


def test_a_standardised_bottleneck_equals_torch():
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.standardise(nets.Bottleneck(32, 32, 2, nets.group_norm))
    assert_equal_to_torch(nets, Bottleneck(32, 2, standardise=True), net, images(2, 8, 8, 32))


def test_the_gradient_goes_through_the_standardisation_as_in_torch():
    nets = pytest.importorskip("tests.models.torch_nets")
    x, w = images(1, 6, 6, 4), kernel(3, 3, 4, 5)
    ours = lambda w: jnp.sum(
        jnp.tanh(layers.convolve(x, norms.standardised(w), stride=1, padding=1))
    )
    weight = nets.torch.tensor(np.moveaxis(np.asarray(w), (-2, -1), (1, 0)), requires_grad=True)
    conv = nets.F.conv2d(nets.to_torch(x), nets.standardised_weight(weight), padding=1)
    conv.tanh().sum().backward()
    truth = np.moveaxis(weight.grad.numpy(), (1, 0), (-2, -1))
    np.testing.assert_allclose(jax.grad(ours)(w), truth, atol=1e-5 * np.abs(truth).max())


@pytest.mark.slow
@pytest.mark.parametrize("axes", [2, 3])
def test_a_standardised_resnet9_equals_torch(axes):
    nets = pytest.importorskip("tests.models.torch_nets")
    block = nets.BasicBlock if axes == 2 else nets.BasicBlock3d
    channels = 3 if axes == 2 else 1
    net = nets.ResNet(block, (1, 1, 1, 1), nets.unscaled_norm, nets.F.mish, channels=channels)
    module = ResNet("resnet9", "unscaled", "mish", standardise=True)
    size = (64, 64) if axes == 2 else (16, 24, 24)
    assert_equal_to_torch(nets, module, nets.standardise(net), images(2, *size, channels))


def test_a_standardised_network_has_as_many_parameters_as_without():
    plain, ours = (ResNet("resnet9", standardise=s) for s in (False, True))
    assert shapes_of(plain, 1, 32, 32, 3) == shapes_of(ours, 1, 32, 32, 3)
