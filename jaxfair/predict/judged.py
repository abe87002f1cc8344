"""What is said of one case beside its score: who it is, what decides, and what is unusual."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data import words
from jaxfair.errors import InputError
from jaxfair.model_file.evaluation import measured
from jaxfair.model_file.model import Model
from jaxfair.predict.cases import Case
from jaxfair.schema import AGE_GROUPS, UNKNOWN, age_groups

__all__ = ["AUTO", "POOLED", "Decision", "check_rule", "decided", "facts_of", "notes_of", "unread"]

AUTO, POOLED = "auto", "pooled"
"""Which thresholds decide: of the first attribute that has one for the case, or the pooled."""
LONG = 2.0
"""A picture whose sides are in a larger ratio is said to be long."""


class Decision(NamedTuple):
    """A threshold, whose it is ("sex: F", POOLED, or "" for none), and whether it is reached."""

    threshold: float | None
    of: str
    positive: bool | None


def facts_of(
    case: Case, header: Mapping[str, Any], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns sex, age, age_group, view, patient_id and the model's further attributes of a case.

    A table goes before the file's header, but an empty cell says nothing; texts are read as
    `prepare` reads them (`data.words`). The age group follows from the age, unless a table has it
    and no age.
    """
    texts = _texts(case, header)
    found: dict[str, Any] = {name: read(texts[name])[0] for name, read in words.READERS.items()}
    told = "" if case.texts.get("age") else case.texts.get("age_group", "")
    by_age = str(age_groups([found["age"]])[0])
    found["age_group"] = (told if told in AGE_GROUPS else UNKNOWN) if told else by_age
    found["patient_id"] = case.texts.get("patient") or header.get("patient_text", "")
    more = {name: case.texts.get(name) or UNKNOWN for name in attributes if name not in found}
    return found | more


def unread(case: Case, header: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each text of sex, age and view that is there and not understood."""
    return [
        f"{name} is {text!r}, which is no {name} to believe: taken as unknown."
        for name, text in _texts(case, header).items()
        if words.READERS[name](text)[1] in words.UNREAD
    ]


def _texts(case: Case, header: Mapping[str, Any]) -> dict[str, str]:
    return {name: case.texts.get(name) or header.get(f"{name}_text", "") for name in words.READERS}


def check_rule(model: Model, rule: str, by: str) -> None:
    """Raises InputError where the model has no thresholds by this rule, or by these groups."""
    told = list(model.thresholds.values())
    rules = [name for name in (told[0] if told else {}) if name != "groups"]
    if told and rule not in rules:
        raise InputError(f"--rule is {rule!r}; this model has thresholds by {', '.join(rules)}.")
    known = {name for entry in told for name in entry.get("groups", {})}
    if by not in (AUTO, POOLED, *known):
        raise InputError(
            f"--by is {by!r}; it may be {', '.join([AUTO, POOLED, *sorted(known)])}: an attribute "
            "with thresholds of its own in this model."
        )


def decided(
    model: Model, task: str, score: float, facts: Mapping[str, Any], *, rule: str, by: str = AUTO
) -> Decision:
    """Returns the decision at the stored threshold, and whose threshold it was.

    A score that is no finite number lies on neither side of any threshold: it decides nothing.

    Args:
      facts: of `facts_of`.
      rule: of thresholds.json, as "youden".
      by: AUTO takes the first attribute, in the order of the model's groups and then of its
        thresholds, of which the case's group has a threshold; POOLED none; or one attribute.
    """
    if not math.isfinite(score):
        return Decision(None, "", None)
    told = model.thresholds.get(task, {})
    groups = told.get("groups", {})
    order = [
        *(n for n in model.groups if n in groups),
        *(n for n in groups if n not in model.groups),
    ]
    for name in order if by == AUTO else [n for n in order if n == by]:
        group = " x ".join(str(facts.get(part, UNKNOWN)) for part in name.split(" x "))
        own = groups[name].get(group, {}).get(rule)
        if own is not None and UNKNOWN not in group.split(" x "):
            return Decision(own, f"{name}: {group}", bool(score >= own))
    pooled = told.get(rule)
    return Decision(None, "", None) if pooled is None else Decision(pooled, POOLED, score >= pooled)


def notes_of(
    model: Model, facts: Mapping[str, Any], header: Mapping[str, Any], pixels: np.ndarray
) -> list[str]:
    """Returns what is outside of what the model was trained for, a sentence each; [] for nothing.

    Args:
      pixels: uint8, as they are scored.
    """
    images = model.about["images"]
    notes = [*_size(model, header), *_intensities(model, pixels)]
    modality, view = header.get("modality", ""), facts["view"]
    if images["modalities"] and modality and modality not in images["modalities"]:
        notes.append(f"Modality {modality}: the model is for {', '.join(images['modalities'])}.")
    if images["views"] and view not in images["views"]:
        said = "View unknown" if view == UNKNOWN else f"View {view}"
        notes.append(f"{said}: the model is for {', '.join(images['views'])}.")
    for name in model.about["needs"]:
        if facts.get(name) not in model.groups.get(name, ()):
            notes.append(f"{name} is {facts.get(name)}: scored as unknown.")
    return [*notes, *(f"Decoder: {remark}" for remark in header.get("remarks", ()))]


def _size(model: Model, header: Mapping[str, Any]) -> list[str]:
    rows, columns, side = header.get("rows"), header.get("columns"), model.stored.image_size
    if not rows or not columns or model.stored.volume:
        return []
    notes = []
    if min(rows, columns) < side:
        notes.append(f"Size {columns} x {rows}: smaller than the {side} px that the model reads.")
    if max(rows, columns) > LONG * min(rows, columns):
        part = {"crop": "its middle square alone is read", "pad": "it gets broad bars"}
        done = part.get(model.stored.resize, "it is distorted")
        notes.append(f"Size {columns} x {rows}: {done}.")
    return notes


def _intensities(model: Model, pixels: np.ndarray) -> list[str]:
    notes = []
    for (name, (low, high)), value in zip(_ranges(model), measured(pixels)):
        if not low <= value <= high:
            notes.append(
                f"Intensities: {name} {value:.2f}, and 99 % of validation lay in {low:.2f} to "
                f"{high:.2f}."
            )
    return notes


def _ranges(model: Model) -> list[tuple[str, list[float]]]:
    told = model.evaluation.get("ranges", {})
    return [(name, told[name]) for name in ("mean", "spread") if name in told]
