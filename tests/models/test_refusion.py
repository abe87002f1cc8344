"""Networks of FCRO and FairREAD: as many parameters as published, and equal to torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.models import pretrained
from jaxfair.models.densenet import DenseNet121
from jaxfair.models.embedding import EmbeddingHead, unit
from jaxfair.models.refusion import AttributeEncoder, MapAdversary, MapBlock, Refusion, VectorBlock
from jaxfair.models.resnet import ResNet
from tests.models.test_networks import count, images, shapes_of

FEATURES = 6_953_856


def shapes(module, *inputs, **options):
    init = functools.partial(module.init, **options)
    return jax.eval_shape(init, jax.random.key(0), *inputs)


def equal_to_torch(nets, module, net, inputs, tolerance=1e-5, **options):
    """Our module, filled from the torch module of the same names, gives the same."""
    net = nets.randomise(net)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    variables = pretrained.fill_from_torch(
        shapes(module, *inputs, **options), state, where="the test"
    )
    ours = jax.jit(functools.partial(module.apply, **options))(variables, *inputs)
    turned = [nets.to_torch(x) if x.ndim > 2 else nets.torch.from_numpy(x) for x in inputs]
    with nets.torch.no_grad():
        theirs = net(*turned)
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    for one, other in zip(ours if isinstance(ours, tuple) else (ours,), theirs, strict=True):
        other = nets.from_torch(other) if other.ndim > 2 else other.numpy()
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


def test_the_maps_of_densenet_121_have_as_many_parameters_as_published():
    assert count(shapes_of(DenseNet121(pooled=False), 1, 64, 64, 3)["params"]) == FEATURES


@pytest.mark.parametrize(("outputs", "expected"), [(3, 7_085_443), (1, 7_085_185)])
def test_fcro_has_as_many_parameters_as_published(outputs, expected):
    head = shapes(EmbeddingHead(outputs, 1024), jnp.zeros((1, 1024)))["params"]
    assert FEATURES + count(head) == expected


@pytest.mark.parametrize(("blocks", "expected"), [(1, 8_374_404), (2, 9_312_132)])
def test_fairread_has_as_many_parameters_as_published(blocks, expected):
    net = Refusion(1, 3, 1024, blocks=blocks)
    params = shapes(net, jnp.zeros((1, 7, 7, 1024)), jnp.zeros((1, 3)), method="both")["params"]
    assert FEATURES + count(params) == expected
    assert count(params["attributes"]) == 66_560
    assert {count(params[f"block_{i}"]) for i in range(blocks)} == {937_728}
    assert count(params["adversary"]) == 415_235


def norm_of(nets, norm):
    return nets.group_norm if norm == "group" else nets.nn.BatchNorm2d


NORMS = pytest.mark.parametrize("norm", ["frozen", pytest.param("group", marks=pytest.mark.slow)])


@NORMS
def test_a_block_equals_torch(norm):
    nets, theirs = both_oracles()
    net = theirs.MapBlock(64, 16, norm_of(nets, norm))
    inputs = (images(2, 5, 4, 64), images(2, 16), images(2, 16))
    equal_to_torch(nets, MapBlock(norm), net, inputs, train=False)


@NORMS
def test_the_adversary_equals_torch(norm):
    nets, theirs = both_oracles()
    net = theirs.MapAdversary(64, 3, norm_of(nets, norm))
    equal_to_torch(nets, MapAdversary(3, norm), net, (images(2, 5, 4, 64),))


def test_the_attribute_encoder_equals_torch():
    nets, theirs = both_oracles()
    net, attributes = theirs.AttributeEncoder(3, 16), images(4, 3)
    equal_to_torch(nets, AttributeEncoder(16), net, (attributes,), train=False)


@pytest.mark.slow
@NORMS
def test_the_whole_re_fusion_equals_torch(norm):
    nets, theirs = both_oracles()
    net = theirs.FairRead(64, 16, 2, 3, norm_of(nets, norm))
    module = Refusion(1, 3, 64, width=16, norm=norm)
    equal_to_torch(nets, module, net, (images(2, 4, 4, 64), images(2, 3)), train=False)


def test_the_embedding_and_its_outputs_equal_torch():
    nets, theirs = both_oracles()
    net = theirs.EmbeddingNet(3)
    net.backbone = nets.nn.Identity()
    equal_to_torch(nets, EmbeddingHead(3, 1024), net, (images(4, 1024),))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["densenet121", "resnet9"])
def test_maps_pool_to_the_features(backbone):
    kinds = {"densenet121": DenseNet121, "resnet9": functools.partial(ResNet, "resnet9")}
    x, key = images(2, 64, 64, 1), jax.random.key(0)
    whole, maps = kinds[backbone](), kinds[backbone](pooled=False)
    variables = jax.jit(whole.init)(key, x)
    found = np.asarray(jax.jit(maps.apply)(variables, x))
    found = np.maximum(found, 0) if backbone == "densenet121" else found  # torch's F.relu of it
    pooled = jax.jit(whole.apply)(variables, x)
    np.testing.assert_allclose(found.mean((1, 2)), pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_fcros_whole_network_equals_torch():
    nets, theirs = both_oracles()
    net = nets.randomise(theirs.EmbeddingNet(3))
    x = images(2, 64, 64, 3)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    dense = DenseNet121("frozen")
    of_backbone = {n.removeprefix("backbone."): v for n, v in state.items()}
    variables = pretrained.fill_from_torch(shapes_of(dense, *x.shape), of_backbone, where="test")
    features = jax.jit(dense.apply)(variables, x)
    head = EmbeddingHead(3, 1024)
    ours = head.apply(
        pretrained.fill_from_torch(shapes(head, features), state, where="test"), features
    )
    with nets.torch.no_grad():
        theirs = net(nets.to_torch(x)).numpy()
    assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max()


def both_oracles():
    nets = pytest.importorskip("tests.models.torch_nets")
    return nets, pytest.importorskip("tests.models.torch_refusion")


def test_an_embedding_has_length_one_and_never_more():
    x = images(50, 128) * 10.0 ** np.arange(-6, 4)[:, None].repeat(5, 0)
    lengths = np.linalg.norm(np.asarray(unit(x), np.float64), axis=1)
    assert lengths.max() <= 1 + 1e-6 and lengths[10:].min() >= 1 - 1e-4


def vectors(**fields):
    net = Refusion(1, 3, 16, vectors=True, width=8, **fields)
    x, a = images(3, 16), images(3, 3)
    variables = net.init(jax.random.key(0), x, a, method="both")
    return net, variables, x, a


def test_our_block_passes_on_what_it_was_given_where_the_published_one_may_close():
    """All that a block has learned at zero: ours is the identity, the published one is silent."""
    x, some = images(2, 4, 4, 16), images(2, 8)
    for block, given in ((MapBlock(), x), (VectorBlock(), x[:, 0, 0])):
        zeros = jax.tree.map(
            lambda s: jnp.zeros(s.shape), shapes(block, given, some, some, train=False)
        )
        out = block.apply(zeros, given, some, some, train=False)
        np.testing.assert_array_equal(out, given if given.ndim == 2 else np.zeros_like(out))


def test_the_scale_of_our_blocks_is_positive_whatever_was_learned():
    block, x = VectorBlock(), images(2, 16)
    variables = block.init(jax.random.key(0), x, x[:, :8], x[:, :8], train=False)
    of = lambda scale: block.apply(variables, x, jnp.zeros((2, 8)), scale, train=False)
    silent = of(jnp.full((2, 8), -30.0))
    assert np.abs(of(jnp.full((2, 8), -60.0)) - silent).max() < 1e-6
    assert np.abs(of(jnp.full((2, 8), 1.0)) - silent).max() > 1e-3


def test_dropout_is_on_in_training_alone():
    net, variables, x, a = vectors(rate=0.5)
    at = lambda key, train: net.apply(variables, x, a, train=train, rngs={"dropout": key})
    first, second = (at(jax.random.key(i), True) for i in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(at(jax.random.key(0), False), at(jax.random.key(1), False))


def test_the_adversary_sees_what_has_not_been_re_fused():
    net, variables, x, a = vectors()
    guess = lambda attributes: net.apply(variables, x, attributes, method="both")[1]
    np.testing.assert_array_equal(guess(a), guess(-a))
    assert guess(a).shape == (3, 3)
