"""A model file of a few numbers, as export would write it: a line through two groups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.data import greys
from jaxfair.methods.base import Method, no_loss
from jaxfair.model_file.container import packed, write_json_part
from jaxfair.model_file.function import exported, named_leaves
from jaxfair.model_file.tensors import tensors_to_bytes

__all__ = ["ABOUT", "EVALUATION", "PRIVACY", "SPEC", "made_file", "made_parts", "tiny"]

SIDE = 8
SPEC = {
    "image": jax.ShapeDtypeStruct((SIDE, SIDE, 1), jnp.float32),
    "label": jax.ShapeDtypeStruct((1,), jnp.float32),
    "label_mask": jax.ShapeDtypeStruct((1,), jnp.bool_),
    "group": jax.ShapeDtypeStruct((1,), jnp.int32),
}
PARAMS = {"weight": jnp.linspace(-1, 1, SIDE * SIDE), "of_group": jnp.array([0.25, 0.5])}
ABOUT = {
    "name": "made", "method": "line", "note": "Made by hand.", "tasks": ["mass"],
    "groups": {"sex": ["F", "M"]}, "needs": ["sex"], "data": "phantom", "population": "phantom",
    "title": "drawn", "intended": "Tests.", "passing_on": "Drawn.", "maps": True, "jax": "",
    "images": {
        "kind": "picture", "greys": greys.RULE, "views": ["PA"], "modalities": ["CR", "DX"],
        "stored": {"image_size": SIDE, "channels": 1, "volume": None},
    },
}  # fmt: skip
PRIVACY = {"epsilon": None, "grade": "none", "not_covered": ["everybody"], "data": "phantom"}
EVALUATION = {
    "thresholds": {
        "mass": {"youden": 0.1, "min_gap": 0.2, "groups": {"sex": {"F": {"youden": -0.5}}}}
    },
    "performance": [],
    "people": [],
    "ranges": {"mean": [0.2, 0.6], "spread": [0.05, 0.5]},
}


def tiny() -> Method:
    """A score that is a weighted mean of the pixels, shifted by the sex; a map of the pixels."""

    def score(params, frozen, batch):
        known = batch["group"][:, 0]
        shift = jnp.where(known >= 0, params["of_group"][jnp.maximum(known, 0)], 0.0)
        maps = batch["image"][..., 0]
        flat = maps.reshape(maps.shape[0], SIDE * SIDE)
        return {"mass": flat @ params["weight"] / 8 + shift + frozen["offset"], "maps": maps}

    init = lambda key, spec: (PARAMS, {"offset": jnp.zeros(())})
    return Method("line", ("mass",), init, no_loss, score)


@functools.cache
def program() -> bytes:
    """Traced once for all tests."""
    return exported(tiny(), PARAMS, {"offset": jnp.zeros(())}, SPEC)


def made_parts(**about) -> dict[str, bytes]:
    """The parts of a file; `about` replaces words of its model.json."""
    leaves = named_leaves(PARAMS, {"offset": jnp.zeros(())})
    return {
        "model.json": write_json_part(ABOUT | about),
        "privacy.json": write_json_part(PRIVACY),
        "card.md": b"# Model card\n",
        "parameters.safetensors": tensors_to_bytes(jax.tree.map(np.asarray, leaves)),
        "score.stablehlo": program(),
        "evaluation.json": write_json_part(EVALUATION),
    }


def made_file(path, **about):
    """Writes a model file and returns its path."""
    path.write_bytes(packed(made_parts(**about)))
    return path
