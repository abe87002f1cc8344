"""A model file of volumes of a few numbers, whose map is the volume itself."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.methods.base import Method, no_loss
from jaxfair.model_file.container import packed, write_json_part
from jaxfair.model_file.function import exported, named_leaves
from jaxfair.model_file.tensors import tensors_to_bytes
from tests.model_file.made import ABOUT, made_parts

__all__ = ["SHAPE", "WINDOW", "volume_file"]

SHAPE, WINDOW = (4, 5, 6), (-2.0, 2.0)
PARAMS = {"scale": jnp.ones(())}


@functools.cache
def program() -> bytes:
    def score(params, frozen, batch):
        maps = batch["image"][..., 0] * params["scale"]
        return {"mass": maps.reshape(maps.shape[0], 120).mean(1), "maps": maps}

    spec = {"image": jax.ShapeDtypeStruct((*SHAPE, 1), jnp.float32)}
    method = Method("mean", ("mass",), lambda key, spec: (PARAMS, {}), no_loss, score)
    return exported(method, PARAMS, {}, spec)


def volume_file(path: pathlib.Path) -> pathlib.Path:
    """Writes the model file and returns its path."""
    stored = {"volume": list(SHAPE), "window": list(WINDOW), "spacing": None}
    images = ABOUT["images"] | {"kind": "volume", "stored": stored, "views": [], "modalities": []}
    about = ABOUT | {"groups": {}, "needs": [], "images": images}
    leaves = jax.tree.map(np.asarray, named_leaves(PARAMS, {}))
    parts = made_parts() | {
        "model.json": write_json_part(about),
        "parameters.safetensors": tensors_to_bytes(leaves),
        "score.stablehlo": program(),
    }
    path.write_bytes(packed(parts))
    return path
