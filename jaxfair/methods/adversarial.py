"""Fair embeddings: one encoder, a disease and a sensitive head, and an adversary that is unlearned.

The disease head's embedding is to say nothing of sensitive attributes beyond what the label says.
An adversary learns to read the attributes from it, and what lies before is led the other way by a
reversed gradient (`models/reversal.py`), whose strength rises with the steps by the published
schedule; the sensitive head keeps the attributes apart in an embedding of its own.

Guarantee: encoder, heads and adversary have ONE loss of one example, so one clip bounds all that a
patient moves, one draw is spent, and the plan prices the run as that of any classifier. The
strength is a function of the step alone, and the pull to the origin one of an example's embedding.
`orthogonality` "example" is a function of one example's two embeddings and of no other's: it makes
them orthogonal as vectors, about the fixed origin, which is weaker than "batch", where the
covariance over patients vanishes; that couples examples and is refused under privacy.

Source: the thesis "Towards Fair and Accurate Medical Image Embeddings" (TUM 2024), with what it
leaves open from Ganin & Lempitsky 2015 (reversal, schedule), Madras et al. 2018 (label given to the
adversary, its own steps) and FCRO, Deng et al. 2023 (covariance). `adversary_on` "features" is
LNTL's place (Kim et al. 2019), "logit" is AL's (Zhang et al. 2018).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods.attributes import attribute_loss, check_attributes
from jaxfair.methods.base import Example, Method, PyTree, no_loss
from jaxfair.methods.embedder import prepared
from jaxfair.methods.encoder import (
    FEATURES,
    Encoder,
    EncoderConfig,
    describe_encoder,
    make_encoder,
    refuse_unless_known,
)
from jaxfair.methods.labels import TARGETS, check_labels, label_inputs, label_loss, label_scores
from jaxfair.methods.orthogonality import cosine_loss, covariance_loss
from jaxfair.models import layers
from jaxfair.models.heads import MLP
from jaxfair.models.reversal import reverse, rising

__all__ = ["AdversarialConfig", "describe", "make_adversarial"]

PLACES = ("embedding", "features", "logit")
FORMS = ("none", "example", "batch")


@dataclasses.dataclass(frozen=True)
class AdversarialConfig(EncoderConfig):
    """Heads and adversary, all public choices. With all weights 0 it is a plain classifier.

    Attributes:
      labels: the tasks, one per column of an example's `label` (l,).
      attributes: sensitive attribute -> how many values it may have, as an example's `group` has
        them.
      target: "multi-label": each label is asked by itself; "multi-class": exactly one is true.
      class_weights: public constants, one per label; () means all 1.
      hidden: width of the hidden layer of both heads and of the adversary.
      embedding: width of the disease embedding and of the sensitive embedding.
      sensitive_weight: of the sensitive head's loss; 0, without `orthogonality`, for no such head.
      adversary_weight: of the adversary's loss; 0 for no adversary.
      adversary_on: what it reads, one of PLACES: the disease embedding, the encoder's features
        (LNTL; not of the backbone "features", which nobody pushes) or the logits (AL).
      conditional: True tells the adversary the label, for equalized odds; False does not, for
        demographic parity. Of `orthogonality` "batch" it asks for each label value by itself.
      reversal: the strength of the reversed gradient at the end of the run, towards which it
        rises; 0 lets the adversary learn and changes nothing else.
      embedding_weight: of the mean square of the disease embedding: a pull to the origin, so that
        a reversed gradient does not lead it, with all that it tells, away from the adversary.
      orthogonality: of the two embeddings: "none"; "example", of each example by itself (private);
        "batch", their covariance over a microbatch (stronger; plain training only).
      orthogonality_weight: of that.

    Raises InputError for a value outside these.
    """

    labels: tuple[str, ...]
    attributes: Mapping[str, int]
    target: str = "multi-label"
    class_weights: tuple[float, ...] = ()
    hidden: int = 256
    embedding: int = 128
    sensitive_weight: float = 1.0
    adversary_weight: float = 1.0
    adversary_on: str = "embedding"
    conditional: bool = True
    reversal: float = 1.0
    embedding_weight: float = 0.0
    orthogonality: str = "none"
    orthogonality_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("labels", "class_weights"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        refuse_unless_known(self, target=TARGETS, adversary_on=PLACES, orthogonality=FORMS)
        super().__post_init__()
        check_labels(self.labels, self.target, self.class_weights)
        object.__setattr__(self, "attributes", check_attributes(self.attributes, "adversarial"))
        for name in (*(n for n in vars(self) if n.endswith("_weight")), "reversal"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} = {getattr(self, name)} must be 0 or more, and finite.")
        least = 2 if self.orthogonality == "example" else 1
        if self.hidden < 1 or self.embedding < least:
            why = "" if least == 1 else " (one number has no direction to be orthogonal in)"
            told = f"hidden = {self.hidden} must be at least 1, embedding = {self.embedding}"
            raise InputError(f"{told} at least {least}{why}.")
        read = (self.backbone, self.adversary_on)
        if read == (FEATURES, "features") and self.adversary_weight and self.reversal:
            raise InputError(
                "adversary_on = 'features' turns an adversary on what the backbone 'features' keeps"
                " as it is, so it would push nobody: use 'embedding' or 'logit', or reversal 0."
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each attribute may have."""
        return tuple(self.attributes.values())

    @property
    def unused(self) -> tuple[str, ...]:
        """Heads that no loss reads, and that are not made."""
        told = self.sensitive_weight or self.orthogonality != "none"
        without = () if told else ("sensitive", "attributes")
        return without if self.adversary_weight else (*without, "adversary")

    @property
    def coupled(self) -> bool:
        """Whether the examples of a batch are coupled."""
        return self.orthogonality == "batch" and self.orthogonality_weight > 0


