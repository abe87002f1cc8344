"""Supervised networks: parameter counts, torch parity, ImageNet files into both kinds of norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.models import heads, pretrained
from jaxfair.models.densenet import DenseNet121
from jaxfair.models.resnet import BasicBlock, Bottleneck, ResNet
from jaxfair.models.slices import AttentionPool, SliceNet


def images(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def shapes_of(network, *shape):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def filled(module, net, x):
    """Our module's variables filled from a torch module of the same names."""
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    return pretrained.fill_from_torch(shapes_of(module, *x.shape), state, where="test")


def assert_equal_to_torch(nets, module, net, x, tolerance=1e-5):
    net = nets.randomise(net)
    ours = jax.jit(module.apply)(filled(module, net, x), x)
    with nets.torch.no_grad():
        theirs = net(nets.to_torch(x))
    theirs = nets.from_torch(theirs) if theirs.ndim > 2 else theirs.numpy()
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize(
    "backbone, labels, channels, expected",
    [
        ("resnet9", 8, 3, 4_909_896),
        ("resnet9", 5, 3, 4_908_357),
        ("resnet9", 1, 3, 4_906_305),
        ("resnet9", 8, 1, 4_903_624),
        ("resnet18", 1000, 3, 11_689_512),
        ("resnet34", 1000, 3, 21_797_672),
        ("resnet50", 1000, 3, 25_557_032),
        ("densenet121", 1000, 3, 7_978_856),
    ],
)
def test_parameters_are_as_many_as_published(backbone, labels, channels, expected):
    network = heads.make_network(backbone, labels)
    assert count(shapes_of(network, 1, 64, 64, channels)["params"]) == expected


def test_the_attention_model_has_12227652_parameters_with_its_three_fixed_ones():
    variables = shapes_of(heads.make_network("slices", 1), 1, 8, 16, 16, 1)
    assert count(variables) == 12_227_652
    parts = variables["params"]["backbone"]
    attention = parts["attention"]
    assert (count(attention), count(variables["params"]["head"])) == (1_050_624, 513)
    assert count(parts) - count(attention) == 11_176_512
    assert variables["stats"]["backbone"]["colour"].shape == (3,)


def volume_parameters(blocks):
    """Counted by hand: a 7^3 stem, 3^3 blocks, 1^3 skips, two numbers per norm channel, a head."""
    total, c_in = 7**3 * 64 + 2 * 64, 64
    for c, count in zip((64, 128, 256, 512), blocks):
        for _ in range(count):
            total += 27 * c_in * c + 27 * c * c + 4 * c
            total += c_in * c + 2 * c if c_in != c else 0
            c_in = c
    return total + 512 + 1


@pytest.mark.parametrize(
    "backbone, blocks, expected",
    [
        ("resnet9", (1, 1, 1, 1), 14_356_033),
        ("resnet18", (2, 2, 2, 2), 33_160_513),
        ("resnet34", (3, 4, 6, 3), 63_470_145),
    ],
)
def test_the_same_resnets_read_volumes(backbone, blocks, expected):
    network = heads.make_network(backbone, 1)
    variables = shapes_of(network, 1, 16, 32, 32, 1)
    assert count(variables["params"]) == volume_parameters(blocks) == expected
    out = jax.eval_shape(network.apply, variables, jnp.zeros((2, 16, 32, 32, 1)))
    assert out.shape == (2, 1)


def test_a_block_of_volumes_equals_torch():
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.BasicBlock3d(32, 64, 2, nets.group_norm, nets.F.mish)
    module = BasicBlock(64, 2, activation="mish")
    assert_equal_to_torch(nets, module, net, images(2, 4, 6, 6, 32))


