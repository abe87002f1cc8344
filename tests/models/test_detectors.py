"""Networks of the detectors: as many parameters as published, and torch's answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods import distillation
from jaxfair.methods.deepsvdd import AWAY, DeepSVDDConfig, make_deepsvdd
from jaxfair.methods.distillation import DistillationConfig, make_distillation
from jaxfair.methods.ssim_autoencoder import SSIMAutoencoderConfig, make_ssim_autoencoder
from jaxfair.models import pretrained
from jaxfair.models.distillation import Student, Teacher, UpBlock
from jaxfair.models.layers import UpConv, phases_from_transposed
from jaxfair.models.ssim import blur_matrix, ssim_map
from jaxfair.models.svdd import SVDDNetwork, instance_norm


@pytest.fixture(scope="module")
def nets():
    from tests.models import torch_nets

    return torch_nets


def shapes_of(network, *inputs):
    return jax.eval_shape(network.init, jax.random.key(0), *inputs)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def teacher_maps(size=128):
    return tuple(jnp.zeros((1, size // 4 // 2**i, size // 4 // 2**i, 64 * 2**i)) for i in range(3))


def test_the_student_has_as_many_parameters_as_published_but_those_never_used():
    student = shapes_of(Student(), teacher_maps())["params"]
    decoder = {name: part for name, part in student.items() if name.startswith("up")}
    assert count(decoder) == 3_703_168
    assert count(student) - count(decoder) == 12_205_312 - 525_312


def test_the_student_rebuilds_maps_of_the_teachers_shapes():
    image = jnp.zeros((1, 128, 128, 3))
    variables = shapes_of(Teacher(), image)
    seen = jax.eval_shape(Teacher().apply, variables, image)
    rebuilt = jax.eval_shape(Student().apply, shapes_of(Student(), teacher_maps()), teacher_maps())
    assert [m.shape for m in seen] == [m.shape for m in rebuilt]
    assert [m.shape for m in seen] == [(1, 32, 32, 64), (1, 16, 16, 128), (1, 8, 8, 256)]


def test_the_svdd_network_has_1698080_parameters():
    assert count(shapes_of(SVDDNetwork(), jnp.zeros((1, 128, 128, 1)))) == 1_698_080


def test_doubling_is_torchs_transposed_convolution_and_instance_norm_is_torchs(nets):
    torch, rng = nets.torch, np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    up = torch.nn.ConvTranspose2d(3, 5, 2, 2, bias=False)
    kernel = phases_from_transposed(jnp.asarray(up.weight.detach().numpy()), 2)
    ours = UpConv(5, 2).apply({"params": {"kernel": kernel}}, x)
    theirs = nets.from_torch(up(nets.to_torch(x)))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    normed = nets.from_torch(torch.nn.InstanceNorm2d(3)(nets.to_torch(x)))
    np.testing.assert_allclose(instance_norm(x), normed, atol=1e-5)
    assert jax.eval_shape(UpBlock(5).init_with_output, jax.random.key(0), x)[0].shape == (
        2,
        8,
        8,
        5,
    )


def test_the_teacher_reads_the_names_of_torchvision():
    shapes = shapes_of(Teacher(), jnp.zeros((1, 64, 64, 3)))
    names = {
        pretrained.torch_name([part.key for part in path[1:]])
        for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    }
    for name in ("conv1.weight", "bn1.running_var", "layer2.0.downsample.0.weight"):
        assert name in names
    assert "layer3.1.conv2.weight" in names and not any("layer4" in name for name in names)


def test_the_distance_is_one_minus_the_cosine_over_channels():
    a, b = np.random.default_rng(0).normal(size=(2, 1, 3, 2, 5)).astype(np.float32)
    a[0, 0, 0] = 0  # a dead position is neither alike nor unlike
    found = np.asarray(distillation._distance(jnp.asarray(a), jnp.asarray(b)))
    truth = 1 - (a * b).sum(-1) / np.maximum(
        np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12
    )
    np.testing.assert_allclose(found, truth, atol=1e-6)
    assert found[0, 0, 0] == 1


def test_a_window_of_11_is_a_gaussian_of_sum_one_and_equal_images_are_alike():
    row = blur_matrix(31, 11)[15]
    assert (row > 0).sum() == 11 and abs(row.sum() - 1) < 1e-6
    image = np.random.default_rng(0).random((1, 16, 16, 1)).astype(np.float32)
    np.testing.assert_allclose(ssim_map(image, image, 11), 1, atol=1e-4)


@pytest.mark.parametrize("centre", ["drawn", "random"])
def test_the_centre_keeps_away_from_zero_and_is_no_patients(centre):
    spec = {"image": jax.ShapeDtypeStruct((8, 8, 1), jnp.float32)}
    method = make_deepsvdd(DeepSVDDConfig((3, 4), dims=6, centre=centre))
    params, frozen = method.init(jax.random.key(0), spec)
    assert frozen["centre"].shape == (6,) and np.abs(frozen["centre"]).min() >= AWAY - 1e-6
    assert method.prepare is None and count(params) == 9 * (3 + 12) + 24


@pytest.mark.parametrize(
    "method, side, word",
    [
        (make_deepsvdd(DeepSVDDConfig()), 24, "multiples of 16"),
        (make_distillation(DistillationConfig(width=2)), 48, "multiples of 32"),
        (make_ssim_autoencoder(SSIMAutoencoderConfig((4, 4, 4))), 12, "multiples of 8"),
    ],
)
def test_images_that_do_not_fit_are_refused(method, side, word):
    with pytest.raises(InputError, match=word):
        method.init(
            jax.random.key(0), {"image": jax.ShapeDtypeStruct((side, side, 1), jnp.float32)}
        )


def test_a_file_of_another_width_is_refused():
    with pytest.raises(InputError, match="of the width 64"):
        DistillationConfig(width=16, extractor_weights="x.pth")