class _Nets(NamedTuple):
    """The encoder; name -> network, -> how many numbers it reads; and heads that there are not."""

    encoder: Encoder
    heads: dict[str, Any]
    widths: dict[str, int]
    unused: tuple[str, ...]

    def __call__(self, params: PyTree, name: str, x: jax.Array) -> jax.Array:
        found: Any = self.heads[name].apply({"params": params[name]}, x)
        return found


def make_adversarial(
    config: AdversarialConfig, augment: Callable[[Example, jax.Array], Example] | None = None
) -> Method:
    """Returns the adversarial method, with one task per label.

    Args:
      config: the public choices.
      augment: `(raw example, key) -> raw example`, or None to train on the image as it is.

    A raw example is a classifier's and has `group` (k,) int32, whose unknown attributes (-1) have
    no loss. Scores are probabilities; `embed` gives "disease", which they rest on, "sensitive"
    where there is such a head, and "features". At test time nothing but the image is read.
    """
    nets = _networks(config)
    loss = functools.partial(_loss, config, nets, augment)
    coupled = functools.partial(_batch_loss, config, nets, augment)
    return Method(
        name="adversarial",
        tasks=config.labels,
        init=functools.partial(_init, nets),
        loss=no_loss if config.coupled else loss,
        score=functools.partial(_score, config, nets),
        prepare=prepared(nets.encoder) if augment is None else None,
        batch_loss=coupled if config.coupled else None,
        embed=functools.partial(_embed, nets),
        schedule=functools.partial(_schedule, config),
    )


def describe(config: AdversarialConfig) -> dict[str, Any]:
    """Returns what a report must say about the first weights, and what was to be unlearned."""
    told, names = describe_encoder(config), ", ".join(config.attributes)
    note = f"{told['note']} An adversary on the {config.adversary_on} was to lose {names}."
    return told | ({"note": note} if config.adversary_weight and config.reversal else {})


def _networks(config: AdversarialConfig) -> _Nets:
    encoder, values, labels = make_encoder(config), sum(config.sizes), len(config.labels)
    watched = {"embedding": config.embedding, "features": encoder.width, "logit": labels}
    widths = {
        "disease": encoder.width,
        "head": config.embedding,
        "sensitive": encoder.width,
        "attributes": config.embedding,
        "adversary": watched[config.adversary_on] + labels * config.conditional,
    }
    heads = {
        "disease": MLP(config.hidden, config.embedding, widths["disease"]),
        "head": layers.dense(labels, widths["head"]),
        "sensitive": MLP(config.hidden, config.embedding, widths["sensitive"]),
        "attributes": layers.dense(values, widths["attributes"]),
        "adversary": MLP(config.hidden, values, widths["adversary"]),
    }
    return _Nets(encoder, heads, widths, config.unused)


