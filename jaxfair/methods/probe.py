"""The linear probe: a linear head on fixed public features of an image.

No patient shaped the features (models.filters; with `weights` also models.joined), so only the
head is learned, and only the head costs privacy. Feature vectors have length 1: one patient's
gradient is at most sqrt(2) times the error of his prediction, clipping at 1 hardly bites, and the
noise on a logit does not grow with the number of features. With `train.expected_batch_size` equal
to `data.public_size` every step uses every patient (q = 1), which suits a few dozen steps; a
smaller batch is drawn by Poisson as always. Source: Tramer & Boneh 2021 (arXiv 2011.11660), with
other features.

A linear head on the pooled features of a network is the method `classifier` with
`last_layer`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Example, Linear, Method, PyTree
from jaxfair.methods.labels import TARGETS, check_labels, label_loss, label_scores
from jaxfair.models import filters, joined, layers, public
from jaxfair.models.filters import SMALLEST, Design
from jaxfair.models.joined import Joined

__all__ = ["SMALLEST", "ProbeConfig", "describe", "make_probe"]


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """What the probe is; every field is a public choice.

    Attributes:
      labels: the tasks, one per column of an example's `label` (l,).
      target: "multi-label": each label is asked by itself; "multi-class": exactly one of at
        least two labels is true and `label` is one-hot.
      class_weights: public constants, one per label, as in ClassifierConfig.
      size: side to which images are resized for the filters, a multiple of 4, at least
        SMALLEST.
      patterns: 5 x 5 filters at a half, and as many at a quarter, of this size.
      colours: thresholds on random mixtures of the channels (of grey, where there is one).
      symmetric: True where turning or flipping an image changes no label (skin): features
        are averaged over the eight ways and pooled over rings. False where an image has a top
        and a left (radiographs): pooled over 3 x 3 cells.
      feature_seed: seed of the filters and of the drawn images that scale the features.
      weights: a public network whose features are joined with the drawn ones: a name as "lite0"
        (docs/weights.md), or a file of `network`; None for drawn features alone.
      network: of which network a file of weights is, "lite0" to "lite4".
      sizes: sides, multiples of 32, to which images are resized for that network.

    Raises InputError for a value outside these.
    """

    labels: tuple[str, ...]
    target: str = "multi-label"
    class_weights: tuple[float, ...] = ()
    size: int = 48
    patterns: int = 48
    colours: int = 64
    symmetric: bool = True
    feature_seed: int = 0
    weights: str | None = None
    network: str = "lite0"
    sizes: tuple[int, ...] = (96, 160)

    def __post_init__(self) -> None:
        for name in ("labels", "class_weights", "sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.target not in TARGETS:
            raise InputError(
                f"target = {self.target!r} is none of {', '.join(map(repr, TARGETS))}."
                + nearest(self.target, TARGETS)
            )
        check_labels(self.labels, self.target, self.class_weights)
        joined.check_joined(self.measured)

    @property
    def design(self) -> Design:
        """What the drawn filters measure of an image."""
        return filters.make_design(self.size, self.patterns, self.colours, symmetric=self.symmetric)

    @property
    def measured(self) -> Joined:
        """All that is measured of an image."""
        if self.weights is None:
            return Joined(self.design)
        network = self.weights if self.weights in public.PUBLIC else self.network
        return Joined(self.design, network, self.weights, self.sizes)


def make_probe(config: ProbeConfig) -> Method:
    """Returns the linear probe as a Method with one task per label.

    A raw example has `image` (h, w, c) in [0, 1], of any size and number of channels, `label`
    (l,) and `label_mask` (l,) as the classifier has them; `prepare` turns the image into its
    features (d,) once. Scores are probabilities.
    """
    head = layers.dense(len(config.labels), joined.joined_count(config.measured))
    return Method(
        name="linear_probe",
        tasks=config.labels,
        init=functools.partial(_init, config, head),
        loss=functools.partial(_loss, config, head),
        score=functools.partial(_score, config, head),
        prepare=functools.partial(_prepare, config),
        embed=lambda params, frozen, batch: {"features": batch["features"]},
        linear=_linear(config),
    )


def _linear(config: ProbeConfig) -> Linear | None:
    """What is minimised at once by `dp.mechanism`: of labels that are asked one by one."""
    if config.target != "multi-label":
        return None
    return Linear(tuple(map(float, config.class_weights)) or (1.0,) * len(config.labels))


def describe(config: ProbeConfig) -> dict[str, Any]:
    """Returns what a report must say about the features: how many, and where they are from."""
    count, told = joined.joined_count(config.measured), {}
    note = (
        f"A linear head on {count} fixed features; filters and scales come from drawn images "
        f"(seed {config.feature_seed}), and no patient's image shaped them."
    )
    if config.weights is not None:
        found = public.provenance(config.weights)
        told = {f"feature_{key}": value for key, value in found.items()}
        network = public.words(config.weights, f"the public network {config.network}")
        own = count - filters.feature_count(config.design)
        note += f" {own} of them are means and deviations of the stages of {network}."
    return {"features": count, "feature_seed": config.feature_seed, **told, "note": note}


def _init(
    config: ProbeConfig, head: Any, key: jax.Array, spec: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    shape = spec["image"].shape
    if len(shape) != 3:
        raise InputError(
            f"The linear probe cannot take images of the shape {shape}: it needs height, width "
            "and channels."
        )
    bank = joined.joined_bank(config.measured, shape, config.feature_seed)
    features = jnp.zeros((1, joined.joined_count(config.measured)))
    return {"head": head.init(key, features)["params"]}, bank


def _prepare(config: ProbeConfig, frozen: PyTree, raw: Example) -> Example:
    """Returns {"features": (d,)} and the labels of one raw example."""
    features = joined.joined_features(config.measured, frozen, raw["image"])
    return {"features": features} | {n: raw[n] for n in ("label", "label_mask") if n in raw}


def _loss(
    config: ProbeConfig,
    head: Any,
    params: PyTree,
    frozen: PyTree,
    example: Example,
    key: jax.Array,
) -> tuple[jax.Array, dict[str, Any]]:
    views = jax.tree.map(lambda a: a[None], example)
    logits = head.apply({"params": params["head"]}, views["features"])
    return label_loss(logits, views, config.target, config.class_weights), {}


def _score(
    config: ProbeConfig, head: Any, params: PyTree, frozen: PyTree, batch: Example
) -> dict[str, jax.Array]:
    logits = head.apply({"params": params["head"]}, batch["features"])
    return label_scores(logits, config.labels, config.target)
