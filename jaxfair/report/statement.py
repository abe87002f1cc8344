"""What a report says of a claim, from privacy.json: whom it covers, what it costs, what weakens it.

Numbers of the claim are rounded up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxfair.privacy.meaning import risk_words, rounded_up
from jaxfair.privacy.queries import CURVATURE
from jaxfair.schema import NOT_COVERED_IN_SHORT, PHANTOM

__all__ = ["caveats", "costs", "of_number", "opening", "phantom_lines", "price", "weaknesses"]

Claim = Mapping[str, Any]


def opening(name: str, privacy: Claim | None, site_lines: Sequence[str], scored: bool) -> list[str]:
    """Returns the first lines of every report: what the guarantee covers, and what not.

    Args:
      name: of the run.
      privacy: privacy.json, or None for predictions from elsewhere.
      site_lines: of a second site, what was trained and scored.
      scored: whether the images that were scored are drawn.
    """
    not_covered = f"{NOT_COVERED_IN_SHORT[0].upper()}{NOT_COVERED_IN_SHORT[1:]}."
    if privacy is None:
        unknown = "nothing is known of a privacy guarantee"
        return [f"The predictions of {name} came without privacy.json: {unknown}.", not_covered]
    return [*site_lines, *phantom_lines(privacy, scored), _covers(privacy), not_covered]


def phantom_lines(privacy: Claim | None, scored: bool) -> list[str]:
    """Returns whether images are drawn: those that were scored, and those of the training."""
    if scored:
        return ["PHANTOM: the images are drawn by a program, and nothing here is about patients."]
    if privacy is not None and privacy.get("data") == PHANTOM:
        return ["The model was trained on PHANTOM images, drawn by a program."]
    return []


def _covers(privacy: Claim) -> str:
    unit = privacy.get("unit", "unit")
    if privacy.get("epsilon") is None:
        return "No guarantee: this model was trained without differential privacy."
    return f"The guarantee covers each {unit} among the training {unit}s, and no one else."


def price(privacy: Claim) -> list[str]:
    """Returns the claim with its numbers, and by whom they were computed; [] without one."""
    if privacy.get("epsilon") is None:
        return []
    accountant = privacy.get("accountant", "")
    if isinstance(accountant, dict):
        told = (str(accountant.get(key, "")) for key in ("library", "name", "version"))
        accountant = " ".join(told).strip()
    relation = str(privacy.get("relation", "")).replace("_", " ")
    epsilon, delta = (of_number(privacy.get(key)) for key in ("epsilon", "delta"))
    return [
        f"The parameters have ({epsilon}, {delta})-differential privacy, neighbours by {relation},"
        f" computed by {accountant}; both numbers are rounded up."
    ]


def caveats(privacy: Claim) -> list[str]:
    """Returns what the claim means, what weakens it, and what it was spent on."""
    rates = privacy.get("true_positive_rates")
    risk = [risk_words(rates, privacy["unit"])] if rates else []
    return [*risk, *weaknesses(privacy), *costs(privacy)]


def weaknesses(privacy: Claim) -> list[str]:
    """Returns what weakens the claim; the words are the worst of all stages that it rests on."""
    lines = []
    if privacy.get("grade") == "research" or privacy.get("noise_source") == "insecure_seed":
        lines.append("Research grade, not private: the noise comes from a seed that is known.")
    if privacy.get("selection") == "coupled":
        lines.append("Guarantee for the selected table only: patients were counted to choose it.")
    private = privacy.get("epsilon") is not None
    if privacy.get("unit") == "image" and private:
        lines.append("The unit is the image: a patient with several images is protected less.")
    if private and len(set(privacy.get("earlier", {}).get("units", ())) | {privacy["unit"]}) > 1:
        lines.append(f"Stages protect different units, so the claim is about {privacy['covered']}.")
    return [*lines, *_tuning(privacy)]


def costs(privacy: Claim) -> list[str]:
    """Returns the runs that this one rests on, and what each draw was asked beside gradients."""
    return [*_stages(privacy), *_queries(privacy)]


def _queries(privacy: Claim) -> list[str]:
    names = [query["name"] for query in privacy.get("queries") or ()][1:]
    if not names:
        return []
    if names[0].startswith(CURVATURE):
        return [
            "The parameters are the minimum of a loss with a random linear term (objective"
            " perturbation); its curvature and the last digits of the minimum are in the same"
            " epsilon."
        ]
    has, alone = privacy["noise_multiplier"], privacy["joint_noise_multiplier"]
    return [
        f"Beside the gradient sum each draw released {', '.join(names)}, in the same epsilon: the"
        f" gradient has noise multiplier {has:.4g}, where alone it would have {alone:.4g}"
        f" ({has / alone - 1:.1%} more noise)."
    ]


def _stages(privacy: Claim) -> list[str]:
    """That the parameters come from other runs too, and what that means for the words above."""
    before = len(privacy.get("earlier", {}).get("chain", ()))
    if not before:
        return []
    stages = f"Trained in {before + 1} runs, one beginning with the parameters of another"
    if privacy.get("epsilon") is None:
        return [f"{stages}; this one without differential privacy."]
    return [f"{stages}: epsilon covers all of them, and unit, grade, selection and data are the"
            " worst of them."]  # fmt: skip


def _tuning(privacy: Claim) -> list[str]:
    told = privacy.get("tuning") or {}
    if search := told.get("search"):
        return [
            f"The best of a random number of runs ({search['law']}, {search['mean']:g} on average):"
            " epsilon covers the search, of which nothing else may be published; alone this run"
            f" costs {of_number(search['epsilon_alone'])}."
        ]
    if told.get("epsilon") is None:
        return []
    return [
        f"{told['runs']} runs on these people were compared to choose this one:"
        f" all of them together cost epsilon {of_number(told['epsilon'])}."
    ]


def of_number(value: Any) -> str:
    """Returns epsilon or delta with four digits, rounded up; 'none' for None.

    >>> of_number(7.99961), of_number(1.00001e-5), of_number(None)
    ('8', '1.001e-05', 'none')
    """
    return "none" if value is None else rounded_up(float(value))
