"""The feature autoencoder: sizes, torch parity end to end, options, refused configs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods import fae
from jaxfair.methods.fae import FAEConfig, make_fae
from jaxfair.models.autoencoder import FeatureAutoencoder


def spec(size, channels=1):
    return {"image": jax.ShapeDtypeStruct((size, size, channels), jnp.float32)}


def images(count, size, seed=0):
    return np.random.default_rng(seed).random((count, size, size, 1)).astype(np.float32)


@pytest.mark.parametrize(
    "dims, count",
    [
        ((100, 150, 200, 300), 10_285_048),
        ((100, 150, 200, 250, 300), 14_251_048),
        ((100, 150, 200), 5_374_048),
        ((25, 50, 75, 100), 1_469_748),
        ((50, 100, 150, 200), 4_898_448),
        ((50,), 909_448),
        ((10,), 224_728),
    ],
)
def test_trainable_parameters_are_the_published_number(dims, count):
    model = FeatureAutoencoder(dims)
    x = jnp.zeros((1, 32, 32, 256))
    params = jax.eval_shape(lambda key: model.init(key, x, train=False), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def compare_with_torch(nets, dims, size, loss, tolerance=1e-5, seed=0):
    """Forward, loss, gradient and score of one config against torch in float64, same weights."""
    method = make_fae(FAEConfig(hidden_dims=dims, dropout=0.0, loss=loss))
    params, frozen = method.init(jax.random.key(0), spec(size))
    net = nets.Autoencoder(dims).load(params, dims).double()
    batch = {"image": jnp.asarray(images(2, size, seed))}
    batch |= jax.jit(jax.vmap(method.prepare, in_axes=(None, 0)))(frozen, batch)

    def total(params):
        one = lambda f: method.loss(params, frozen, {"features": f}, jax.random.key(0))[0]
        return jnp.mean(jax.vmap(one)(batch["features"]))

    ours, grads = jax.jit(jax.value_and_grad(total))(params)
    features = nets.to_torch(batch["features"]).double()
    rebuilt = net(features)
    maps = (rebuilt - features) ** 2 if loss == "mse" else 1 - nets.ssim(rebuilt, features)
    maps.mean().backward()
    assert float(ours) == pytest.approx(maps.mean().item(), rel=tolerance)
    truth = [nets.transposed_weight(grads["up0"]["kernel"]).numpy(), next(
        m.weight.grad.numpy() for m in net.net if isinstance(m, nets.nn.ConvTranspose2d)
    )]  # fmt: skip
    np.testing.assert_allclose(*truth, atol=tolerance * np.abs(truth[1]).max())
    first = np.moveaxis(net.net[0].weight.grad.numpy(), (1, 0), (-2, -1))
    close = tolerance * np.abs(first).max()
    np.testing.assert_allclose(grads["down0"]["kernel"], first, atol=close)

    upsampled = nets.F.interpolate(
        maps.detach().mean(1, keepdim=True), size, mode="bilinear", align_corners=True
    )
    scores = [m[m > nets.torch.quantile(m, 0.9)].mean().item() for m in upsampled]
    outputs = jax.jit(method.score)(params, frozen, batch)
    np.testing.assert_allclose(outputs["maps"], upsampled[:, 0], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(outputs["anomaly"], scores, rtol=1e-5)


@pytest.mark.parametrize("loss", ["1-ssim", "mse"])
def test_forward_loss_gradient_and_score_equal_torch(loss):
    nets = pytest.importorskip("tests.models.torch_nets")
    compare_with_torch(nets, (20, 30) if loss == "1-ssim" else (20,), 32, loss)


@pytest.mark.slow
def test_the_default_network_equals_torch():
    nets = pytest.importorskip("tests.models.torch_nets")
    # Some images bring a unit nearer to the kink of its leaky ReLU than float32 can tell from
    # float64 (on one CPU seeds 0, 3 and 4 of six): its slope, and all gradients before it, differ.
    compare_with_torch(nets, (100, 150, 200, 300), 128, "1-ssim", seed=1)


def test_prepare_equals_torch_with_both_ways_of_centring(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.randomise(nets.Extractor())
    nets.torch.save(net.state_dict(), tmp_path / "w.pth")
    x = images(1, 32)
    for center, inputs in (("once", 2 * x - 1), ("twice", 4 * x - 3)):
        method = make_fae(
            FAEConfig(hidden_dims=(8,), center=center, extractor_weights=str(tmp_path / "w.pth"))
        )
        _, frozen = method.init(jax.random.key(0), spec(32))
        ours = jax.jit(method.prepare)(frozen, {"image": jnp.asarray(x[0])})["features"]
        with nets.torch.no_grad():
            theirs = nets.from_torch(net(nets.to_torch(np.repeat(inputs, 3, axis=-1))))[0]
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@functools.cache
def weights():
    return make_fae(FAEConfig(hidden_dims=(8,))).init(jax.random.key(0), spec(16))


def scored(config, image):
    method, (params, frozen) = make_fae(config), weights()
    batch = {"image": jnp.asarray(image)[None]}
    batch |= jax.jit(jax.vmap(method.prepare, in_axes=(None, 0)))(frozen, batch)
    return jax.jit(method.score)(params, frozen, batch)


def test_the_foreground_follows_the_loaders_grey():
    image = np.tile(np.linspace(0, 1, 16, dtype=np.float32)[None, :, None], (16, 1, 1))
    image[:, :4] = 0
    for center, limit in (("once", 0.0), ("twice", 0.5)):
        outputs = scored(
            FAEConfig(hidden_dims=(8,), score_region="foreground", center=center), image
        )
        inside = np.asarray(outputs["maps"])[0][image[..., 0] > limit]
        expected = inside[inside > np.quantile(inside, 0.9)].mean()
        assert float(outputs["anomaly"][0]) == pytest.approx(expected, rel=1e-5)


def test_a_black_image_has_a_score_in_the_foreground_region():
    config = FAEConfig(hidden_dims=(8,), score_region="foreground")
    assert np.isfinite(scored(config, np.zeros((16, 16, 1)))["anomaly"]).all()


def test_negative_ssim_is_the_same_loss_less_one():
    image = images(1, 16)[0]
    one = scored(FAEConfig(hidden_dims=(8,)), image)["anomaly"]
    other = scored(FAEConfig(hidden_dims=(8,), loss="-ssim"), image)["anomaly"]
    np.testing.assert_allclose(one, 1 + other, rtol=1e-5)


def test_a_constant_image_has_a_finite_gradient():
    method, (params, frozen) = make_fae(FAEConfig(hidden_dims=(8,))), weights()
    example = jax.jit(method.prepare)(frozen, {"image": jnp.full((16, 16, 1), 0.5)})
    loss = lambda p: method.loss(p, frozen, example, jax.random.key(0))[0]
    grads = jax.jit(jax.grad(loss))(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_the_same_seed_gives_the_same_extractor_whatever_the_key():
    method = make_fae(FAEConfig(hidden_dims=(8,)))
    frozen = method.init(jax.random.key(1), spec(16))[1]
    jax.tree.map(np.testing.assert_array_equal, frozen, weights()[1])


def test_describe_says_which_extractor_it_is(tmp_path):
    assert fae.describe(FAEConfig())["extractor"] == "random"
    assert "untrained" in fae.describe(FAEConfig(extractor_seed=3))["note"]
    nets = pytest.importorskip("tests.models.torch_nets")
    nets.torch.save({"a": nets.torch.ones(1)}, tmp_path / "w.pth")
    facts = fae.describe(FAEConfig(extractor_weights=str(tmp_path / "w.pth")))
    assert facts["extractor"] == "pretrained" and len(facts["extractor_sha256"]) == 64


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"loss": "ssim"}, "loss = 'ssim' is none of '1-ssim', '-ssim', 'mse'. Did you mean"),
        ({"center": "never"}, "center = 'never' is none of 'once', 'twice'"),
        ({"feature_dtype": "float16"}, "feature_dtype = 'float16' is none of"),
        ({"hidden_dims": ()}, "hidden_dims = \\(\\) must be widths of at least 1"),
        ({"hidden_dims": (8, 0)}, "must be widths of at least 1"),
        ({"dropout": 1.0}, "dropout = 1.0 must lie in \\[0, 1\\)"),
        ({"hidden_dims": (30,), "group_rule": "25/32"}, "30 channels cannot be split"),
    ],
)
def test_a_wrong_config_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        FAEConfig(**fields)


@pytest.mark.parametrize("size, channels", [(100, 1), (96, 1), (128, 2)])
def test_images_that_do_not_fit_are_refused(size, channels):
    with pytest.raises(InputError, match="multiples of 64, with 1 or 3 channels"):
        make_fae(FAEConfig()).init(jax.random.key(0), spec(size, channels))
