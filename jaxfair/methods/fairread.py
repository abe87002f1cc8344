"""FairREAD: what a network sees is freed of attributes, then given them back under control.

FCRO's three stages (`fcro`), then a fourth in which blocks scale and shift what was seen by the
attributes of the patient, while an adversary tries to read the attributes before that. Two arms:

"published" re-fuses the maps of FCRO's backbone, as the paper's code does. FCRO's embedding, the
part that was held out of the sensitive subspace, is thrown away, and the backbone trains on; the
blocks are the published ones (`models.refusion` says what is weak about them). One thing is not
as published: the adversary is one. The code minimises the label loss minus alpha times the
adversary's over all parameters, so that the adversary itself is trained to be wrong; here it
minimises its own loss, and the backbone alone gets -alpha times its gradient, as the paper says.

"disentangled" re-fuses FCRO's embedding and keeps the column loss on it, so that what is re-fused
stays out of the subspace; blocks are on vectors, add to what they are given, and the scale is
positive.

Source: Gao et al. 2024 (arXiv 2412.16373), its code, and FCRO (arXiv 2301.01481).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfair.errors import InputError
from jaxfair.methods import fcro
from jaxfair.methods.attributes import attribute_inputs, attribute_loss, input_count
from jaxfair.methods.base import Example, Method, PyTree, Stage
from jaxfair.methods.embedder import (
    Augment,
    Embedder,
    augmented,
    compiled_init,
    fresh_key,
    no_init,
    one_row,
    paired,
    prepared,
)
from jaxfair.methods.encoder import FEATURES, make_encoder, refuse_unless_known
from jaxfair.methods.fcro import FcroConfig
from jaxfair.methods.labels import label_inputs, label_loss, label_scores
from jaxfair.models.refusion import Refusion
from jaxfair.models.reversal import reverse

__all__ = ["ARMS", "AT_TEST", "FairreadConfig", "describe", "make_fairread"]

ARMS = ("published", "disentangled")
AT_TEST = ("given", "dropped")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FairreadConfig(FcroConfig):
    """What FairREAD is; every field is a public choice. The weights are of its first stages.

    Attributes:
      arm: one of ARMS: what is re-fused.
      blocks: how many re-fusions.
      width: numbers that an attribute scales and shifts in a block, the paper's d_hidden.
      dropout: of every layer that has one.
      alpha: weight of the adversary's gradient in what it reads, turned round; 0 for no adversary.
      conditional: tells the adversary the label, so that the attributes go as far as the label does
        not hold them (equalized odds). The published one is not told, and then also pushes what
        tells the label where the two go together.
      attribute_dropout: in training each attribute of an example is unknown with this
        probability, so that the network is trained for patients of whom one is not known; below 1
        where a prediction reads them.
      at_test: one of AT_TEST: whether predictions read the attributes that are known, or none.
      tuned: whether what is re-fused goes on learning; else it stays as FCRO left it.
      fusion_share: share of the run's steps that train the re-fusion.

    Raises InputError for a value outside these.
    """

    arm: str = "disentangled"
    blocks: int = 2
    width: int = 256
    dropout: float = 0.1
    alpha: float = 0.1
    conditional: bool = False
    attribute_dropout: float = 0.25
    at_test: str = "given"
    tuned: bool = True
    target_share: float = 0.3
    fusion_share: float = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unless_known(self, arm=ARMS, at_test=AT_TEST)
        self._check(
            blocks=(self.blocks >= 1, "at least 1"),
            width=(self.width >= 1, "at least 1"),
            dropout=(0 <= self.dropout < 1, "in [0, 1)"),
            alpha=(0 <= self.alpha < 1e6, "in [0, 1e6)"),
            attribute_dropout=(0 <= self.attribute_dropout <= 1, "in [0, 1]"),
            fusion_share=(0 < self.fusion_share < 1, "in (0, 1)"),
        )
        self._check_shares("moment_share", "target_share", "fusion_share")
        if self.arm == "published" and self.backbone in (FEATURES, "slices"):
            raise InputError(
                f"The arm 'published' re-fuses the maps of a backbone, and {self.backbone!r} has "
                "none: use the arm 'disentangled', or another backbone."
            )
        if self.attribute_dropout == 1 and self.at_test == "given":
            raise InputError(
                "attribute_dropout = 1 shows no attribute in training, and at_test = 'given' would "
                "read them all the same: use at_test 'dropped', or less than 1."
            )
        if self.alpha and not self.tuned:
            raise InputError(
                f"alpha = {self.alpha:g} turns an adversary on what tuned = False keeps as it is, "
                "so it would push nobody: use alpha 0, or tuned True."
            )

    @property
    def _method(self) -> str:
        return "fairread"


class Trunk(NamedTuple):
    """What is re-fused.

    Attributes:
      net: the re-fusion.
      see: `(trunk params, frozen encoder, batch) -> (b, *spatial, c)` or (b, c).
      keep: `(phi_T's params) -> trunk params`.
    """

    net: Refusion
    see: Callable[..., jax.Array]
    keep: Callable[[PyTree], PyTree]


def make_fairread(config: FairreadConfig, augment: Augment | None = None) -> Method:
    """Returns FairREAD as a Method of four stages, with one task per label at the end.

    Args:
      config: the public choices.
      augment: as of `fcro.make_fcro`, and in the re-fusion too.

    A raw example is FCRO's. An attribute that is not known, that was dropped in training, or that
    `at_test` drops, is 0 to the re-fusion, between the two values that it may have; the adversary
    is asked only for what is known. Where a batch to be scored has no `group`, nothing is known.
    """
    first = fcro.make_fcro(config, augment)
    last = fusion_stage(config, *fcro.embedders(config))
    last = last._replace(method=augmented(last.method, augment))
    return first._replace(name=first.name.replace("fcro", "fairread"), stages=(*first.stages, last))


def describe(config: FairreadConfig) -> dict[str, Any]:
    """Returns what a report must say; `needs` lists what a prediction reads beside the image."""
    told = fcro.describe(config)
    needs = list(config.attributes) if config.at_test == "given" else []
    read = f"reads {', '.join(needs)} of the patient" if needs else "reads no attribute"
    what = "maps of the backbone" if config.arm == "published" else "the embedding"
    note = f"{told['note']} FairREAD re-fuses {what}; a prediction {read} where it is known."
    return told | {"note": note, "needs": needs, "arm": config.arm}


def make_trunk(config: FairreadConfig, asked: Embedder) -> Trunk:
    """Returns what the arm re-fuses, and by what."""
    vectors = config.arm == "disentangled"
    maps = make_encoder(config, maps=not vectors)

    def see_maps(params: PyTree, frozen: PyTree, batch: Example) -> jax.Array:
        return maps.embed(params["encoder"], frozen, batch)

    net = Refusion(
        labels=len(config.labels),
        guesses=input_count(config.sizes) if config.alpha else 0,
        channels=config.embedding if vectors else maps.width,
        vectors=vectors,
        blocks=config.blocks,
        width=config.width,
        rate=config.dropout,
        norm=config.norm,
    )
    if not vectors:
        return Trunk(net, see_maps, lambda params: {"encoder": params["encoder"]})
    kept = lambda params: params | {"head": {"projection": params["head"]["projection"]}}
    return Trunk(net, asked.embed, kept)


def fusion_stage(config: FairreadConfig, told: Embedder, asked: Embedder) -> Stage:
    """The re-fusion: label loss, the adversary's loss, and on an embedding the column loss.

    Guarantee: all of it is one loss of one example, so one clip and one draw pay for all, the
    adversary included; alpha is a public constant.
    """
    trunk = make_trunk(config, asked)
    net, sizes = trunk.net, config.sizes

    def begin(params: PyTree, frozen: PyTree, key: Any, spec: Any) -> tuple[PyTree, PyTree]:
        kept, space = trunk.keep(params), () if net.vectors else (1,) * config.ndim
        inputs = [jnp.zeros((1, *space, net.channels)), jnp.zeros((1, input_count(sizes)))]
        if config.conditional:
            inputs.append(jnp.zeros((1, len(config.labels))))
        fusion = compiled_init(net, "both")(fresh_key(frozen, key), *inputs)
        trained = {"fusion": fusion["params"]}
        frozen = frozen | {"strength": jnp.float32(config.alpha), "stats": fusion.get("stats", {})}
        if config.tuned:
            return trained | {"trunk": kept}, frozen
        return trained, frozen | {"trunk": kept}

    def see(params: PyTree, frozen: PyTree, batch: Example) -> jax.Array:
        kept = params["trunk"] if config.tuned else frozen["trunk"]
        found: jax.Array = trunk.see(kept, frozen["encoder"], batch)
        return found

    def apply(params: PyTree, frozen: PyTree, *inputs: Any, **options: Any) -> Any:
        variables = {"params": params["fusion"], "stats": frozen["stats"]}
        return net.apply(variables, *inputs, **options)

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        views, (dropped, rest) = one_row(example), jax.random.split(key)
        x, known = see(params, frozen, views), example["group"]
        lost = jax.random.bernoulli(dropped, config.attribute_dropout, known.shape)
        inputs = attribute_inputs(jnp.where(lost, -1, known), sizes)[None]
        logits = apply(params, frozen, x, inputs, train=True, rngs={"dropout": rest})
        total = label_loss(logits, views, config.target, config.class_weights)
        if config.alpha:
            told_of = (label_inputs(views),) if config.conditional else ()
            seen = reverse(x, frozen["strength"])
            guess = apply(params, frozen, seen, *told_of, method="guess")[0]
            total += attribute_loss(paired(guess, sizes), known, sizes)
        if config.arm == "disentangled" and config.tuned:
            total += config.column_weight * fcro.column_part(config, frozen, example, x[0])
        return total, {}

    def score(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
        x = see(params, frozen, batch)
        known = jnp.full((x.shape[0], len(sizes)), -1)
        if config.at_test == "given":
            known = batch.get("group", known)
        inputs = jax.vmap(lambda group: attribute_inputs(group, sizes))(known)
        logits = apply(params, frozen, x, inputs, train=False)
        return label_scores(logits, config.labels, config.target)

    def embed(params: PyTree, frozen: PyTree, batch: Example) -> dict[str, jax.Array]:
        x = see(params, frozen, batch)
        told_of = fcro.attribute_embedding(told, frozen, batch)
        return {"disease": x.reshape(*x.shape[:1], -1, x.shape[-1]).mean(1), "sensitive": told_of}

    method = Method("fairread: re-fusion", config.labels, no_init, loss, score, prepared(asked),
                    embed=embed, learned=fcro.noise_told)  # fmt: skip
    return Stage(method, begin, config.fusion_share)
