"""Whether the words of a model file are of the kinds that its readers take them for."""

from collections.abc import Mapping
from typing import Any

from jaxfair.data import greys
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError

__all__ = ["check_about", "check_evaluation", "fits"]

_NUMBER = (int, float)
_RULES = {...: (*_NUMBER, type(None), dict)}
_ABOUT: Mapping[str, Any] = {
    "name": str, "method": str, "note": str, "tasks": [str], "groups": {...: [str]},
    "needs": [str], "images": dict, "data": str, "title": str, "intended": str, "maps": bool,
    "jax": str,
}  # fmt: skip
_IMAGES = {"kind": str, "stored": dict, "greys": int, "views": [str], "modalities": [str]}
_EVALUATION: Mapping[str, Any] = {
    "thresholds": {...: _RULES},
    "ranges": {...: [_NUMBER]},
    "performance": [dict],
    "people": [dict],
}
_GROUPS = {...: {...: {...: (*_NUMBER, type(None))}}}


def fits(value: Any, kind: Any) -> bool:
    """Whether JSON has the form of `kind`.

    Args:
      kind: a type, a tuple of types, [kind of all items], {...: kind of all values}, or a dict
        with the kind of each name that must be there. A truth is no number.

    >>> fits({"a": [1, 2.5]}, {...: [(int, float)]}), fits([True], [int]), fits({}, {"a": str})
    (True, False, False)
    """
    if isinstance(kind, list):
        return isinstance(value, list) and all(fits(one, kind[0]) for one in value)
    if isinstance(kind, Mapping):
        if not isinstance(value, Mapping):
            return False
        if ... in kind:
            return all(fits(one, kind[...]) for one in value.values())
        return all(name in value and fits(value[name], one) for name, one in kind.items())
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def check_about(about: Mapping[str, Any], readers: Mapping[str, Any]) -> Stored:
    """Returns how images are stored.

    Args:
      about: model.json.
      readers: by the kind of images.

    Raises InputError for a model.json that lacks a word or has one of another kind, or whose
    images are prepared in an unknown way.
    """
    for name, kind in _ABOUT.items():
        if not fits(about.get(name), kind):
            raise InputError(f"model.json has no {name} that can be read; export the model again.")
    tasks = about["tasks"]
    if not tasks or len(set(tasks)) < len(tasks) or "maps" in tasks:
        raise InputError(f"model.json has the tasks {tasks}; each must have a name of its own.")
    images = about["images"]
    if not fits(images, _IMAGES) or images["kind"] not in readers:
        raise InputError("model.json does not say how images are read; export the model again.")
    if images["greys"] != greys.RULE:
        raise InputError(
            f"its training read pixels by the rule {images['greys']!r}, and this jaxfair by "
            f"{greys.RULE!r}: install the jaxfair of its manifest, or train and export again."
        )
    stored = Stored(**images["stored"])
    if (stored.volume is not None) != (images["kind"] == "volume"):
        raise InputError("model.json has a volume's size for pictures, or none for volumes.")
    return stored


def check_evaluation(evaluation: Mapping[str, Any]) -> None:
    """Raises InputError for an evaluation.json with thresholds or ranges that are no numbers."""
    for name, kind in _EVALUATION.items():
        if name in evaluation and not fits(evaluation[name], kind):
            raise InputError(f"evaluation.json has no {name} that can be read; export it again.")
    for told in evaluation.get("thresholds", {}).values():
        groups = told.get("groups", {})
        plain = (value for name, value in told.items() if name != "groups")
        if not fits(groups, _GROUPS) or any(isinstance(value, dict) for value in plain):
            raise InputError("evaluation.json has thresholds that are no numbers; export it again.")
    if any(len(ends) != 2 for ends in evaluation.get("ranges", {}).values()):
        raise InputError("evaluation.json has a range without two ends; export it again.")
