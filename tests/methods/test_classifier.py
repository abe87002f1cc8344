"""The classifier: losses against torch, masks, weights, freezing, multiplicity, refused configs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.data.transforms import AugmentConfig, make_augment
from jaxfair.errors import InputError
from jaxfair.methods import classifier
from jaxfair.methods.classifier import ClassifierConfig, make_classifier
from jaxfair.privacy.sums import clipping, fast
from tests.methods.made import made

SPEC = {"image": jax.ShapeDtypeStruct((8, 8, 1), jnp.float32)}
LABELS = ("a", "b", "c")
NETWORK = ("layer1", "layer2", "layer3", "layer4", "conv1")


def head_only(**fields):
    """A classifier of three labels whose head alone is trained: quick to compile."""
    return ClassifierConfig(LABELS, channels=1, last_layer=True, **fields)


@functools.cache
def built(config):
    method = make_classifier(config)
    return method, *made(method, SPEC)


def example(seed=0, **fields):
    rng = np.random.default_rng(seed)
    features = jnp.asarray(rng.standard_normal(512), jnp.float32)
    return {"features": features, "label": jnp.asarray([1.0, 0.0, 0.0]), **fields}


def loss_and_grad(config, example):
    method, params, frozen = built(config)
    fun = lambda p, e: method.loss(p, frozen, e, jax.random.key(0))[0]
    return jax.jit(jax.value_and_grad(fun))(params, example)


def logits(config, features):
    _, params, _ = built(config)
    return np.array(features @ params["head"]["kernel"] + params["head"]["bias"])


def test_the_multi_label_loss_equals_torch_with_weighted_positives():
    torch = pytest.importorskip("torch")
    config = head_only(class_weights=(2.0, 3.0, 0.5))
    given = example()
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits(config, given["features"])),
        torch.from_numpy(np.array(given["label"])),
        pos_weight=torch.tensor([2.0, 3.0, 0.5]),
    )
    assert float(loss_and_grad(config, given)[0]) == pytest.approx(theirs.item(), rel=1e-5)


def test_the_multi_class_loss_equals_torch_up_to_its_normalisation():
    torch = pytest.importorskip("torch")
    config = head_only(target="multi-class", class_weights=(2.0, 3.0, 0.5))
    given = example()
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits(config, given["features"])), torch.tensor(0),
        weight=torch.tensor([2.0, 3.0, 0.5]), reduction="none",
    )  # fmt: skip
    assert float(loss_and_grad(config, given)[0]) == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("hidden", [
    {"label": jnp.asarray([1.0, jnp.nan, 0.0])},
    {"label_mask": jnp.asarray([True, False, True])},
    {"label": jnp.asarray([1.0, jnp.nan, 0.0]), "label_mask": jnp.asarray([True, False, True])},
])  # fmt: skip
def test_a_label_not_asked_has_no_loss_and_no_gradient(hidden):
    config = head_only()
    loss, grads = loss_and_grad(config, example(**hidden))
    z = logits(config, example()["features"])
    expected = (np.log1p(np.exp(-z[0])) + np.log1p(np.exp(z[2]))) / 3
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    kernel = np.asarray(grads["head"]["kernel"])
    assert np.isfinite(kernel).all()
    assert not kernel[:, 1].any() and kernel[:, 0].any()


@pytest.mark.parametrize("target", ["multi-label", "multi-class"])
def test_an_example_of_which_nothing_was_asked_has_zero_loss_and_gradient(target):
    given = example(label=jnp.full(3, jnp.nan))
    loss, grads = loss_and_grad(head_only(target=target), given)
    assert float(loss) == 0
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))


def test_extreme_logits_keep_loss_and_gradient_finite():
    given = example()
    given["features"] = given["features"] * 1e6
    for target in ("multi-label", "multi-class"):
        loss, grads = loss_and_grad(head_only(target=target), given)
        assert np.isfinite(loss)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_scores_are_probabilities_by_label():
    batch = {"features": jnp.stack([example(i)["features"] for i in range(4)])}
    for target in ("multi-label", "multi-class"):
        method, params, frozen = built(head_only(target=target))
        scores = jax.jit(method.score)(params, frozen, batch)
        assert tuple(scores) == LABELS
        values = np.stack(list(scores.values()))
        assert ((values > 0) & (values < 1)).all()
        if target == "multi-class":
            np.testing.assert_allclose(values.sum(0), 1, rtol=1e-5)


def test_the_head_alone_is_trained_on_features_prepared_once():
    method, params, frozen = built(head_only())
    assert params["backbone"] == {} and set(params["head"]) == {"kernel", "bias"}
    raw = {"image": jnp.ones((8, 8, 1)), "label": jnp.ones(3), "label_mask": jnp.ones(3, bool)}
    prepared = jax.jit(method.prepare)(frozen, raw)
    assert prepared["features"].shape == (512,) and set(prepared) == {
        "features",
        "label",
        "label_mask",
    }
    scores = jax.jit(method.score)(params, frozen, jax.tree.map(lambda a: a[None], raw))
    cached = jax.tree.map(lambda a: a[None], prepared)
    np.testing.assert_allclose(scores["a"], method.score(params, frozen, cached)["a"], rtol=1e-5)


def test_frozen_parts_are_not_among_the_parameters():
    config = ClassifierConfig(("a",), channels=1, freeze=("conv1", "bn1", "layer1"))
    params, frozen = made(make_classifier(config), SPEC)
    assert set(frozen["backbone"]) == {"conv1", "bn1", "layer1_0"}
    assert set(params["backbone"]) == {"layer2_0", "layer3_0", "layer4_0"}
    with pytest.raises(InputError, match="freeze = 'stem' is the beginning of no module"):
        config = ClassifierConfig(("a",), channels=1, freeze=("stem",))
        make_classifier(config).init(jax.random.key(0), SPEC)


def darken(example, key):
    """Scales the image by a factor drawn from the key: an augmentation whose mean is known."""
    return {**example, "image": example["image"] * jax.random.uniform(key)}


def test_multiplicity_averages_the_loss_of_as_many_views():
    one = ClassifierConfig(LABELS, channels=1, freeze=NETWORK)
    three = ClassifierConfig(LABELS, channels=1, freeze=NETWORK, multiplicity=3)
    method = make_classifier(three, augment=darken)
    params, frozen = made(method, SPEC)
    image = jnp.asarray(np.random.default_rng(0).random((8, 8, 1)), jnp.float32)
    given = {"image": image, "label": jnp.asarray([1.0, 0, 0])}
    key = jax.random.key(7)
    loss = jax.jit(method.loss)(params, frozen, given, key)[0]
    single = jax.jit(make_classifier(one).loss)
    views = [darken(given, k) for k in jax.random.split(key, 3)]
    expected = np.mean([single(params, frozen, view, key)[0] for view in views])
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_views_of_one_patient_are_clipped_as_one():
    """Multiplicity under the real augmentation: fast and plain equal the loop, and keep to C."""
    config = ClassifierConfig(LABELS, channels=1, multiplicity=3, freeze=(*NETWORK, "bn1"))
    augment = make_augment(AugmentConfig(flip=0.5, quarter_turns=True, intensity=0.2), LABELS)
    method = make_classifier(config, augment=augment)
    params, frozen = made(method, SPEC)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.random((4, 8, 8, 1)), jnp.float32),
        "label": jnp.asarray(rng.random((4, 3)) < 0.5, jnp.float32),
    }
    keys, mask = jax.random.split(jax.random.key(1), 4), jnp.asarray([True, True, False, True])
    loss = lambda p, example, key: method.loss(p, frozen, example, key)[0]
    clip = 1e-2
    sums = [
        jax.jit(functools.partial(way, loss, l2_clip_norm=clip))(params, batch, keys, mask)
        for way in (fast.clipped_sum, clipping.clipped_sum)
    ]
    total = jax.tree.map(lambda p: np.zeros(p.shape), params)
    grad = jax.jit(jax.grad(loss))
    for i in np.flatnonzero(mask):
        single = grad(params, {name: values[i] for name, values in batch.items()}, keys[i])
        norm = np.sqrt(sum(np.sum(np.square(np.float64(g))) for g in jax.tree.leaves(single)))
        assert norm > clip
        total = jax.tree.map(lambda t, g, n=norm: t + g * clip / n, total, single)
    for ours in sums:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), ours, total
        )


def test_weights_of_a_group_norm_network_bring_their_norms(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.randomise(nets.ResNet(nets.BasicBlock, (1, 1, 1, 1), nets.group_norm, nets.F.mish))
    path = tmp_path / "resnet9.pth"
    nets.torch.save(net.state_dict(), path)
    params, _ = make_classifier(ClassifierConfig(("a",), weights=str(path))).init(
        jax.random.key(0), SPEC
    )
    for name in ("bn1", "layer2_0"):
        ours, theirs = params["backbone"][name], getattr(net, name.partition("_")[0])
        if name != "bn1":
            ours, theirs = ours["bn2"], theirs[0].bn2
        np.testing.assert_array_equal(ours["scale"], theirs.weight.detach())
        np.testing.assert_array_equal(ours["bias"], theirs.bias.detach())


@pytest.mark.slow
def test_weights_fill_the_backbone_and_their_statistics(tmp_path):
    nets = pytest.importorskip("tests.models.torch_nets")
    net = nets.randomise(nets.ResNet(nets.BasicBlock, (2, 2, 2, 2), nets.nn.BatchNorm2d))
    path = tmp_path / "w.pth"
    nets.torch.save(net.state_dict(), path)
    config = ClassifierConfig(("a",), backbone="resnet18", norm="frozen", weights=str(path))
    params, frozen = make_classifier(config).init(jax.random.key(0), SPEC)
    np.testing.assert_array_equal(frozen["stats"]["backbone"]["bn1"]["mean"], net.bn1.running_mean)
    np.testing.assert_array_equal(params["backbone"]["bn1"]["scale"], net.bn1.weight.detach())


def test_describe_says_where_the_weights_came_from(tmp_path):
    assert classifier.describe(ClassifierConfig(("a",)))["initial_weights"] == "random"
    nets = pytest.importorskip("tests.models.torch_nets")
    nets.torch.save({"a": nets.torch.ones(1)}, tmp_path / "w.pth")
    facts = classifier.describe(ClassifierConfig(("a",), weights=str(tmp_path / "w.pth")))
    assert len(facts["initial_sha256"]) == 64 and facts["initial_sha256"] in facts["note"]


@pytest.mark.parametrize("backbone", ["resnet9", "densenet121"])
def test_a_grey_image_is_scored_as_its_repetition_to_the_channels(backbone):
    method = make_classifier(ClassifierConfig(LABELS, backbone=backbone))
    params, frozen = made(method, {"image": jax.ShapeDtypeStruct((32, 32, 1), jnp.float32)})
    image = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    score = jax.jit(lambda image: method.score(params, frozen, {"image": image}))
    grey, repeated = score(image), score(np.repeat(image, 3, axis=-1))
    for name in grey:
        np.testing.assert_allclose(grey[name], repeated[name], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config, shape",
    [
        (ClassifierConfig(("a",), ndim=3, channels=1), (16, 16, 16, 1)),
        (ClassifierConfig(("a",), backbone="slices", ndim=3, channels=1), (4, 32, 32, 1)),
        (ClassifierConfig(("a",), backbone="resnet50"), (32, 32, 3)),
        (ClassifierConfig(("a",), backbone="densenet121"), (32, 32, 1)),
    ],
)
def test_every_backbone_has_a_finite_gradient_in_every_part(config, shape):
    method = make_classifier(config)
    spec = {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}
    params, frozen = made(method, spec)
    image = jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)
    given = {"image": image, "label": jnp.ones(1)}
    grads = jax.jit(jax.grad(lambda p: method.loss(p, frozen, given, jax.random.key(0))[0]))(params)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()
    assert np.asarray(grads["head"]["kernel"]).any()


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"labels": ()}, r"labels = \(\) must be at least 1 different names"),
        ({"labels": ("a", "a")}, "must be at least 1 different names"),
        ({"labels": ("a",), "target": "multi-class"}, "must be at least 2 different names"),
        (
            {"target": "multilabel"},
            "target = 'multilabel' is none of .* Did you mean 'multi-label'",
        ),
        ({"backbone": "resnet19"}, "backbone = 'resnet19' is none of"),
        ({"ndim": 4}, "ndim = 4 is none of 2, 3"),
        ({"norm": "batch"}, "norm = 'batch' is none of"),
        ({"norm": "frozen"}, "needs stored statistics"),
        ({"activation": "gelu"}, "activation = 'gelu' is none of"),
        ({"class_weights": "balanced"}, "class_weights is 'balanced'; weights are public"),
        ({"class_weights": (1.0,)}, "class_weights has 1 entries for 2 labels"),
        ({"class_weights": (1.0, -1.0)}, r"class_weights holds -1.0; a weight is a constant"),
        ({"class_weights": (1.0, float("nan"))}, "class_weights holds nan"),
        ({"multiplicity": 0}, "multiplicity = 0 must be at least 1"),
        ({"backbone": "slices"}, "use ndim 3, channels 1"),
    ],
)
def test_a_wrong_config_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        ClassifierConfig(**{"labels": ("a", "b"), **fields})


def test_multiplicity_without_augmentation_is_refused():
    with pytest.raises(InputError, match="there is no augmentation"):
        make_classifier(ClassifierConfig(("a",), multiplicity=2))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 2), (4, 8, 8, 1)])
def test_images_that_do_not_fit_are_refused(shape):
    spec = {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}
    with pytest.raises(InputError, match="2 spatial axes, then 1 or 3 channels"):
        make_classifier(ClassifierConfig(("a",))).init(jax.random.key(0), spec)
