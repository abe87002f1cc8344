"""The classifier: labels of an image, several at once, one of two, or one of many.

The loss of one patient may average over several augmented views of the image: the mean is
taken before the gradient is clipped, so multiplicity costs no privacy (De et al. 2022).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.errors import InputError
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.methods.encoder import (
    Encoder,
    EncoderConfig,
    describe_encoder,
    make_encoder,
    refuse_unless_known,
)
from jaxfair.methods.labels import TARGETS, check_labels, label_loss, label_scores
from jaxfair.methods.multiplicity import Augment, refuse_views_of_nothing, views_of
from jaxfair.methods.precision import in_precision, refuse_unknown_precision
from jaxfair.models import layers
from jaxfair.models.resnet import DEPTHS

__all__ = ["ClassifierConfig", "describe", "make_classifier"]


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(EncoderConfig):
    """What the classifier is; every field is a public choice. Those of its encoder are inherited.

    Attributes:
      labels: the tasks, one per column of an example's `label` (l,). One label is a binary
        classifier.
      target: "multi-label": each label is asked by itself; "multi-class": exactly one of at
        least two labels is true and `label` is one-hot.
      class_weights: public constants, one per label: the weight of positives
        ("multi-label") or of the class; () means all 1. Never computed from private labels.
      multiplicity: augmented views of one image whose losses are averaged.
      last_layer: train the head alone.
      precision: of the trained convolutions of a residual network, "float32" or "bfloat16"
        (methods/precision.py).

    Raises InputError for a value outside these.
    """

    labels: tuple[str, ...]
    target: str = "multi-label"
    class_weights: tuple[float, ...] = ()
    multiplicity: int = 1
    last_layer: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("labels", "class_weights"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        refuse_unless_known(self, target=TARGETS)
        super().__post_init__()
        check_labels(self.labels, self.target, self.class_weights)
        if self.multiplicity < 1:
            raise InputError(f"multiplicity = {self.multiplicity} must be at least 1.")
        self._check_precision()

    def _check_precision(self) -> None:
        refuse_unknown_precision(self.precision)
        trained = self.backbone in DEPTHS and not self.last_layer
        if self.precision != "float32" and not trained:
            raise InputError(
                f"precision = {self.precision!r} is of trained residual networks "
                f"({', '.join(DEPTHS)}), not of the backbone {self.backbone!r}"
                f"{' with last_layer' * self.last_layer}: leave it 'float32'."
            )


class LinearHead(nn.Module):
    """Embeddings (b, width) -> logits (b, l), the parameters under "head"."""

    labels: int
    width: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        return layers.dense(self.labels, self.width, name="head")(features)


def make_classifier(config: ClassifierConfig, augment: Augment | None = None) -> Method:
    """Returns the classifier as a Method with one task per label.

    Args:
      config: the public choices.
      augment: `(raw example, key) -> raw example`, drawn anew for every view; it may change
        `image`, `label` and `label_mask`. None trains on the image as it is.

    A raw example has `image` (*spatial, c), `label` (l,) float and `label_mask` (l,) bool,
    False or a NaN label where the label was not asked. A label that was not asked has no
    loss; each label that was asked weighs 1 / l. Scores are probabilities. Where only the
    head is trained and nothing is augmented, `prepare` computes the pooled features once.

    Raises InputError for a multiplicity above 1 without `augment`.
    """
    refuse_views_of_nothing(config.multiplicity, augment)
    encoder = make_encoder(config, trained=not config.last_layer)
    head = LinearHead(len(config.labels), encoder.width)
    embed = lambda params, frozen, batch: encoder.embed(params["backbone"], frozen, batch)

    def logits(params: PyTree, frozen: PyTree, batch: Example) -> Any:
        return head.apply({"params": {"head": params["head"]}}, embed(params, frozen, batch))

    method = Method(
        name="classifier",
        tasks=config.labels,
        init=functools.partial(_init, encoder, head),
        loss=functools.partial(_loss, config, logits, augment),
        score=lambda *given: label_scores(logits(*given), config.labels, config.target),
        prepare=encoder.prepare if augment is None else None,
        embed=lambda *given: {"features": embed(*given)},
    )
    return in_precision(method, config.precision)


def describe(config: ClassifierConfig) -> dict[str, Any]:
    """Returns what a report must say about the initial weights: random, or a file's checksum."""
    return describe_encoder(config)


def _init(
    encoder: Encoder, head: LinearHead, key: jax.Array, spec: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    backbone, frozen = encoder.init(key, spec)
    variables = head.init(key, jnp.zeros((1, encoder.width)))
    return {"backbone": backbone, **variables["params"]}, frozen


def _loss(
    config: ClassifierConfig,
    logits: Callable[..., Any],
    augment: Augment | None,
    params: PyTree,
    frozen: PyTree,
    example: Example,
    key: jax.Array,
) -> tuple[jax.Array, dict[str, Any]]:
    if augment is None:
        views = jax.tree.map(lambda a: a[None], example)
    else:
        views = views_of(augment, example, config.multiplicity, key)
    found = logits(params, frozen, views)
    return label_loss(found, views, config.target, config.class_weights), {}
