"""Parameters drawn by numpy: no random stream to compile, so tests start sooner."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["made"]


def made(method, spec, stages=()):
    """Returns (params, frozen) in the shapes of `method.init`, filters scaled to keep variance.

    Of several `stages` in those with which the last of them begins.
    """
    rng = np.random.default_rng(0)

    def begun():
        key = jax.random.key(0)
        variables = method.init(key, spec)
        for stage in stages:
            variables = stage.begin(*variables, key, spec)
        return variables

    shapes = jax.eval_shape(begun)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var", "colour", "strength"):
            return jnp.ones(leaf.shape)
        if leaf.ndim < 2:
            return jnp.zeros(leaf.shape)
        spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return jnp.asarray(spread * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
