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

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Example, Method, PyTree
from jaxfair.methods.labels import TARGETS, check_labels, label_loss, label_scores
from jaxfair.models import heads, pretrained
from jaxfair.models.resnet import ACTIVATIONS
from jaxfair.models.torch_files import read_state_dict

__all__ = ["ClassifierConfig", "describe", "make_classifier"]

Augment = Callable[[Example, jax.Array], Example]


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """What the classifier is; every field is a public choice.

    Attributes:
      labels: the tasks, one per column of an example's `label` (l,). One label is a binary
        classifier.
      target: "multi-label": each label is asked by itself; "multi-class": exactly one of at
        least two labels is true and `label` is one-hot.
      backbone: one of models.heads.BACKBONES; "slices" takes volumes.
      ndim: 2 for images (h, w, c), 3 for volumes (d, h, w, c).
      channels: what the backbone reads; a grey image counts as repeated to this many.
      norm: "group", or "frozen": BatchNorm with the stored statistics of `weights`.
      activation: "relu" or "mish" (residual networks).
      class_weights: public constants, one per label: the weight of positives
        ("multi-label") or of the class; () means all 1. Never computed from private labels.
      multiplicity: augmented views of one image whose losses are averaged.
      freeze: name prefixes of backbone modules that are not trained, as ("conv1", "layer1").
      last_layer: train the head alone.
      weights: a torchvision state dict of the same backbone (.safetensors, .pth), or None.

    Raises InputError for a value outside these.
    """

    labels: tuple[str, ...]
    target: str = "multi-label"
    backbone: str = "resnet9"
    ndim: int = 2
    channels: int = 3
    norm: str = "group"
    activation: str = "relu"
    class_weights: tuple[float, ...] = ()
    multiplicity: int = 1
    freeze: tuple[str, ...] = ()
    last_layer: bool = False
    weights: str | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "class_weights", "freeze"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_choices(self)
        check_labels(self.labels, self.target, self.class_weights)
        if self.multiplicity < 1:
            raise InputError(f"multiplicity = {self.multiplicity} must be at least 1.")
        if self.norm == "frozen" and self.weights is None:
            raise InputError(
                "norm = 'frozen' needs stored statistics; give weights=FILE, or use norm 'group'."
            )
        if (self.backbone == "slices") and (self.ndim, self.channels) != (3, 1):
            raise InputError("The backbone 'slices' takes grey volumes: use ndim 3, channels 1.")


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
    if config.multiplicity > 1 and augment is None:
        raise InputError(
            f"multiplicity = {config.multiplicity} averages over augmented views, but there is "
            "no augmentation; configure one or use multiplicity 1."
        )
    network = heads.make_network(
        config.backbone,
        len(config.labels),
        norm=config.norm,
        activation=config.activation,
        channels=config.channels,
    )
    cached = config.last_layer and augment is None
    return Method(
        name="classifier",
        tasks=config.labels,
        init=functools.partial(_init, config, network),
        loss=functools.partial(_loss, config, network, augment),
        score=functools.partial(_score, config, network),
        prepare=functools.partial(_prepare, config, network) if cached else None,
    )


def describe(config: ClassifierConfig) -> dict[str, Any]:
    """Returns what a report must say about the initial weights: random, or a file's checksum."""
    if config.weights is None:
        return {"initial_weights": "random", "note": "Trained from random initial weights."}
    _, checksum = read_state_dict(config.weights)
    note = f"Initialised from a {config.backbone} whose file has the sha256 {checksum}."
    return {"initial_weights": "pretrained", "initial_sha256": checksum, "note": note}


def _check_choices(config: ClassifierConfig) -> None:
    choices = {
        "target": TARGETS,
        "backbone": heads.BACKBONES,
        "ndim": (2, 3),
        "norm": ("group", "frozen"),
        "activation": tuple(ACTIVATIONS),
    }
    for name, known in choices.items():
        value = getattr(config, name)
        if value not in known:
            raise InputError(
                f"{name} = {value!r} is none of {', '.join(map(repr, known))}."
                + nearest(str(value), map(str, known))
            )


