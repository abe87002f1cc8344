"""The interface of everything that can be trained."""

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Example", "Method", "PyTree"]

PyTree = Any
Example = dict[str, Any]
"""Arrays of one image, by name; a batch is the same with a leading axis `b`."""


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
        without a batch axis. `aux` is per-example and never leaves a private step.
      score: `(params, frozen, batch) -> {task: (b,) float32}`, deterministic; it may add
        `"maps": (b, h, w)`. The batch holds raw and prepared arrays together.
      prepare: `(frozen, raw example) -> example`, computed once per image and cached, or
        None if the raw example is trained on as it is.
      couples_examples: True if the loss of one example depends on others in the batch;
        such a Method cannot be trained privately.
    """

    name: str
    tasks: tuple[str, ...]
    init: Callable[..., tuple[PyTree, PyTree]]
    loss: Callable[..., tuple[Any, dict[str, Any]]]
    score: Callable[..., dict[str, Any]]
    prepare: Callable[..., Example] | None = None
    couples_examples: bool = False
