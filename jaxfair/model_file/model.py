"""A model out of its file: it scores arrays, and says what it is for and what it promises."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import pandas as pd

from jaxfair.data import pixels, volume
from jaxfair.data.examples import group_codes, scaled
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError
from jaxfair.model_file.checked import check_about, check_evaluation
from jaxfair.model_file.compiled import compiled
from jaxfair.model_file.container import json_part, opened
from jaxfair.model_file.function import Leaves, restored
from jaxfair.model_file.tensors import tensors_from_bytes
from jaxfair.schema import UNKNOWN

__all__ = ["EVALUATION", "NEEDED", "READERS", "Model", "load_model"]

NEEDED = ("model.json", "privacy.json", "card.md", "parameters.safetensors", "score.stablehlo")
EVALUATION = "evaluation.json"
"""What validation and test patients gave, whom no guarantee covers; it may be left out."""

READERS: Mapping[str, Callable[..., Any]] = {
    "picture": pixels.read_square,
    "volume": volume.read_volume,
}
"""How a file becomes the pixels that a model reads: the functions by which its training read."""

_BATCH = 32
"""Images that are scored at once, as in `jaxfair/scores.py`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """What one model file holds.

    Attributes:
      about: model.json: what it is, its tasks and groups, how images are prepared.
      privacy: privacy.json of its training.
      card: the model card, Markdown.
      evaluation: thresholds, performance, people and ranges; {} where the file has none.
      digest: SHA-256 of the file, in hex.
      leaves: name -> array of what the score reads.
      program: `(leaves, given) -> {task: (b,), "maps": (b, h, w)}` (function.py).
    """

    about: dict[str, Any]
    privacy: dict[str, Any]
    card: str
    evaluation: dict[str, Any]
    digest: str
    leaves: Leaves = dataclasses.field(repr=False)
    program: Callable[[Leaves, dict[str, Any]], dict[str, Any]] = dataclasses.field(repr=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The labels that it scores."""
        return tuple(self.about["tasks"])

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Attribute that it may be told of -> its values, in the order of their codes."""
        return {name: tuple(values) for name, values in self.about["groups"].items()}

    @property
    def thresholds(self) -> dict[str, Any]:
        """Task -> rule -> threshold, and `groups`; {} where the file has none."""
        return dict(self.evaluation.get("thresholds", {}))

    @functools.cached_property
    def stored(self) -> Stored:
        """What is kept of an image; its `shape` is that of what is scored."""
        return Stored(**self.about["images"]["stored"])

    @property
    def reader(self) -> Callable[..., Any]:
        """A job of `pixels.Job` -> (uint8 pixels or None, header), as in the training."""
        return READERS[self.about["images"]["kind"]]

    def score(
        self, images: npt.ArrayLike, groups: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, np.ndarray]:
        """Returns task -> (n,) float32, and `maps` (n, h, w) where the model has them.

        Args:
          images: (n, h, w, c) or (n, d, h, w, 1), as `stored.shape` has it: uint8, or float in
            [0, 1].
          groups: attribute -> its value for each image; one that is left out, or holds what the
            model has never met, is unknown.

        Raises InputError where images or groups do not fit, or the program asks for more memory
        than there is, or more work than any model of this package.

        Source of the scores: `Method.score` of the run, traced by jax.export.
        """
        batch = {"image": self._checked(np.asarray(images))}
        rows = len(batch["image"])
        if self.groups:
            batch["group"] = self._codes(groups or {}, rows)
        if not rows:
            return {task: np.zeros(0, np.float32) for task in self.tasks}
        size = min(_BATCH, 1 << (rows - 1).bit_length())
        parts = [self._part(batch, np.arange(at, min(at + size, rows)), size)
                 for at in range(0, rows, size)]  # fmt: skip
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _part(
        self, batch: Mapping[str, np.ndarray], rows: np.ndarray, size: int
    ) -> dict[str, np.ndarray]:
        given = {name: array[np.resize(rows, size)] for name, array in batch.items()}
        try:
            if size not in self._ready:
                self._ready[size] = compiled(self.program, self._on_device, given)
            found = self._ready[size](self._on_device, given)
            return {name: np.asarray(values)[: len(rows)] for name, values in found.items()}
        except jax.errors.JaxRuntimeError as error:
            raise InputError(
                f"The model's program cannot be run here ({' '.join(str(error).split())[:160]}); "
                "take a machine with more memory, or export the model again."
            ) from error

    def _checked(self, images: np.ndarray) -> np.ndarray:
        if images.ndim < 1 or images.shape[1:] != self.stored.shape:
            raise InputError(
                f"The images have the shape {images.shape}; this model scores (n, "
                f"{', '.join(map(str, self.stored.shape))})."
            )
        if images.dtype == np.uint8:
            return scaled(images)
        values = images.astype(np.float32)
        if not (values >= 0).all() or not (values <= 1).all():
            raise InputError("The images have values outside [0, 1]; scale them, or give uint8.")
        return values

    def _codes(self, groups: Mapping[str, Sequence[str]], rows: int) -> np.ndarray:
        for name, values in groups.items():
            if name in self.groups and len(values) != rows:
                raise InputError(f"There are {rows} images and {len(values)} values of {name}.")
        table = {n: list(groups.get(n, [UNKNOWN] * rows)) for n in self.groups}
        return group_codes(pd.DataFrame(table), self.groups, strict=False)

    @functools.cached_property
    def _ready(self) -> dict[int, Callable[..., dict[str, Any]]]:
        """Number of images -> the program for so many."""
        return {}

    @functools.cached_property
    def _on_device(self) -> Leaves:
        return jax.device_put(self.leaves)


def load_model(path: str | os.PathLike[str], *, sha256: str | None = None) -> Model:
    """Reads the file that `python -m jaxfair.export` wrote; nothing else of the run is needed.

    Args:
      path: the file.
      sha256: its digest in hex, got another way than the file; anything else is then refused.

    Raises:
      InputError: in one sentence, where the file was changed, is of another version, or holds
        anything but the parts of a model; nothing of it has been run by then.

    >>> load_model("nowhere.jaxfair")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxfair.errors.InputError: There is no model file nowhere.jaxfair; ...
    """
    parts, digest = opened(path, NEEDED, (EVALUATION,))
    if sha256 is not None and sha256.lower() != digest:
        raise InputError(f"{path} has the sha256 {digest}, and {sha256} was asked for.")
    about, privacy = (json_part(path, parts, name) for name in ("model.json", "privacy.json"))
    evaluation = json_part(path, parts, EVALUATION) if EVALUATION in parts else {}
    try:
        check_about(about, READERS)
        check_evaluation(evaluation)
        model = Model(
            about=about,
            privacy=privacy,
            card=parts["card.md"].decode("utf-8", "replace"),
            evaluation=evaluation,
            digest=digest,
            leaves=tensors_from_bytes(parts["parameters.safetensors"]),
            program=restored(parts["score.stablehlo"]),
        )
        _check_program(model)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    return model


def _check_program(model: Model) -> None:
    """Refuses a program that does not score what model.json says, by its shapes alone."""
    given = {"image": jax.ShapeDtypeStruct((2, *model.stored.shape), np.float32)}
    if model.groups:
        given["group"] = jax.ShapeDtypeStruct((2, len(model.groups)), np.int32)
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(model.tasks, (2,))
    if model.about["maps"]:
        wanted["maps"] = (2, *model.stored.shape[:-1])
    try:
        made = jax.eval_shape(model.program, model.leaves, given)
        found = {name: array.shape for name, array in made.items()}
    except Exception as error:  # of jax, of a program that somebody else wrote
        raise InputError(
            f"its program does not take its parameters and images ({type(error).__name__}); export "
            "the model again."
        ) from error
    if found != wanted:
        raise InputError("its program gives other scores than model.json says; export it again.")
