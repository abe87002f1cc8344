"""The networks of this package under fast clipping: no filter of theirs is held per patient."""

import jax
import jax.numpy as jnp
import pytest

from jaxfair.methods.catalog import METHODS, make_method
from jaxfair.privacy.sums import fast
from tests.methods.made import made

ENDS = ("['scale']", "['bias']")
NETWORKS = {
    "resnet9": ("resnet9", (64, 64, 1)),
    "resnet9 of volumes": ("resnet9", (16, 16, 16, 1)),
    "resnet18": ("resnet18", (64, 64, 1)),
    "densenet121": ("densenet121", (64, 64, 1)),
    "slices": ("slices", (8, 16, 16, 1)),
}


def ways_of(method, example, params, frozen):
    loss = lambda p, example, key: method.loss(p, frozen, example, key)[0]
    return fast.explain(loss, params, example, jax.random.key(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kernel_of_a_classifier_is_recognised(name):
    backbone, shape = NETWORKS[name]
    fields = {"ndim": len(shape) - 1, "channels": 1, "backbone": backbone}
    method = make_method("classifier", METHODS["classifier"].config(labels=("a", "b"), **fields))
    spec = {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}
    params, frozen = jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))
    frozen = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), frozen)
    label = jax.ShapeDtypeStruct((2,), jnp.float32)
    rows = ways_of(method, spec | {"label": label}, params, frozen)
    assert not [path for path, way, _ in rows if way == "vmap" and not path.endswith(ENDS)]


def test_every_kernel_of_the_autoencoder_is_recognised():
    method = make_method("fae", METHODS["fae"].config(hidden_dims=(8, 8)))
    spec = {"image": jax.ShapeDtypeStruct((64, 64, 1), jnp.float32)}
    params, frozen = made(method, spec)
    example = jax.eval_shape(method.prepare, frozen, spec)
    rows = ways_of(method, example, params, frozen)
    assert not [path for path, way, _ in rows if way == "vmap" and not path.endswith(ENDS)]