def _init(
    config: ClassifierConfig, network: heads.Network, key: jax.Array, spec: dict[str, Any]
) -> tuple[PyTree, PyTree]:
    shape = spec["image"].shape
    if len(shape) != config.ndim + 1 or shape[-1] not in (1, config.channels):
        raise InputError(
            f"The classifier with ndim {config.ndim} cannot take images of the shape {shape}: it "
            f"needs {config.ndim} spatial axes, then 1 or {config.channels} channels."
        )
    image = jnp.zeros((1, *shape[:-1], config.channels))
    variables = _compiled_init(network)(key, image)
    if config.weights is not None:
        variables = pretrained.load_backbone(variables, config.weights, norm=config.norm)
    params, stats = variables["params"], variables.get("stats", {})
    trained, kept = _split(config, params["backbone"])
    return (
        {"backbone": trained, "head": params["head"]},
        {"backbone": kept, "stats": stats},
    )


@functools.lru_cache(maxsize=8)
def _compiled_init(network: heads.Network) -> Callable[..., Any]:
    """Compiled once for a network, which is initialised when it trains and when it is scored."""
    return jax.jit(network.init)


def _split(config: ClassifierConfig, backbone: PyTree) -> tuple[PyTree, PyTree]:
    """Returns (trained, frozen) modules of the backbone."""
    for prefix in config.freeze:
        if not any(name.startswith(prefix) for name in backbone):
            raise InputError(
                f"freeze = {prefix!r} is the beginning of no module of {config.backbone}; there "
                f"are {', '.join(backbone)}."
            )
    frozen = {n for n in backbone if config.last_layer or n.startswith(config.freeze or ("\0",))}
    trained = {name: value for name, value in backbone.items() if name not in frozen}
    return trained, {name: value for name, value in backbone.items() if name in frozen}


def _variables(params: PyTree, frozen: PyTree) -> PyTree:
    backbone = {**frozen["backbone"], **params["backbone"]}
    return {
        "params": {"backbone": backbone, "head": params["head"]},
        "stats": frozen["stats"],
    }


def _prepare(
    config: ClassifierConfig, network: heads.Network, frozen: PyTree, raw: Example
) -> Example:
    """Returns {"features": (width,)} and the labels of one raw example."""
    variables = {"params": {"backbone": frozen["backbone"]}, "stats": frozen["stats"]}
    image = raw["image"][None].astype(jnp.float32)
    features: Any = network.apply(variables, image, method="features")
    kept: Example = {name: raw[name] for name in ("label", "label_mask") if name in raw}
    return {"features": features[0], **kept}


def _logits(
    config: ClassifierConfig,
    network: heads.Network,
    params: PyTree,
    frozen: PyTree,
    batch: Example,
) -> Any:
    """Returns (b, l) logits, from pooled features where they were prepared."""
    variables = _variables(params, frozen)
    if "features" in batch:
        return network.apply(variables, batch["features"], method="classify")
    return network.apply(variables, batch["image"].astype(jnp.float32))


def _loss(
    config: ClassifierConfig,
    network: heads.Network,
    augment: Augment | None,
    params: PyTree,
    frozen: PyTree,
    example: Example,
    key: jax.Array,
) -> tuple[jax.Array, dict[str, Any]]:
    if augment is None:
        views = jax.tree.map(lambda a: a[None], example)
    else:
        keys = jax.random.split(key, config.multiplicity)
        views = jax.vmap(augment, in_axes=(None, 0))(example, keys)
    logits = _logits(config, network, params, frozen, views)
    return label_loss(logits, views, config.target, config.class_weights), {}


def _score(
    config: ClassifierConfig,
    network: heads.Network,
    params: PyTree,
    frozen: PyTree,
    batch: Example,
) -> dict[str, jax.Array]:
    logits = _logits(config, network, params, frozen, batch)
    return label_scores(logits, config.labels, config.target)