@pytest.mark.parametrize("activation", ["relu", "mish"])
@pytest.mark.parametrize("stride, c_in", [(1, 64), (2, 32)])
def test_a_basic_block_equals_torch(stride, c_in, activation):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.BasicBlock(c_in, 64, stride, nets.group_norm, getattr(nets.F, activation))
    module = BasicBlock(64, stride, activation=activation)
    assert_equal_to_torch(nets, module, net, images(2, 8, 8, c_in))


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_a_bottleneck_equals_torch(norm):
    nets = pytest.importorskip("tests.models.torch_nets")
    theirs = nets.group_norm if norm == "group" else nets.nn.BatchNorm2d
    net = nets.Bottleneck(32, 32, 2, theirs)
    assert_equal_to_torch(nets, Bottleneck(32, 2, norm=norm), net, images(2, 8, 8, 32))


def test_attention_equals_torch():
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.randomise(nets.nn.MultiheadAttention(32, 8, batch_first=True))
    x = images(2, 7, 32)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    params = {
        "in_proj": {"kernel": state["in_proj_weight"].T, "bias": state["in_proj_bias"]},
        "out_proj": {"kernel": state["out_proj.weight"].T, "bias": state["out_proj.bias"]},
    }
    ours = jax.jit(AttentionPool().apply)({"params": params}, x)
    tokens = nets.torch.from_numpy(x)
    with nets.torch.no_grad():
        theirs = net(tokens.mean(1, keepdim=True), tokens, tokens)[0][:, 0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "mish"])
def test_resnet9_equals_torch(activation):
    nets = pytest.importorskip("tests.models.torch_nets")
    act = getattr(nets.F, activation)
    net = nets.ResNet(nets.BasicBlock, (1, 1, 1, 1), nets.group_norm, act)
    module = ResNet("resnet9", activation=activation)
    assert_equal_to_torch(nets, module, net, images(2, 64, 64, 3))


@pytest.mark.slow
def test_resnet9_of_volumes_equals_torch():
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.ResNet(nets.BasicBlock3d, (1, 1, 1, 1), nets.group_norm, nets.F.mish, channels=1)
    module = ResNet("resnet9", activation="mish")
    assert_equal_to_torch(nets, module, net, images(2, 16, 24, 24, 1))


@pytest.mark.slow
@pytest.mark.parametrize("depth, kind, counts", [
    ("resnet18", "BasicBlock", (2, 2, 2, 2)),
    ("resnet34", "BasicBlock", (3, 4, 6, 3)),
    ("resnet50", "Bottleneck", (3, 4, 6, 3)),
])  # fmt: skip
def test_deep_resnets_with_stored_statistics_equal_torch(depth, kind, counts):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.ResNet(getattr(nets, kind), counts, nets.nn.BatchNorm2d)
    assert_equal_to_torch(nets, ResNet(depth, "frozen"), net, images(2, 64, 64, 3))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_densenet_equals_torch(norm):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.DenseNet121(nets.group_norm if norm == "group" else nets.nn.BatchNorm2d)
    assert_equal_to_torch(nets, DenseNet121(norm), net, images(2, 64, 64, 3), tolerance=2e-5)


@pytest.mark.slow
def test_the_attention_model_equals_torch_slice_by_slice():
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.randomise(nets.ResNet(nets.BasicBlock, (2, 2, 2, 2), nets.group_norm))
    x = images(1, 4, 32, 40, 1)
    variables = shapes_of(SliceNet(), *x.shape)
    variables = jax.tree.map(lambda s: 0.05 * jnp.asarray(images(*s.shape)), variables)
    variables["stats"]["colour"] = jnp.ones(3)
    flat = x[:, :, :, :, 0]
    variables["params"]["backbone"] = filled(ResNet("resnet18"), net, images(1, 32, 40, 3))[
        "params"
    ]
    tokens = []
    with nets.torch.no_grad():
        for axis in (1, 2, 3):
            slices = np.repeat(np.moveaxis(flat, axis, 1)[0][..., None], 3, axis=-1)
            tokens.append(net(nets.to_torch(slices)).numpy())
    attention = {"params": variables["params"]["attention"]}
    truth = AttentionPool().apply(attention, np.concatenate(tokens)[None])
    ours = jax.jit(SliceNet().apply)(variables, x)
    np.testing.assert_allclose(ours, truth, atol=2e-5 * np.abs(truth).max())