def _init(nets: _Nets, key: jax.Array, spec: dict[str, Any]) -> tuple[PyTree, PyTree]:
    if "group" not in spec:
        raise InputError(
            "The method 'adversarial' needs the groups of an example: name its sensitive "
            "attributes in data.groups."
        )
    params, frozen = nets.encoder.init(key, spec)
    made = {"encoder": params}
    for number, (name, net) in enumerate(nets.heads.items(), start=1):
        if name in nets.unused:
            continue
        given = jnp.zeros((1, nets.widths[name]))
        made[name] = net.init(jax.random.fold_in(key, number), given)["params"]
    return made, {"encoder": frozen, "strength": jnp.zeros(())}


def _schedule(config: AdversarialConfig, frozen: PyTree, progress: jax.Array) -> PyTree:
    return {**frozen, "strength": config.reversal * rising(progress)}


def _embed(nets: _Nets, params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
    features = nets.encoder.embed(params["encoder"], frozen["encoder"], batch)
    names = [name for name in ("disease", "sensitive") if name not in nets.unused]
    return {name: nets(params, name, features) for name in names} | {"features": features}


def _score(
    config: AdversarialConfig, nets: _Nets, params: PyTree, frozen: PyTree, batch: Example
) -> dict[str, jax.Array]:
    logits = nets(params, "head", _embed(nets, params, frozen, batch)["disease"])
    return label_scores(logits, config.labels, config.target)


def _losses(
    config: AdversarialConfig, nets: _Nets, params: PyTree, frozen: PyTree, batch: Example
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the (b,) losses of examples that do not see each other, and their embeddings."""
    seen, each = _embed(nets, params, frozen, batch), functools.partial(jax.vmap, in_axes=0)
    logits = nets(params, "head", seen["disease"])
    own = lambda logits, row: label_loss(logits[None], row, config.target, config.class_weights)
    labels = {n: batch[n][:, None] for n in ("label", "label_mask") if n in batch}
    loss = each(own)(logits, labels)
    told_apart = each(lambda logits, group: attribute_loss(logits, group, config.sizes))
    if config.sensitive_weight:
        guessed = nets(params, "attributes", seen["sensitive"])
        loss += config.sensitive_weight * told_apart(guessed, batch["group"])
    if config.adversary_weight:
        watched = {"embedding": seen["disease"], "features": seen["features"], "logit": logits}
        given = reverse(watched[config.adversary_on], frozen["strength"])
        if config.conditional:
            given = jnp.concatenate([given, label_inputs(batch)], axis=-1)
        guessed = nets(params, "adversary", given)
        loss += config.adversary_weight * told_apart(guessed, batch["group"])
    if config.embedding_weight:
        loss += config.embedding_weight * jnp.mean(jnp.square(seen["disease"]), axis=-1)
    if config.orthogonality == "example" and config.orthogonality_weight:
        loss += config.orthogonality_weight * cosine_loss(seen["disease"], seen["sensitive"])
    return loss, seen


def _loss(
    config: AdversarialConfig,
    nets: _Nets,
    augment: Callable[..., Example] | None,
    params: PyTree,
    frozen: PyTree,
    example: Example,
    key: jax.Array,
) -> tuple[jax.Array, dict[str, Any]]:
    if augment is not None:
        example = augment(example, key)
    row = jax.tree.map(lambda a: a[None], example)
    return _losses(config, nets, params, frozen, row)[0][0], {}


def _batch_loss(
    config: AdversarialConfig,
    nets: _Nets,
    augment: Callable[..., Example] | None,
    params: PyTree,
    frozen: PyTree,
    batch: Example,
    mask: jax.Array,
    keys: jax.Array,
) -> jax.Array:
    if augment is not None:
        batch = jax.vmap(augment)(batch, keys)
    losses, seen = _losses(config, nets, params, frozen, batch)
    mean = jnp.sum(jnp.where(mask, losses, 0)) / jnp.maximum(jnp.sum(mask), 1)
    told = label_inputs(batch) if config.conditional else jnp.ones((len(mask), 1))
    values = [told > 0, told < 0] if config.target == "multi-label" else [told > 0]
    cells = jnp.concatenate(values, axis=-1) & mask[:, None]
    covariance = covariance_loss(seen["disease"], seen["sensitive"], cells)
    return mean + config.orthogonality_weight * covariance
