"""Reverse distillation: anomalies are where a student does not see what its teacher sees.

A frozen ResNet-18 gives three maps of an image, once; the trained student rebuilds all three from a
bottleneck, and one minus the cosine of both at a position says how anomalous it is.

Guarantee: the teacher has stored statistics, the student norms that read one image, and the loss is
the mean over the positions of ONE image: nothing couples, and the step's bound holds as it is. The
published student has BatchNorm, which would not be private and is not offered.
Source: Deng and Li 2022 (arXiv 2201.10703).
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.methods.encoder import refuse_unless_known
from jaxfair.models import pretrained
from jaxfair.models.distillation import Student, Teacher, random_teacher
from jaxfair.models.torch_files import read_state_dict

__all__ = ["DistillationConfig", "describe", "make_distillation"]


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """What reverse distillation is; every field is a public choice.

    Attributes:
      width: channels of the first map; 64 is ResNet-18's, with 15.4 million trained parameters.
      feature_dtype: of the cached maps, "float32" or "bfloat16"; the loss is float32.
      extractor_weights: the teacher's: a torchvision ResNet-18 state dict (.safetensors, .pth), or
        None for a seeded random teacher.
      extractor_seed: seed of the random teacher; a public constant.

    Raises InputError for a value outside these.
    """

    width: int = 64
    feature_dtype: str = "float32"
    extractor_weights: str | None = None
    extractor_seed: int = 0

    def __post_init__(self) -> None:
        refuse_unless_known(self, feature_dtype=("float32", "bfloat16"))
        if self.width < 1:
            raise InputError(f"width = {self.width} must be at least 1.")
        if self.width != 64 and self.extractor_weights is not None:
            raise InputError(
                f"width = {self.width} and extractor_weights do not go together: files are of a "
                "ResNet-18 of the width 64."
            )


def make_distillation(config: DistillationConfig) -> Method:
    """Returns reverse distillation as a Method with the one task "anomaly"."""
    student = Student(config.width)

    def distances(params: PyTree, maps: tuple[jax.Array, ...]) -> list[jax.Array]:
        seen = tuple(m.astype(jnp.float32) for m in maps)
        rebuilt: Any = student.apply({"params": params}, seen)
        return [_distance(*pair) for pair in zip(seen, rebuilt, strict=True)]

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        maps = tuple(m[None] for m in _maps_of(example))
        return sum(map(jnp.mean, distances(params, maps)), jnp.zeros(())), {}

    def score(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
        size = batch["image"].shape[:3]
        found = distances(params, _maps_of(batch))
        maps = sum((jax.image.resize(d, size, "linear") for d in found), jnp.zeros(size))
        return {"anomaly": jnp.max(maps, axis=(1, 2)), "maps": maps}

    return Method(
        name="reverse_distillation",
        tasks=("anomaly",),
        init=functools.partial(_init, config, student),
        loss=loss,
        score=score,
        prepare=functools.partial(_prepare, config),
    )


def describe(config: DistillationConfig) -> dict[str, Any]:
    """Returns what a report must say about the teacher: kind, seed or checksum, a sentence."""
    if config.extractor_weights is None:
        note = (
            f"The teacher is an untrained ResNet-18 (seed {config.extractor_seed}) with statistics "
            "from synthetic textures; no pretrained weights were used."
        )
        return {"extractor": "random", "extractor_seed": config.extractor_seed, "note": note}
    _, checksum = read_state_dict(config.extractor_weights)
    note = f"The teacher is a pretrained ResNet-18 (weights with sha256 {checksum})."
    return {"extractor": "pretrained", "extractor_sha256": checksum, "note": note}


def _distance(seen: jax.Array, rebuilt: jax.Array) -> jax.Array:
    """Returns (b, h, w): one minus the cosine over the channels, each length at least 1e-8."""
    size = lambda x: jnp.maximum(jnp.sum(jnp.square(x), -1), 1e-16)
    return 1 - jnp.sum(seen * rebuilt, -1) * jax.lax.rsqrt(size(seen) * size(rebuilt))


def _maps_of(example: Example) -> tuple[jax.Array, ...]:
    return example["layer1"], example["layer2"], example["layer3"]


def _prepare(config: DistillationConfig, frozen: PyTree, raw: Example) -> Example:
    """Returns `layer1`, `layer2`, `layer3` of one raw example's image (h, w, c) in [0, 1]."""
    x = (raw["image"].astype(jnp.float32) - 0.5) * 2
    maps: Any = Teacher(config.width).apply(frozen, jnp.broadcast_to(x, (*x.shape[:2], 3))[None])
    return {f"layer{i + 1}": m[0].astype(config.feature_dtype) for i, m in enumerate(maps)}


def _init(
    config: DistillationConfig, student: Student, key: jax.Array, spec: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    h, w, c = spec["image"].shape
    if h % 32 or w % 32 or c not in (1, 3):
        raise InputError(
            f"Reverse distillation cannot take images of {h}x{w} with {c} channels: height and "
            "width must be multiples of 32, with 1 or 3 channels."
        )
    shapes = [(1, h // 4 // 2**i, w // 4 // 2**i, config.width * 2**i) for i in range(3)]
    params = _compiled_init(student)(key, tuple(map(jnp.zeros, shapes)))["params"]
    return params, _teacher(config.extractor_weights, config.extractor_seed, config.width)


@functools.lru_cache(maxsize=8)
def _teacher(weights: str | None, seed: int, width: int) -> PyTree:
    with jax.core.eval_context():  # cached arrays must be arrays, also inside a trace
        if weights is None:
            return random_teacher(seed, width)
        state, _ = read_state_dict(weights)
        image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        shapes = jax.eval_shape(Teacher(width).init, jax.random.key(0), image)
        return pretrained.fill_from_torch(shapes, state, where=Path(weights).name)


@functools.lru_cache(maxsize=8)
def _compiled_init(student: Student) -> Callable[..., Any]:
    """Compiled once for a network, which is initialised when it trains and when it is scored."""
    return jax.jit(student.init)
