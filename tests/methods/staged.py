"""A tiny FCRO, FairREAD and adversarial method on drawn numbers, built once, for their tests.

Their encoder passes on twelve numbers of an image and learns nothing; real ones pass the suite of
every Method.
"""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair import engine
from jaxfair.methods import adversarial as unlearning
from jaxfair.methods import embedder
from jaxfair.methods import fairread as fusing
from jaxfair.methods.adversarial import AdversarialConfig, make_adversarial
from jaxfair.methods.encoder import Encoder
from jaxfair.methods.fairread import FairreadConfig, make_fairread
from jaxfair.methods.fcro import FcroConfig, make_fcro
from jaxfair.privacy.plan import PrivacyConfig, make_plan

__all__ = [
    "SMALL",
    "SPEC",
    "N",
    "adversarial",
    "drawn",
    "example_of",
    "fairread",
    "fcro",
    "opened",
    "plan_of",
    "published",
    "stages_of",
]

N, WIDTH = 48, 12
SPEC = {
    "image": jax.ShapeDtypeStruct((1, WIDTH, 1), np.float32),
    "label": jax.ShapeDtypeStruct((1,), np.float32),
    "label_mask": jax.ShapeDtypeStruct((1,), np.bool_),
    "group": jax.ShapeDtypeStruct((2,), np.int32),
}
SMALL = {
    "labels": ("a",),
    "attributes": {"sex": 2, "age_group": 3},
    "backbone": "features",
    "embedding": 8,
    "directions": 2,
    "row_weight": 0.0,
    "moment_share": 0.25,
}


def _toy(config, maps=False):
    none = lambda key, spec: ({}, {})
    return Encoder(3, none, _maps, None) if maps else Encoder(WIDTH, none, _seen, None)


def _seen(params, frozen, batch):
    return batch["image"].reshape(-1, WIDTH)


def _maps(params, frozen, batch):
    return batch["image"].reshape(-1, 2, 2, 3)


@functools.cache
def fcro(augment=None, **fields):
    """FCRO on twelve numbers: what is trained are matrices of 8 columns."""
    config = FcroConfig(**SMALL | {"target_share": 0.5} | fields)
    with mock.patch.object(embedder, "make_encoder", _toy):
        return make_fcro(config, augment)


@functools.cache
def fairread(augment=None, **fields):
    """The disentangled arm on the same."""
    chosen = {"width": 8, "target_share": 0.25, "fusion_share": 0.25, "dropout": 0.0}
    config = FairreadConfig(**SMALL | chosen | fields)
    with mock.patch.object(embedder, "make_encoder", _toy):
        return make_fairread(config, augment)


@functools.cache
def published(**fields):
    """The published arm, on maps of 2 x 2 pixels and three channels."""
    chosen = {"width": 8, "target_share": 0.25, "fusion_share": 0.25, "arm": "published"}
    config = FairreadConfig(**SMALL | chosen | {"backbone": "resnet9"} | fields)
    with (
        mock.patch.object(embedder, "make_encoder", _toy),
        mock.patch.object(fusing, "make_encoder", _toy),
    ):
        return make_fairread(config)


@functools.cache
def adversarial(augment=None, **fields):
    """The adversarial method on the same numbers; what is trained are its heads."""
    chosen = {name: SMALL[name] for name in ("labels", "attributes", "backbone")}
    config = AdversarialConfig(**chosen | {"hidden": 6, "embedding": 4} | fields)
    with mock.patch.object(unlearning, "make_encoder", _toy):
        return make_adversarial(config, augment)


@functools.cache
def drawn():
    """Numbers that show label, sex and age, under noise; a few things are unknown."""
    rng = np.random.default_rng(0)
    label, sex, age = (rng.integers(size, size=N) for size in (2, 2, 3))
    image = 0.3 * rng.normal(size=(N, 1, WIDTH, 1))
    for place, shown in ((0, label), (1, sex), (2, age == 1), (3, age == 2)):
        image[:, 0, place, 0] += 2 * shown
    group = np.stack([sex, age], axis=1)
    group[:3], mask = [[-1, 0], [1, -1], [-1, -1]], np.ones((N, 1), bool)
    mask[3] = False
    return {
        "image": image.astype(np.float32),
        "label": label[:, None].astype(np.float32),
        "label_mask": mask,
        "group": group.astype(np.int32),
    }


@functools.cache
def plan_of(steps=8, expected=N, **fields):
    config = PrivacyConfig(**{"epsilon": 8.0, "l2_clip_norm": 1.0} | fields)
    return make_plan(config, steps=steps, expected_batch_size=expected, public_size=N)


def opened(folder, method, *, private=False, steps=8, seed=0, devices=1, **options):
    """A training of `method` in which every step draws everybody."""
    options = {"save_every": 8, "microbatch": 16, "insecure_seed": 1, "progress": False} | options
    return engine.open(
        plan_of(steps, enabled=private), method, optax.adam(0.05),
        engine.population_from_ids(range(N), unit="image"),
        {name: values.__getitem__ for name, values in drawn().items()},
        folder, spec=SPEC, options=engine.Options(seed=seed, **options),
        mesh=engine.make_mesh(devices),
    )  # fmt: skip


@functools.cache
def stages_of(method, seed=0):
    """[(method, params, frozen)] of each stage as it would begin now."""
    found = [(method, *method.init(jax.random.key(seed), SPEC))]
    for number, stage in enumerate(method.stages, start=1):
        begun = stage.begin(*found[-1][1:], jax.random.key(number), SPEC)
        found.append((stage.method, *begun))
    return found


def example_of(row=5, **changes):
    """The arrays of one example, some of them changed."""
    return {name: jnp.asarray(values[row]) for name, values in drawn().items()} | changes
