"""A Gaussian of what normal images look like: a detector without a network that is trained.

A frozen extractor's maps, averaged over cells, become a few numbers by public constants
(`models.cells`). Mean and covariance of normal images in them come from noisy second moments
(`normal_law`, protocol P10); an image is anomalous by its squared Mahalanobis distance.

There are several passes with one ledger. The first measures in the units of drawn images; each
further one in those that the pass before released, centred and whitened, in which the clip is
tighter and all variances are as large against the noise. Source: Biswas, Dong, Kamath and Ullman
2020 (CoinPress, arXiv 2006.06618); Gaussians on frozen features: Rippel et al. 2020
(arXiv 2005.14140).

Guarantee: each step releases one noisy sum of z z^T with |z| <= 1 (`normal_law`); units and
directions are public or come out of sums that were released before in the same ledger. Full
batches lose nothing by many steps: with q = 1 the noise of all of them together is that of one.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree, Stage
from jaxfair.methods.embedder import no_init, no_score
from jaxfair.methods.normal_law import Normal, moment_loss, read_normal, with_one
from jaxfair.models import cells, extractor, pretrained
from jaxfair.models.torch_files import read_state_dict

__all__ = [
    "MOMENT",
    "GaussianConfig",
    "describe",
    "in_first_units",
    "make_detector",
    "make_gaussian",
]

MOMENT = {"moment": {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0}}
"""The optimiser that adds up: `optim.parts` of a run of this Method."""


@dataclasses.dataclass(frozen=True)
class GaussianConfig:
    """A Gaussian on frozen features; every field is a public choice.

    Attributes:
      grid: cells a side over which the maps are averaged; it divides a quarter of the image's
        height and width.
      dims: numbers of an image. The noise on an eigenvalue grows by their root, and what is left
        for each falls by their number: 16 for 600 patients at epsilon 8, 8 at epsilon 1.
      passes: second moments, one after the other, each in the units of the one before.
      radius: numbers longer than this times sqrt(dims) are clipped; those of drawn images have
        a length of sqrt(dims).
      extractor_weights: a torchvision ResNet-18 state dict (.safetensors, .pth), or None
        for a seeded random extractor.
      extractor_seed: seed of the random extractor and of the drawn images; a public constant.

    Raises InputError for a value outside these.
    """

    grid: int = 8
    dims: int = 16
    passes: int = 3
    radius: float = 1.0
    extractor_weights: str | None = None
    extractor_seed: int = 0

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("grid", self.grid >= 1, "at least 1"),
            ("dims", 2 <= self.dims < cells.DRAWN, f"from 2 to below {cells.DRAWN}"),
            ("passes", 1 <= self.passes <= 8, "from 1 to 8"),
            ("radius", 0.1 <= self.radius <= 100, "from 0.1 to 100"),
        ):
            if not holds:
                raise InputError(f"{name} = {getattr(self, name)!r} must be {rule}.")

    @property
    def reach(self) -> float:
        """The length at which numbers are clipped."""
        return self.radius * self.dims**0.5


def make_gaussian(config: GaussianConfig) -> Method:
    """Returns the detector as a Method of `passes` stages, with the one task "anomaly"."""

    def distance(config: Any, frozen: PyTree, law: Normal, x: jax.Array) -> jax.Array:
        inside = ((x @ frozen["turn"] + frozen["shift"]) - law.mean) @ law.vectors
        return jnp.sum(jnp.square(inside) / law.values, axis=-1)

    return make_detector("gaussian", config, distance)


def make_detector(name: str, config: Any, distance: Any) -> Method:
    """Returns a Method that adds up moments and scores by what they tell.

    Args:
      config: a GaussianConfig.
      distance: `(config, frozen, law, x (b, dims)) -> (b,)` with the Normal of the last pass, in
        the units of `x @ frozen["turn"] + frozen["shift"]`.
    """

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        here = example["numbers"] @ frozen["turn"] + frozen["shift"]
        return moment_loss(params["moment"], with_one(here, config.reach)), {}

    def score(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
        law = read_normal(params["moment"], config.reach)
        return {"anomaly": distance(config, frozen, law, batch["numbers"])}

    def learned(params: PyTree, frozen: PyTree) -> str:
        law = read_normal(params["moment"], config.reach)
        return (
            f"{int(law.found)} of the {config.dims} variances of the last second moment stand "
            "above the noise, as the matrix itself shows it; the others share one value."
        )

    first = Method(
        name=name if config.passes == 1 else f"{name}, pass 1",
        tasks=("anomaly",),
        init=functools.partial(_init, config),
        loss=loss,
        score=score if config.passes == 1 else no_score,
        prepare=functools.partial(_prepare, config),
        embed=_embed,
        learned=learned,
    )
    later = [
        Stage(
            first._replace(name=f"{name}, pass {number}", init=no_init, score=score),
            functools.partial(_next_pass, config),
            1 / config.passes,
        )
        for number in range(2, config.passes + 1)
    ]
    return first._replace(stages=tuple(later))


def in_first_units(frozen: PyTree, law: Normal) -> tuple[jax.Array, jax.Array]:
    """Returns mean (d,) and covariance (d, d) of a law of the last pass, in units of the first."""
    turned, upper = jnp.linalg.qr(frozen["turn"])  # its inverse by LU would be a loop, on a CPU
    back = jax.scipy.linalg.solve_triangular(upper, turned.T)
    root = (law.vectors * jnp.sqrt(law.values)).T @ back
    return (law.mean - frozen["shift"]) @ back, root.T @ root


def describe(config: GaussianConfig) -> dict[str, Any]:
    """Returns what a report must say about the features: how many, and where they are from."""
    if config.extractor_weights is None:
        what, told = f"an untrained ResNet-18 (seed {config.extractor_seed})", "random"
        found: dict[str, Any] = {"extractor_seed": config.extractor_seed}
    else:
        _, checksum = read_state_dict(config.extractor_weights)
        what, told = f"a pretrained ResNet-18 (sha256 {checksum})", "pretrained"
        found = {"extractor_sha256": checksum}
    note = (
        f"Images are {config.dims} numbers: maps of {what}, averaged over {config.grid} x "
        f"{config.grid} cells, standardised and projected by drawn images, which hold no patient. "
        f"Their mean and covariance come from {config.passes} second moments, one after the other."
    )
    return {"extractor": told, **found, "note": note}


def _init(config: Any, key: jax.Array, spec: dict[str, Any]) -> tuple[PyTree, PyTree]:
    h, w, c = spec["image"].shape
    if h % (4 * config.grid) or w % (4 * config.grid) or c not in (1, 3):
        raise InputError(
            f"A grid of {config.grid} cells a side cannot take images of {h}x{w} with {c} "
            f"channels: height and width must be multiples of {4 * config.grid}, with 1 or 3 "
            "channels."
        )
    d = config.dims
    public = _public(
        config.extractor_weights, config.extractor_seed, (h, w), config.grid, config.dims
    )
    return {"moment": jnp.zeros((d + 1, d + 1))}, {
        **public,
        "turn": jnp.eye(d),
        "shift": jnp.zeros(d),
    }


@functools.lru_cache(maxsize=8)
def _public(
    weights: str | None, seed: int, size: tuple[int, int], grid: int, dims: int
) -> dict[str, Any]:
    """Extractor and units; a function of public constants alone, and a few seconds."""
    with jax.core.eval_context():  # cached arrays must be arrays, also inside a trace
        if weights is None:
            params, stats = extractor.random_extractor(seed)
        else:
            params, stats, _ = pretrained.read_extractor(weights)
        variables = {"params": params, "stats": stats}
        maps_of: Any = extractor.Extractor().apply
        found = cells.public_cells(maps_of, variables, size, grid=grid, dims=dims, seed=seed)
    return {"extractor": variables, "cells": found}


def _prepare(config: Any, frozen: PyTree, raw: Example) -> Example:
    """Returns {"numbers": (dims,)} of one raw example's image (h, w, c) in [0, 1]."""
    x = (raw["image"].astype(jnp.float32) - 0.5) * 2
    x = jnp.broadcast_to(x, (*x.shape[:2], 3))
    maps: Any = extractor.Extractor().apply(frozen["extractor"], x[None])
    return {"numbers": cells.cell_numbers(frozen["cells"], maps, config.grid)[0]}


def _embed(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
    return {"numbers": batch["numbers"]}


def _next_pass(
    config: Any, params: PyTree, frozen: PyTree, key: Any, spec: Any
) -> tuple[PyTree, PyTree]:
    """Begins again with nothing added up, in units in which the law that was found is standard."""
    law = read_normal(params["moment"], config.reach)
    whiten = law.vectors / jnp.sqrt(law.values)
    turned = {"turn": frozen["turn"] @ whiten, "shift": (frozen["shift"] - law.mean) @ whiten}
    return jax.tree.map(jnp.zeros_like, params), {**frozen, **turned}