def zeros(network, *shape):
    return jax.tree.map(lambda s: jnp.zeros(s.shape), shapes_of(network, *shape))


def resnet18_file(nets, path):
    net = nets.randomise(nets.ResNet(nets.BasicBlock, (2, 2, 2, 2), nets.nn.BatchNorm2d))
    nets.torch.save(net.state_dict(), path)
    return net


def test_an_imagenet_file_fills_frozen_norms_with_their_statistics(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = resnet18_file(nets, tmp_path / "w.pth")
    network = heads.make_network("resnet18", 2, norm="frozen")
    ours = pretrained.load_backbone(zeros(network, 1, 32, 32, 3), tmp_path / "w.pth", norm="frozen")
    bn = net.layer3[0].downsample[1]
    np.testing.assert_array_equal(
        ours["stats"]["backbone"]["layer3_0"]["downsample_1"]["var"], bn.running_var
    )
    np.testing.assert_array_equal(
        ours["params"]["backbone"]["layer3_0"]["downsample_1"]["scale"], bn.weight.detach()
    )
    assert not ours["params"]["head"]["kernel"].any()


def test_an_imagenet_file_leaves_group_norms_and_heads_their_own(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = resnet18_file(nets, tmp_path / "w.pth")
    variables = zeros(heads.make_network("resnet18", 2), 1, 32, 32, 3)
    ours = pretrained.load_backbone(variables, tmp_path / "w.pth", norm="group")["params"]
    kernel = net.layer4[1].conv2.weight.detach().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(ours["backbone"]["layer4_1"]["conv2"]["kernel"], kernel)
    assert not ours["backbone"]["bn1"]["scale"].any() and not ours["head"]["kernel"].any()


def test_a_grey_stem_gets_the_sum_over_the_three_colours(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = resnet18_file(nets, tmp_path / "w.pth")
    variables = zeros(heads.make_network("resnet18", 2), 1, 32, 32, 1)
    ours = pretrained.load_backbone(variables, tmp_path / "w.pth", norm="group")
    stem = net.conv1.weight.detach().numpy().sum(1)
    np.testing.assert_allclose(
        ours["params"]["backbone"]["conv1"]["kernel"][:, :, 0], stem.transpose(1, 2, 0), atol=1e-6
    )


def test_the_attention_models_inner_resnet_is_filled_too(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = resnet18_file(nets, tmp_path / "w.pth")
    variables = zeros(heads.make_network("slices", 1, norm="frozen"), 1, 4, 8, 8, 1)
    ours = pretrained.load_backbone(variables, tmp_path / "w.pth", norm="frozen")
    inner = ours["stats"]["backbone"]["backbone"]["bn1"]["mean"]
    np.testing.assert_array_equal(inner, net.bn1.running_mean)


def test_the_oldest_densenet_names_are_understood(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.DenseNet121(nets.nn.BatchNorm2d)
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for name, value in net.state_dict().items()
    }
    nets.torch.save(old, tmp_path / "w.pth")
    variables = zeros(heads.make_network("densenet121", 2), 1, 32, 32, 3)
    ours = pretrained.load_backbone(variables, tmp_path / "w.pth", norm="group")["params"]
    layer = ours["backbone"]["features_denseblock1_denselayer1"]
    kernel = net.features.denseblock1.denselayer1.conv2.weight.detach().numpy()
    np.testing.assert_array_equal(layer["conv2"]["kernel"], kernel.transpose(2, 3, 1, 0))


def test_a_file_of_another_depth_is_refused(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    resnet18_file(nets, tmp_path / "w.pth")
    variables = zeros(heads.make_network("resnet34", 2), 1, 32, 32, 3)
    with pytest.raises(InputError, match=r"w\.pth has no entry 'layer1\.2\.conv1\.weight'"):
        pretrained.load_backbone(variables, tmp_path / "w.pth", norm="group")
