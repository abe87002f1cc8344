"""Reverse distillation: a frozen ResNet-18 shows three maps, a mirrored one rebuilds them.

The teacher is that of `extractor`, one stage deeper; the student has GroupNorm where the published
one has BatchNorm, with as many parameters.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxfair.models import layers
from jaxfair.models.extractor import synthetic_textures
from jaxfair.models.norms import FrozenNorm, group_norm
from jaxfair.models.resnet import BasicBlock

__all__ = ["Student", "Teacher", "random_teacher"]

PyTree = dict


class Teacher(nn.Module):
    """Images (b, h, w, 3) -> maps of layer1, layer2 and layer3 at h/4, h/8 and h/16.

    They have `width`, 2 `width` and 4 `width` channels. With the width 64 it is torchvision's
    ResNet-18 with stored statistics. Source: He et al. 2016.
    """

    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        x = layers.Conv(self.width, 7, stride=2, padding=3, trained=False, name="conv1")(x)
        x = layers.max_pool(nn.relu(FrozenNorm(name="bn1")(x)))
        maps = []
        for stage in range(3):
            block = functools.partial(
                BasicBlock, self.width * 2**stage, norm="frozen", trained=False
            )
            x = block(stride=min(stage, 1) + 1, name=f"layer{stage + 1}_0")(x)
            x = block(name=f"layer{stage + 1}_1")(x)
            maps.append(x)
        return tuple(maps)


class Student(nn.Module):
    """The teacher's three maps -> the same three, rebuilt through a map of 8 `width` at h/32.

    Bottleneck: layer1 and layer2 are brought to layer3's size by 3x3 convolutions of stride 2, all
    three are joined, and two residual blocks follow, the first of stride 2. Decoder: three stages
    of two residual blocks, whose first doubles the map by a transposed 2x2 convolution, on the skip
    too. 11,680,000 + 3,703,168 parameters at the width 64; the published bottleneck holds 525,312
    more that it never uses.
    Source: Deng and Li 2022 (arXiv 2201.10703), with GroupNorm.
    """

    width: int = 64

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        first, second, third = maps
        w = self.width
        first = _Down(2 * w, name="down1")(first)
        joined = [_Down(4 * w, name="down2")(first), _Down(4 * w, name="down3")(second), third]
        x = jnp.concatenate(joined, axis=-1)
        x = BasicBlock(8 * w, 2, name="bottleneck_0")(x)
        x = BasicBlock(8 * w, name="bottleneck_1")(x)
        rebuilt = []
        for stage in (4, 2, 1):
            x = UpBlock(stage * w, name=f"up{stage}_0")(x)
            x = BasicBlock(stage * w, name=f"up{stage}_1")(x)
            rebuilt.append(x)
        return tuple(rebuilt[::-1])


class UpBlock(nn.Module):
    """Doubles the map: relu(norm(conv3(relu(norm(up2(x))))) + norm(up2(x)))."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        up = functools.partial(layers.UpConv, self.features, 2)
        y = nn.relu(group_norm(self.features, name="bn1")(up(name="conv1")(x)))
        conv = layers.Conv(self.features, 3, padding=1, kernel_init=layers.he_normal, name="conv2")
        y = group_norm(self.features, name="bn2")(conv(y))
        return nn.relu(y + group_norm(self.features, name="skip_norm")(up(name="skip")(x)))


def random_teacher(seed: int, width: int) -> PyTree:
    """Returns {"params", "stats"} of an untrained teacher: He-normal filters, and the statistics
    of drawn textures, as `extractor.random_extractor`."""
    images = synthetic_textures(32, 128, seed=seed)
    shapes = jax.eval_shape(Teacher(width).init, jax.random.key(0), images[:1])["params"]
    rng = np.random.default_rng(seed)

    def drawn(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if path[-1].key != "kernel":
            return jnp.full(leaf.shape, float(path[-1].key == "scale"))
        spread = np.sqrt(2 / (leaf.shape[0] * leaf.shape[1] * leaf.shape[3]))
        return jnp.asarray(spread * rng.standard_normal(leaf.shape), jnp.float32)

    params = jax.tree_util.tree_map_with_path(drawn, shapes)
    measure = jax.jit(functools.partial(Teacher(width).apply, mutable=["stats"]))
    _, measured = measure({"params": params}, images)
    return {"params": params, "stats": measured["stats"]}


class _Down(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = layers.Conv(
            self.features, 3, stride=2, padding=1, kernel_init=layers.he_normal, name="conv"
        )
        return nn.relu(group_norm(self.features, name="norm")(conv(x)))
