"""FCRO: an embedding of an image that stays out of the directions in which attributes show.

Three stages with one ledger. An attribute encoder phi_A learns to tell the sensitive attributes.
Then nothing is learned, but the second moment of its embeddings within each class is added up, by
gradients (`moments`, protocol P10). Then phi_T learns the labels from fresh weights, and its
embedding is kept out of the leading directions of the moment (column loss), and in plain training
out of step with phi_A's within a batch (row loss).

Source: Deng et al. 2023 (arXiv 2301.01481) and its code: 128 numbers of unit length, weights 80
and 500, three directions in the paper and an energy of .99 in the code.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxfair.errors import InputError
from jaxfair.methods import moments
from jaxfair.methods.attributes import attribute_loss, check_attributes, input_count
from jaxfair.methods.base import Example, Method, PyTree, Stage
from jaxfair.methods.embedder import (
    Augment,
    Embedder,
    augmented,
    fresh_key,
    make_embedder,
    no_init,
    no_score,
    one_row,
    paired,
    prepared,
)
from jaxfair.methods.encoder import EncoderConfig, describe_encoder, refuse_unless_known
from jaxfair.methods.labels import TARGETS, check_labels, label_loss, label_scores

__all__ = [
    "FcroConfig",
    "attribute_embedding",
    "attribute_stage",
    "column_part",
    "describe",
    "embedders",
    "make_fcro",
    "moment_stage",
    "noise_told",
    "target_stage",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FcroConfig(EncoderConfig):
    """What FCRO is; every field is a public choice.

    Attributes:
      labels: the tasks, one per column of an example's `label` (l,).
      attributes: name -> number of values, of each attribute in an example's `group` (k,).
      target: "multi-label": each label is asked by itself; "multi-class": exactly one of at
        least two labels is true and `label` is one-hot.
      class_weights: public constants, one per label, as of the classifier.
      embedding: numbers in an embedding.
      directions: of the sensitive subspace of a class; 0 for as many as hold `energy`.
      energy: share of the second moment, in (0, 1), that those directions hold at most.
      column_weight: of the loss by which an embedding lies in the subspace of its class.
      row_weight: of the loss by which the two embeddings go together in a batch. It reads other
        examples, so it is for plain training, and 0 in a private one.
      moment_share: share of the run's steps that add up the second moment.
      target_share: share that train the labels; the attribute encoder takes what is left.

    Raises InputError for a value outside these.
    """

    labels: tuple[str, ...]
    attributes: Mapping[str, int]
    target: str = "multi-label"
    class_weights: tuple[float, ...] = ()
    embedding: int = 128
    directions: int = 3
    energy: float = 0.99
    column_weight: float = 80.0
    row_weight: float = 500.0
    moment_share: float = 0.05
    target_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("labels", "class_weights"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "attributes", check_attributes(self.attributes, self._method))
        refuse_unless_known(self, target=TARGETS)
        check_labels(self.labels, self.target, self.class_weights)
        self._check(
            embedding=(self.embedding >= 2, "at least 2"),
            directions=(0 <= self.directions < self.embedding, "from 0 to below `embedding`"),
            energy=(0 < self.energy < 1, "in (0, 1)"),
            column_weight=(0 <= self.column_weight < 1e6, "in [0, 1e6)"),
            row_weight=(0 <= self.row_weight < 1e6, "in [0, 1e6)"),
            moment_share=(0 < self.moment_share < 1, "in (0, 1)"),
            target_share=(0 < self.target_share < 1, "in (0, 1)"),
        )
        self._check_shares("moment_share", "target_share")

    def _check_shares(self, *names: str) -> None:
        """Refuses shares of later stages that leave the attribute encoder nothing."""
        shares = {name: getattr(self, name) for name in names}
        if sum(shares.values()) >= 1:
            told = ", ".join(f"{name} = {share:g}" for name, share in shares.items())
            raise InputError(
                f"{told} add up to {sum(shares.values()):g}; it must be less than 1, for the "
                "attribute encoder trains in what is left: make one of them smaller."
            )

    @property
    def _method(self) -> str:
        return "fcro"

    def _check(self, **rules: tuple[bool, str]) -> None:
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InputError(f"{name} = {getattr(self, name)!r} must be {rule}.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each attribute has."""
        return tuple(self.attributes.values())

    @property
    def classes(self) -> int:
        """How many second moments there are."""
        return moments.class_count(len(self.labels), self.target)


def make_fcro(config: FcroConfig, augment: Augment | None = None) -> Method:
    """Returns FCRO as a Method of three stages, with one task per label at the end.

    Args:
      config: the public choices.
      augment: `(raw example, key) -> raw example`, drawn anew for every step of phi_A and phi_T;
        the second moment is that of images as they are.

    A raw example has `image`, `label` (l,), `label_mask` (l,) as the classifier has them, and
    `group` (k,) int32. An attribute that is not known has no loss; a label that was not asked
    has no loss and puts nobody into a class. The run's optimiser trains phi_A and phi_T, each
    anew from its first step.
    """
    told, asked = embedders(config)
    coupled = f", row_weight {config.row_weight:g}" if config.row_weight else ""
    last = target_stage(config, told, asked)
    last = last._replace(method=augmented(last.method, augment))
    return augmented(attribute_stage(config, told), augment)._replace(
        name=f"fcro{coupled}", stages=(moment_stage(config, told), last)
    )


def embedders(config: FcroConfig) -> tuple[Embedder, Embedder]:
    """Returns phi_A and phi_T; an attribute of two values has one output, others one a value."""
    told = make_embedder(config, config.embedding, input_count(config.sizes))
    return told, make_embedder(config, config.embedding, len(config.labels))


