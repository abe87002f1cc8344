"""The interface of everything that can be trained."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

__all__ = ["Example", "Method", "PyTree", "Stage", "carrying", "method_from_loss", "no_loss"]

PyTree = Any
Example = dict[str, Any]
"""Arrays of one image, by name; a batch is the same with a leading axis `b`."""


CARRIED = ("group", "weight")
"""Arrays of an example that every Method may meet, whatever it prepares."""


class Method(NamedTuple):
    """What is learned, as pure functions of one example.

    A Method has never heard of privacy: it states the loss of ONE example, and the step
    decides how the gradients of many are added up.

    Attributes:
      name: as in `config.method.name`.
      tasks: names of the outputs of `score`; one row per image and task is evaluated.
      init: `(key, spec) -> (params, frozen)`. `spec` maps the names of a raw example to
        `jax.ShapeDtypeStruct`s. `params` is trained, `frozen` never is.
      loss: `(params, frozen, example, key) -> (float32 scalar, aux)` for one example
        without a batch axis. `aux` is per-example and never leaves a private step; `no_loss`
        where there is a `batch_loss` instead.
      score: `(params, frozen, batch) -> {task: (b,) float32}`, deterministic; it may add
        `"maps": (b, h, w)`. The batch holds raw and prepared arrays together.
      prepare: `(frozen, raw example) -> example`, computed once per image and cached, or
        None if the raw example is trained on as it is.
      couples_examples: True if the loss of one example depends on others in the batch;
        such a Method cannot be trained privately.
      batch_loss: `(params, frozen, batch, mask, keys) -> float32 scalar`, a mean over the rows
        of one microbatch whose `mask` (b,) is True, added to the mean of `loss`. It couples
        examples, so it is for plain training only and refused under privacy; None for none.
      stages: what is trained after this, one after the other; see `Stage`.
      embed: `(params, frozen, batch) -> {name: (b, d) float32}`, deterministic, of a batch as
        `score` gets it; the first is what the predictions rest on. It is so in the order of the
        alphabet, in which jax hands on the names of a mapping. None for none.
      schedule: `(frozen, progress) -> frozen`, what is frozen but follows a public schedule, as
        the strength of an adversary; of the same shapes. `progress` () float32 in [0, 1) is the
        share of the run's steps that are over; nothing else may be read, so that the schedule is
        public and the same for every example. The step applies it before gradients, and nobody
        in `score`; None for none.
      learned: `(params, frozen) -> str`, a sentence for a report on what was learned, made of
        released parameters and public constants alone; None for none.
      linear: what the loss is where it may be minimised at once (`dp.mechanism`); None where not.
    """

    name: str
    tasks: tuple[str, ...]
    init: Callable[..., tuple[PyTree, PyTree]]
    loss: Callable[..., tuple[Any, dict[str, Any]]]
    score: Callable[..., dict[str, Any]]
    prepare: Callable[..., Example] | None = None
    couples_examples: bool = False
    batch_loss: Callable[..., Any] | None = None
    stages: "tuple[Stage, ...]" = ()
    embed: Callable[..., dict[str, Any]] | None = None
    schedule: Callable[..., PyTree] | None = None
    learned: Callable[..., str] | None = None
    linear: "Linear | None" = None


class Linear(NamedTuple):
    """Says that a Method is a linear head on features, whose loss is a convex one of labels.

    The parameters are {"head": {"kernel": (d, l), "bias": (l,)}} and nothing else. The loss of one
    example is the sum of cross-entropies of the labels that are asked, over l (methods/labels.py).

    Attributes:
      weights: of the positives of each label, (l,).
      features: name of the array (d,) of an example that the head reads; of length at most 1, or it
        is cut to that where the loss is minimised at once.
    """

    weights: tuple[float, ...]
    features: str = "features"


class Stage(NamedTuple):
    """A further stretch of a training: another network, with parts of the one before.

    All stages of a run share one ledger, one secret and one count of steps. The model of the
    run is that of its last stage.

    Attributes:
      method: what this stage trains; its own `stages` are not looked at.
      begin: `(params, frozen, key, spec) -> (params, frozen)`, from what the stage before
        ended with to what this one begins with.
      share: of all steps of the run, in (0, 1); the first Method trains what is left.
      optimizer: an `optax.GradientTransformation` of its own; None for the run's.
      averaged: True where it begins with the average of the parameters that the optimiser of the
        stage before kept (`optim.average`), if it kept one, and not with the last.
    """

    method: Method
    begin: Callable[..., tuple[PyTree, PyTree]]
    share: float
    optimizer: Any = None
    averaged: bool = False


def no_loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
    """The loss of a Method that has a `batch_loss` and nothing else: zero."""
    return jnp.zeros(()), {}


def carrying(method: Method, spec: Any) -> Method:
    """Returns a Method whose `prepare` hands on what it does not know of: CARRIED arrays.

    Args:
      spec: of a raw example; where it has none of them, the Method stays as it is.
    """
    names, prepare = [name for name in CARRIED if name in spec], method.prepare
    if prepare is None or not names:
        return method

    def hands_on(frozen: PyTree, raw: Example) -> Example:
        return {name: raw[name] for name in names} | prepare(frozen, raw)

    return method._replace(prepare=hands_on)


def method_from_loss(
    loss_fn: Callable[[PyTree, Any, Any], Any], params: PyTree, *, name: str = "loss"
) -> Method:
    """Returns a Method of nothing but a loss and its first parameters.

    Args:
      loss_fn: `(params, example, key) -> scalar` for one example without a batch axis.
      params: pytree of floating-point arrays.
    """

    def loss(params: PyTree, frozen: PyTree, example: Example, key: Any) -> tuple[Any, dict]:
        return loss_fn(params, example, key), {}

    return Method(name, (), lambda key, spec: (params, {}), loss, lambda *arguments: {})
