"""Drawn features joined with those of a public network: lengths, units, and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods import probe
from jaxfair.methods.probe import ProbeConfig, make_probe
from jaxfair.models import filters, joined

SMALL = {"size": 36, "patterns": 4, "colours": 4, "sizes": (32,)}
SPEC = {"image": jax.ShapeDtypeStruct((20, 16, 1), jnp.float32)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    twins = pytest.importorskip("tests.models.torch_lite", reason="torch writes the weights")
    path = tmp_path_factory.mktemp("lite") / "w.pth"
    twins.saved(path)
    return str(path)


@pytest.fixture(scope="module")
def made(weights):
    """Config, Method and what is frozen, with the units of 32 drawn images."""
    few = pytest.MonkeyPatch()
    few.setattr(joined, "DRAWN", 32)
    config = ProbeConfig(("a",), **SMALL, weights=weights)
    method = make_probe(config)
    params, frozen = method.init(jax.random.key(0), SPEC)
    few.undo()
    return config, method, params, frozen


def test_features_have_length_one_and_each_part_half_of_its_square(made):
    config, method, params, frozen = made
    image = np.random.default_rng(0).random((20, 16, 1), np.float32)
    features = np.asarray(jax.jit(method.prepare)(frozen, {"image": image})["features"])
    drawn = filters.feature_count(config.design)
    assert features.shape == (drawn + 2 * 784,) == (len(params["head"]["kernel"]),)
    parts = np.square(features[:drawn]).sum(), np.square(features[drawn:]).sum()
    np.testing.assert_allclose(parts, 0.5, rtol=1e-4)


def test_features_of_the_network_are_standardised_on_drawn_images_alone(made):
    bank = made[3][joined.LITE]
    drawn = filters.drawn_images(32, 20, 1, seed=0)
    raw = jax.jit(jax.vmap(functools.partial(joined._raw, "lite0", (32,)), (None, 0)))(bank, drawn)
    units = bank["features"]
    standard = (raw - units["mean"]) / units["scale"]
    alive = np.asarray(raw).std(axis=0) > 1e-3  # the last maps are of one pixel here
    assert alive.mean() > 0.6
    np.testing.assert_allclose(standard.mean(axis=0)[alive], 0, atol=1e-2)
    np.testing.assert_allclose(standard.std(axis=0)[alive], 1, atol=1e-2)


def test_means_and_deviations_are_those_of_the_maps_of_one_image(made):
    bank, x = made[3][joined.LITE], np.random.default_rng(1).random((32, 32, 1), np.float32)
    net = joined._net("lite0")
    kept = {name: bank[name] for name in ("params", "stats")}
    first = np.asarray(jax.jit(lambda x: net.apply(kept, x)[0])(x[None]))[0]
    found = jax.jit(functools.partial(joined._raw, "lite0", (32,)))(bank, x)
    np.testing.assert_allclose(found[:16], first.mean((0, 1)), atol=1e-4)
    np.testing.assert_allclose(found[16:32], first.std((0, 1)), atol=1e-4)


def test_a_report_says_which_network_the_features_are_from(made):
    told = probe.describe(made[0])
    assert len(told["feature_sha256"]) == 64 and told["feature_sha256"] in told["note"]
    assert f"{2 * 784} of them" in told["note"] and "no patient's image" in told["note"]
    assert "feature_sha256" not in probe.describe(ProbeConfig(("a",)))


@pytest.mark.parametrize(
    "fields, match",
    [
        ({"sizes": (96, 100)}, r"sizes = \(96, 100\) must be one or more different multiples"),
        ({"sizes": ()}, "must be one or more"),
        ({"sizes": (96, 96)}, "different"),
        ({"weights": "w.pth", "network": "lite7"}, "network = 'lite7' is none of 'lite0'"),
    ],
)
def test_what_cannot_be_measured_is_refused(fields, match):
    with pytest.raises(InputError, match=match):
        ProbeConfig(("a",), **{"weights": "lite0", **fields})