def attribute_stage(config: FcroConfig, told: Embedder) -> Method:
    """phi_A: the mean over the attributes of their cross-entropies."""

    def init(key: jax.Array, spec: dict[str, Any]) -> tuple[PyTree, PyTree]:
        _check_groups(config, spec)
        params, frozen = told.init(key, spec)
        return params, {"encoder": frozen, "key": jax.random.key_data(key)}

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        embedding = told.embed(params, frozen["encoder"], one_row(example))
        logits = paired(told.classify(params, embedding)[0], config.sizes)
        return attribute_loss(logits, example["group"], config.sizes), {}

    return Method(
        name="fcro: attribute encoder",
        tasks=config.labels,
        init=init,
        loss=loss,
        score=no_score,
        prepare=prepared(told),
        couples_examples=config.row_weight > 0,  # a later stage does: refused before anything
    )


def moment_stage(config: FcroConfig, told: Embedder) -> Stage:
    """The second moment of phi_A's embeddings in each class: added up, nothing is learned.

    Guarantee: that of `moments`: the gradient of one example has norm 1 before the clip, and goes
    through the draw, clip, noise and ledger of every other step.
    """
    shape = (config.classes, config.embedding, config.embedding)

    def begin(params: PyTree, frozen: PyTree, key: Any, spec: Any) -> tuple[PyTree, PyTree]:
        kept = {"params": params, "frozen": frozen["encoder"]}
        return {"moment": jnp.zeros(shape)}, frozen | {"attributes": kept}

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        embedding = attribute_embedding(told, frozen, one_row(example))[0]
        classes = moments.belongs(example, config.target)
        return moments.moment_loss(params["moment"], embedding, classes), {}

    method = Method(
        name="fcro: second moment",
        tasks=config.labels,
        init=no_init,
        loss=loss,
        score=no_score,
        prepare=prepared(told),
    )
    return Stage(method, begin, config.moment_share, optax.sgd(1.0))


def target_stage(config: FcroConfig, told: Embedder, asked: Embedder) -> Stage:
    """phi_T: label loss, column loss, and in plain training the row loss."""

    def begin(params: PyTree, frozen: PyTree, key: Any, spec: Any) -> tuple[PyTree, PyTree]:
        found = moments.subspaces(
            params["moment"], directions=config.directions, energy=config.energy
        )
        fresh, encoder = asked.init(fresh_key(frozen, key), spec)
        return fresh, frozen | {"encoder": encoder, "subspace": found}

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        views = one_row(example)
        z = asked.embed(params, frozen["encoder"], views)
        own = label_loss(asked.classify(params, z), views, config.target, config.class_weights)
        return own + config.column_weight * column_part(config, frozen, example, z[0]), {}

    def batch_loss(
        params: PyTree, frozen: PyTree, batch: Example, mask: jax.Array, keys: Any
    ) -> jax.Array:
        z = asked.embed(params, frozen["encoder"], batch)
        x = attribute_embedding(told, frozen, batch)
        classes = jnp.where(mask[:, None], moments.belongs(batch, config.target), 0)
        return config.row_weight * moments.row_loss(z, x, classes)

    def score(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
        z = asked.embed(params, frozen["encoder"], batch)
        return label_scores(asked.classify(params, z), config.labels, config.target)

    def embed(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
        z = asked.embed(params, frozen["encoder"], batch)
        return {"disease": z, "sensitive": attribute_embedding(told, frozen, batch)}

    method = Method(
        name=f"fcro: labels, row_weight {config.row_weight:g}",
        tasks=config.labels,
        init=no_init,
        loss=loss,
        score=score,
        prepare=prepared(asked),
        batch_loss=batch_loss if config.row_weight else None,
        embed=embed,
        learned=noise_told,
    )
    return Stage(method, begin, config.target_share)


def column_part(config: FcroConfig, frozen: PyTree, example: Example, z: jax.Array) -> jax.Array:
    """The column loss of one example's embedding (d,)."""
    classes = moments.belongs(example, config.target)
    asked = len(config.labels) if config.target == "multi-label" else 1
    return moments.column_loss(frozen["subspace"]["basis"], z, classes, asked)


def describe(config: FcroConfig) -> dict[str, Any]:
    """Returns what a report must say: where the first weights are from, and what they became."""
    told = describe_encoder(config)
    subspace = f"{config.directions} directions" if config.directions else "the directions"
    note = (
        f"{told['note']} The embedding is held out of {subspace} of each class in which "
        f"{', '.join(config.attributes)} show (FCRO; column weight {config.column_weight:g}, row "
        f"weight {config.row_weight:g}); {config.moment_share:.0%} of the steps went into finding "
        "these, and a network that tells the attributes was trained for it."
    )
    return told | {"note": note, "needs": []}


def noise_told(params: PyTree, frozen: PyTree) -> str:
    """Returns what of a private second moment stands above its noise; "" of a plain one."""
    return moments.noise_words(frozen["subspace"])


def attribute_embedding(told: Embedder, frozen: PyTree, batch: Example) -> jax.Array:
    """Returns phi_A's embedding (b, d), of a stage after its own."""
    kept = frozen["attributes"]
    return told.embed(kept["params"], kept["frozen"], batch)


def _check_groups(config: FcroConfig, spec: dict[str, Any]) -> None:
    count = spec["group"].shape[0] if "group" in spec else 0
    if count != len(config.attributes):
        raise InputError(
            f"An example carries {count} attributes and the method {config._method!r} was told "
            f"{', '.join(config.attributes)}: name them in data.groups."
        )
