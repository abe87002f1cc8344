"""What a model file says of a run: model.json, the first lines of the card, and who may have it."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxfair.config import Settings
from jaxfair.data import greys
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.engine.optim import averaged_params
from jaxfair.errors import InputError
from jaxfair.files import read_json
from jaxfair.methods.base import Method, PyTree
from jaxfair.model_file.model import READERS
from jaxfair.report.single import Run
from jaxfair.run.folder import RunFolder
from jaxfair.schema import PHANTOM
from jaxfair.start import description, trained_assembly

__all__ = ["Trained", "about_run", "first_lines", "holds_evaluation", "trained_network"]

_HOUSE = (
    "In-house: not for publication, since it holds figures of validation and test patients, whom "
    "no guarantee covers."
)
_PLAIN = (
    "In-house: not for publication, since its training was not private and its parameters may "
    "tell of those who trained."
)
_PASSED = "May be passed on: it holds nothing of patients but what the guarantee below covers."
_DRAWN = "PHANTOM: trained on images drawn by a program; nothing in it is about patients."


class Trained(NamedTuple):
    """A run's network: the Method of its last stage, and its arrays on the host."""

    method: Method
    params: PyTree
    frozen: PyTree
    spec: Any


def trained_network(settings: Settings, folder: RunFolder) -> Trained:
    """Returns what the last stage of a run ended with. Raises InputError as `trained_assembly`."""
    stage, state = trained_assembly(settings, folder)
    params = averaged_params(state.params, state.opt_state)
    params, frozen = jax.device_get((params, stage.frozen))
    return Trained(stage.method, params, frozen, dict(stage.spec))


def holds_evaluation(privacy: dict[str, Any], in_house: bool) -> bool:
    """Whether figures of validation and test patients go into the file.

    Raises InputError for a run on patients without privacy that is not asked for `in_house`.
    """
    if privacy["data"] == PHANTOM or in_house:
        return True
    if privacy["grade"] != "private":
        raise InputError(
            f"The run's grade is {privacy['grade']!r}: no guarantee covers its parameters, so they "
            "may not be published; a file for use in the house is written with --in-house."
        )
    return False


def about_run(
    settings: Settings, trained: Trained, privacy: dict[str, Any], intended: str, whole: bool
) -> dict[str, Any]:
    """Returns model.json.

    Args:
      privacy: privacy.json.
      intended: what it is for, a sentence.
      whole: whether figures of validation and test patients go into the file.

    All of it follows from the config, the claim and the parameters. Raises InputError where the
    source reads pixels in a way that no model file can name.
    """
    told, data = description(settings), settings.data
    learned = trained.method.learned
    note = told["note"] + (f" {learned(trained.params, trained.frozen)}" if learned else "")
    drawn = privacy["data"] == PHANTOM
    return {
        "name": settings.name,
        "method": settings.method_name,
        "note": note.strip(),
        "tasks": list(trained.method.tasks),
        "groups": {name: list(values) for name, values in data.group_values.items()},
        "needs": list(told.get("needs", ())),
        "images": _images(settings),
        "data": privacy["data"],
        "population": privacy["population"],
        "title": f"PHANTOM in the layout of {data.facts['title']}"
        if drawn
        else data.facts["title"],
        "intended": intended,
        "passing_on": _passing_on(privacy, whole),
        "maps": _has_maps(trained),
        "jax": jax.__version__,
    }


def _images(settings: Settings) -> dict[str, Any]:
    """How images are read, as in the training."""
    source = SOURCES[settings.data.source]
    kinds = [kind for kind, reader in READERS.items() if reader is source.read_pixels]
    if not kinds:
        raise InputError(
            f"The source {settings.data.source!r} reads pixels in a way of its own, which a model "
            "file cannot name."
        )
    stored = settings.data.stored
    return {
        "kind": kinds[0],
        "stored": {name: getattr(stored, name) for name in stored.__dataclass_fields__},
        "greys": greys.RULE,
        "views": list(settings.data.views),
        "modalities": list(source.SPEC.get("modalities", ())),
    }


def _passing_on(privacy: dict[str, Any], whole: bool) -> str:
    if privacy["data"] == PHANTOM:
        return _DRAWN
    if privacy["grade"] != "private":
        return _PLAIN
    return _HOUSE if whole else _PASSED


def _has_maps(trained: Trained) -> bool:
    def score(params: PyTree, frozen: PyTree) -> Any:
        raw = {name: np.zeros((1, *a.shape), a.dtype) for name, a in trained.spec.items()}
        if trained.method.prepare is not None:
            raw |= jax.vmap(trained.method.prepare, (None, 0))(frozen, raw)
        return trained.method.score(params, frozen, raw)

    return "maps" in jax.eval_shape(score, trained.params, trained.frozen)


def first_lines(folder: RunFolder, privacy: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """Returns the first lines of the run's report, made of its claim and its settings alone."""
    nothing = pd.DataFrame()
    model = {"note": about["note"], "needs": about["needs"]}
    env = read_json(folder.env) if folder.env.is_file() else {}
    config = {"seed": read_json(folder.config).get("seed")}
    name = folder.path.resolve().name
    run = Run(name, folder.path, nothing, nothing, privacy, config, env, {}, {}, model)
    return run.statement()
