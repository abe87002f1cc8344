"""What turns an image into an embedding: a backbone that is trained, or fixed public features.

Methods that read an image share it: their configs inherit `EncoderConfig`, and `make_encoder` gives
them pure functions. Heads are the Method's own.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Example, PyTree
from jaxfair.methods.reading import MAPS, Reading, blocks_before
from jaxfair.models import filters, freezing, heads, lite, norms, pretrained, public, slices
from jaxfair.models.filters import SMALLEST, Design
from jaxfair.models.resnet import ACTIVATIONS, DEPTHS

__all__ = [
    "BACKBONES",
    "FEATURES",
    "SMALLEST",
    "Encoder",
    "EncoderConfig",
    "describe_encoder",
    "make_encoder",
    "refuse_unless_known",
]

FEATURES = "features"
BACKBONES = (*heads.BACKBONES, FEATURES)
LARGEST = 4096
"""The largest `side`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What reads the image; every field is a public choice.

    Attributes:
      backbone: one of BACKBONES; "slices" takes volumes, and "features" are fixed filters that no
        patient shaped, computed once (models.filters): then there is nothing here to train.
      ndim: 2 for images (h, w, c), 3 for volumes (d, h, w, c).
      channels: what the backbone reads; a grey image counts as repeated to this many.
      norm: "group"; "unscaled", the same without a learned scale; or "frozen", BatchNorm with the
        stored statistics of `weights`.
      standardise: of residual networks: each filter has mean 0 and variance 1 / fan-in, whatever
        its parameters (weight standardisation, as in De et al. 2022).
      activation: "relu" or "mish" (residual networks).
      slice_network: of "slices": the 2D network that reads each slice (`slices.READERS`).
      freeze: name prefixes of backbone modules that are not trained, as ("conv1", "layer1"); of
        "slices" as ("backbone",), or ("backbone/blocks_0",) for a part of the 2D network.
      side: of networks that read images (h, w, c): the side to which they are brought as they are
        read, by linear interpolation; 0 as they are. Networks of photographs find little in images
        of 48 pixels.
      weights: a state dict of the same backbone (.safetensors, .pth; torchvision's names), a
        public name as "lite0" (docs/weights.md), or None.
      size: of "features": side to which images are resized, a multiple of 4, at least SMALLEST.
      patterns: of "features": 5 x 5 filters at a half, and as many at a quarter, of this size.
      colours: of "features": thresholds on random mixtures of the channels.
      symmetric: of "features": True where turning or flipping an image changes no label (skin),
        False where an image has a top and a left (radiographs).
      feature_seed: of "features": seed of the filters and of the drawn images that scale them.

    Raises InputError for a value outside these.
    """

    backbone: str = "resnet9"
    ndim: int = 2
    channels: int = 3
    norm: str = "group"
    standardise: bool = False
    activation: str = "relu"
    slice_network: str = "resnet18"
    freeze: tuple[str, ...] = ()
    side: int = 0
    weights: str | None = None
    size: int = 48
    patterns: int = 48
    colours: int = 64
    symmetric: bool = True
    feature_seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "freeze", tuple(self.freeze))
        choices = {"backbone": BACKBONES, "ndim": (2, 3), "norm": norms.KINDS}
        choices |= {"activation": tuple(ACTIVATIONS), "slice_network": slices.READERS}
        refuse_unless_known(self, **choices)
        if self.norm == "frozen" and self.weights is None:
            raise InputError(
                "norm = 'frozen' needs stored statistics; give weights=FILE, or use norm 'group'."
            )
        if self.standardise and self.backbone not in DEPTHS:
            raise InputError(
                f"standardise = True is of residual networks, and the backbone is "
                f"{self.backbone!r}: use one of {', '.join(DEPTHS)}, or leave it False."
            )
        self._check_side()
        self._check_lite()
        if self.backbone == "slices" and (self.ndim, self.channels) != (3, 1):
            raise InputError("The backbone 'slices' takes grey volumes: use ndim 3, channels 1.")
        if self.backbone != FEATURES:
            return
        _ = self.design  # which refuses a size or a count
        if self.ndim != 2 or self.weights is not None or self.freeze:
            raise InputError(
                "The backbone 'features' reads images by fixed filters: use ndim 2, and leave "
                "weights and freeze out."
            )

    def _check_side(self) -> None:
        has_none = self.ndim != 2 or self.backbone == FEATURES
        if not 0 <= self.side <= LARGEST or (self.side and has_none):
            raise InputError(
                f"side = {self.side} is to what images are brought for a network with ndim 2: use "
                f"at most {LARGEST} pixels there, and 0 elsewhere."
            )

    def _check_lite(self) -> None:
        """Refuses weights of a Lite in another network, and a Lite that would lose their norms."""
        if self.weights in public.PUBLIC and (self.weights, "frozen") != (self.reader, self.norm):
            field = "slice_network" if self.backbone == "slices" else "backbone"
            raise InputError(
                f"weights = {self.weights!r} are of the {field} {self.weights!r} with its stored "
                f"statistics: use {field} {self.weights!r} and norm 'frozen', not "
                f"{self.reader!r} and {self.norm!r}."
            )
        if self.backbone in lite.VARIANTS and self.ndim != 2:
            raise InputError(f"The backbone {self.backbone!r} takes images: use ndim 2.")

    @property
    def reader(self) -> str:
        """The network that `weights` are of: the backbone, or what reads each of its slices."""
        return self.slice_network if self.backbone == "slices" else self.backbone

    @property
    def design(self) -> Design:
        """What the backbone "features" measures of an image."""
        return filters.make_design(self.size, self.patterns, self.colours, symmetric=self.symmetric)


class Encoder(NamedTuple):
    """Attributes:
    width: of an embedding.
    init: `(key, spec) -> (params, frozen)`; params are {} where nothing is trained.
    embed: `(params, frozen, batch) -> (b, width) float32`, of `features` where the batch holds
      them prepared, else of `image`.
    prepare: `(frozen, raw example) -> {"features": (width,), and its labels}`; None unless
      nothing is trained.
    """

    width: int
    init: Callable[..., tuple[PyTree, PyTree]]
    embed: Callable[..., jax.Array]
    prepare: Callable[..., Example] | None


def make_encoder(config: EncoderConfig, *, trained: bool = True, maps: bool = False) -> Encoder:
    """Returns the encoder of a config.

    Args:
      trained: False freezes all of the backbone; then its pooled features may be prepared once.
      maps: True for an `embed` that gives the backbone's maps (b, *spatial, width) before they are
        pooled; "slices" and "features" have none.

    A raw example has `image` (*spatial, c). The `init` raises InputError for images that do not
    fit, and where `freeze` names no module.
    """
    if config.backbone == FEATURES:
        design = config.design
        return Encoder(
            filters.feature_count(design),
            functools.partial(_bank, config),
            functools.partial(_filtered, design),
            functools.partial(_prepare, FEATURES, functools.partial(_filtered, design)),
        )
    network = heads.make_network(
        config.backbone,
        0,  # its pooled features alone are asked for
        norm=config.norm,
        activation=config.activation,
        channels=config.channels,
        pooled=not maps,
        standardise=config.standardise,
        reader=config.slice_network,
    )
    blocks = blocks_before(config.backbone, config.freeze) if trained else 0
    reading = Reading(network, config.side, blocks)
    embed, prepare = functools.partial(_pooled, reading), None
    if not trained:
        prepare = functools.partial(_prepare, FEATURES, embed)
    elif blocks:
        prepare = functools.partial(_prepare, MAPS, functools.partial(_maps, reading))
    init = functools.partial(_init, config, network, trained)
    return Encoder(network.backbone.width, init, embed, prepare)


def describe_encoder(config: EncoderConfig) -> dict[str, Any]:
    """Returns what a report must say about the first weights: random, or a file's checksum."""
    if config.backbone == FEATURES:
        count = filters.feature_count(config.design)
        note = (
            f"It reads {count} fixed features; filters and scales come from drawn images (seed "
            f"{config.feature_seed}), and no patient's image shaped them."
        )
        return {"features": count, "feature_seed": config.feature_seed, "note": note}
    if config.weights is None:
        return {"initial_weights": "random", "note": "Trained from random initial weights."}
    told = {f"initial_{key}": value for key, value in public.provenance(config.weights).items()}
    if config.weights in public.PUBLIC:
        note = f"Initialised from {public.words(config.weights, config.reader)}."
    else:
        checksum = told["initial_sha256"]
        note = f"Initialised from a {config.reader} whose file has the sha256 {checksum}."
    return {"initial_weights": "pretrained", **told, "note": note}


def refuse_unless_known(config: Any, **choices: tuple[Any, ...]) -> None:
    """Raises InputError for the first field of `config` whose value is none of its choices."""
    for name, known in choices.items():
        value = getattr(config, name)
        if value not in known:
            raise InputError(
                f"{name} = {value!r} is none of {', '.join(map(repr, known))}."
                + nearest(str(value), map(str, known))
            )


def _bank(config: EncoderConfig, key: jax.Array, spec: dict[str, Any]) -> tuple[PyTree, PyTree]:
    shape = spec["image"].shape
    if len(shape) != 3:
        raise InputError(
            f"The backbone 'features' cannot take images of the shape {shape}: it needs height, "
            "width and channels."
        )
    return {}, filters.filter_bank(config.design, shape[-1], config.feature_seed)


def _filtered(design: Design, params: PyTree, frozen: PyTree, batch: Example) -> jax.Array:
    if FEATURES in batch:
        return batch[FEATURES]
    measure = functools.partial(filters.filter_features, design, frozen)
    return jax.vmap(measure)(batch["image"])


def _init(
    config: EncoderConfig,
    network: heads.Network,
    trained: bool,
    key: jax.Array,
    spec: dict[str, Any],
) -> tuple[PyTree, PyTree]:
    shape = spec["image"].shape
    if len(shape) != config.ndim + 1 or shape[-1] not in (1, config.channels):
        raise InputError(
            f"A network with ndim {config.ndim} cannot take images of the shape {shape}: it "
            f"needs {config.ndim} spatial axes, then 1 or {config.channels} channels."
        )
    image = jnp.zeros((1, *shape[:-1], config.channels))
    variables = _compiled_init(network)(key, image)
    if config.weights is not None:
        variables = pretrained.load_backbone(
            variables, config.weights, norm=config.norm, backbone=config.reader
        )
    backbone = variables["params"]["backbone"]
    params, kept = freezing.split(backbone, config.freeze, trained=trained)
    return params, {"backbone": kept, "stats": variables.get("stats", {})}


@functools.lru_cache(maxsize=8)
def _compiled_init(network: heads.Network) -> Callable[..., Any]:
    """Compiled once for a network, which is initialised when it trains and when it is scored."""
    return jax.jit(functools.partial(network.init, method="features"))


def _pooled(reading: Reading, params: PyTree, frozen: PyTree, batch: Example) -> jax.Array:
    if FEATURES in batch:
        return batch[FEATURES]
    return reading.features(_variables(params, frozen), batch)


def _maps(reading: Reading, params: PyTree, frozen: PyTree, batch: Example) -> jax.Array:
    return reading.maps(_variables(params, frozen), batch)


def _variables(params: PyTree, frozen: PyTree) -> PyTree:
    whole = freezing.together(frozen["backbone"], params)
    return {"params": {"backbone": whole}, "stats": frozen["stats"]}


def _prepare(name: str, read: Callable[..., jax.Array], frozen: PyTree, raw: Example) -> Example:
    """Returns what `read` makes of one raw example without parameters, and its labels."""
    found = read({}, frozen, {"image": raw["image"][None]})[0]
    return {name: found} | {n: raw[n] for n in ("label", "label_mask") if n in raw}
