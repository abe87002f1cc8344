"""Parameters drawn by numpy: no random stream to compile, so tests start sooner."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["made"]


def made(method, spec):
    """Returns (params, frozen) in the shapes of `method.init`, filters scaled to keep variance."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), spec))

    def draw(path, leaf):
        if path[-1].key in ("scale", "var", "colour", "strength"):
            return jnp.ones(leaf.shape)
        if leaf.ndim < 2:
            return jnp.zeros(leaf.shape)
        spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return jnp.asarray(spread * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
