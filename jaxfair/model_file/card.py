"""The model card of a model file: Markdown made of what the file says, and of nothing else.

Source of the sections: Mitchell et al. 2019 (arXiv 1810.03993).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxfair.schema import CAUTION

__all__ = ["card_from_parts"]

_NO_EVALUATION = (
    "Not in this file: thresholds, performance and counts are exact functions of validation and "
    "test patients, whom the guarantee does not cover. `jaxfair export RUN --in-house` writes a "
    "file that has them, for use in the house alone."
)
_UNCOVERED = (
    "What follows comes from validation and test patients without noise; the guarantee does not "
    "cover them."
)


def card_from_parts(
    about: Mapping[str, Any],
    privacy: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    statement: Sequence[str],
    limits: Sequence[str],
) -> str:
    """Returns the card.

    Args:
      about, privacy, evaluation: the parts of the file, as `Model` has them.
      statement: the first lines of the run's report: what the guarantee covers, and what not.
      limits: sentences.
    """
    sections = {
        "What it is": _what(about),
        "Intended use": _use(about),
        "Privacy": [*statement, "Not covered by the guarantee:", *_listed(privacy["not_covered"])],
        "Thresholds": _thresholds(evaluation),
        "Performance by group": _performance(evaluation),
        "Who validated and tested": _people(evaluation),
        "Limits": _listed(limits),
    }
    head = f"# Model card: {about['name']}\n\n**{CAUTION}**\n\n{about['passing_on']}"
    parts = [f"## {title}\n\n" + _joined(lines) for title, lines in sections.items()]
    return "\n\n".join([head, *parts]) + "\n"


def _what(about: Mapping[str, Any]) -> list[str]:
    images, stored = about["images"], about["images"]["stored"]
    shape = " x ".join(map(str, stored["volume"] or [stored["image_size"]] * 2))
    needs = ", ".join(about["needs"])
    return [
        f"{about['method']}; it scores: {', '.join(about['tasks'])}. {about['note']}",
        f"It reads a {images['kind']} of {shape}, {stored['channels']} channel(s), prepared as in "
        "training.",
        f"Beside the image it reads {needs}, where it is known." if needs
        else "It reads the image alone.",
        f"Trained on {about['title']} (population {about['population']!r}).",
    ]  # fmt: skip


def _use(about: Mapping[str, Any]) -> list[str]:
    views, kinds = about["images"]["views"], about["images"]["modalities"]
    known = [f"views {', '.join(views)}"] * bool(views)
    known += [f"modalities {', '.join(kinds)}"] * bool(kinds)
    seen = f" It was made for {' and '.join(known)}." if known else ""
    return [
        f"{about['intended']}{seen}",
        "Out of scope: diagnosis, triage or any decision about a patient; other body parts, "
        "machines or ages than those of the training; people who are no patients.",
    ]


def _thresholds(evaluation: Mapping[str, Any]) -> list[str]:
    found = evaluation.get("thresholds")
    if not found:
        return [_NO_EVALUATION]
    rows = []
    for task, told in found.items():
        rows.append((task, "all", _number(told.get("youden")), _number(told.get("min_gap"))))
        rows += [
            (task, f"{attribute}: {group}", _number(own.get("youden")), _number(own.get("min_gap")))
            for attribute, groups in told.get("groups", {}).items()
            for group, own in groups.items()
        ]
    return [_UNCOVERED, _table(("label", "group", "youden", "min_gap"), rows)]


def _performance(evaluation: Mapping[str, Any]) -> list[str]:
    if not evaluation.get("performance"):
        return [_NO_EVALUATION]
    rows = [
        (row["task"], f"{row['attribute']}: {row['group']}", row["metric"], _interval(row))
        for row in evaluation["performance"]
    ]
    return [_UNCOVERED, _table(("label", "group", "metric", "value [95 %]"), rows)]


def _people(evaluation: Mapping[str, Any]) -> list[str]:
    if not evaluation.get("people"):
        return [_NO_EVALUATION]
    rows = [(row["split"], f"{row['attribute']}: {row['group']}", row["images"])
            for row in evaluation["people"]]  # fmt: skip
    told = "Counts of images, rounded to tens; what is below ten says no more than that."
    return [_UNCOVERED, told, _table(("split", "group", "images"), rows)]


def _interval(row: Mapping[str, Any]) -> str:
    if row["too_few"]:
        return "too few"
    if row["value"] is None:
        return "undefined"
    ends = [_number(row[name]) for name in ("ci_low", "ci_high")]
    return f"{_number(row['value'])} [{', '.join(ends)}]"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _listed(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {line}" for line in lines)]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _joined(lines: Sequence[str]) -> str:
    return "\n\n".join(lines)
