"""What a mitigation took of epsilon, in the first lines of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["cost_lines"]


def cost_lines(privacy: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """Returns sentences on the mitigation and its part of epsilon; [] where there is none to say.

    Args:
      privacy: privacy.json.
      model: model.json, which names the mitigation and the groups that are drawn at own rates.

    >>> cost_lines({"epsilon": 8.0}, {"mitigation": "averaging"})
    ["The mitigation 'averaging' took no part of epsilon."]
    """
    if privacy.get("epsilon") is None:
        return []
    lines = [
        *_queries(privacy),
        *_groups(privacy.get("group_sampling", ()), model.get("sampled_groups", ())),
    ]
    if "mitigation" not in model:
        return lines
    lines += _stages(privacy)
    return lines or [f"The mitigation {model['mitigation']!r} took no part of epsilon."]


def _queries(privacy: Mapping[str, Any]) -> list[str]:
    """What the side queries of a draw leave to the gradient."""
    side = [query["name"] for query in privacy.get("queries", ())[1:]]
    if not side:
        return []
    alone, now = privacy["joint_noise_multiplier"], privacy["noise_multiplier"]
    return [
        f"Each step also released {' and '.join(side)} with noise, priced as one event with the"
        f" gradient: at this epsilon the gradient alone would have the noise multiplier"
        f" {alone:.4g}, and has {now:.4g} ({1 - (alone / now) ** 2:.1%} of the squared signal to"
        " noise went to them)."
    ]


def _groups(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The rate and the epsilon of each group, where they are drawn at rates of their own."""
    if not rows:
        return []
    said = [
        f"{_name(row['group'], names)} {row['epsilon']:.4g} (drawn with probability"
        f" {row['sampling_prob']:.4g})"
        for row in rows
    ]
    return [
        f"Units are drawn at rates by group, and each group has its own epsilon: {'; '.join(said)}."
        " The claim is the largest."
    ]


def _name(code: int, names: Sequence[str]) -> str:
    if code < 0:
        return "of unknown group"
    return names[code] if code < len(names) else f"group {code}"


def _stages(privacy: Mapping[str, Any]) -> list[str]:
    stages = privacy.get("stages", {})
    apart = [f"{row['epsilon']:.4g} ({row['stage']})" for row in stages.get("apart", ())]
    if len(apart) < 2:
        return []
    return [
        f"Its stages would cost epsilon {' and '.join(apart)}, {stages['epsilon_summed']:.4g} added"
        f" up; in one composition they cost {privacy['epsilon']:.4g}."
    ]
